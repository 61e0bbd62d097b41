"""Orientation, frames and boxes: by hand, against Pillow, and for any photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from camserve.images import Box, InputFrame, Pixels
from camserve.images.geometry import ORIENTATIONS, apply_orientation, undo_orientation
from tests.support.image_files import ORIENTATION, noise

UPRIGHT_SIDES = [(1, 1), (1, 5), (5, 1), (2, 3), (4, 3), (7, 5), (33, 48)]


# Orientation


def apply_with_pillow(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """File pixels made upright by Pillow, channel by channel."""
    if pixels.ndim == 3:
        planes = [apply_with_pillow(plane, orientation) for plane in np.moveaxis(pixels, 2, 0)]
        return np.stack(planes, axis=2)
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_orientation_is_applied_as_exif_defines_it(
    orientation: int, upright: list[list[int]]
) -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert apply_orientation(stored, orientation).tolist() == upright


def test_there_are_eight_orientations() -> None:
    assert set(range(1, 9)) == ORIENTATIONS


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["2-D", "3-D"])
def test_orientation_is_applied_as_pillow_applies_it(
    orientation: int, dtype: type, channels: tuple[int, ...]
) -> None:
    for sides in UPRIGHT_SIDES:
        stored: NDArray[Any] = noise(*sides, *channels).astype(dtype)
        upright = apply_orientation(stored, orientation)
        assert upright.dtype == dtype
        np.testing.assert_array_equal(upright, apply_with_pillow(stored, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["2-D", "3-D"])
def test_undoing_the_orientation_gives_the_file_pixels(
    orientation: int, dtype: type, channels: tuple[int, ...]
) -> None:
    for sides in UPRIGHT_SIDES:
        stored: NDArray[Any] = noise(*sides, *channels).astype(dtype)
        back = undo_orientation(apply_orientation(stored, orientation), orientation)
        np.testing.assert_array_equal(back, stored)
        np.testing.assert_array_equal(
            apply_orientation(undo_orientation(stored, orientation), orientation), stored
        )


# Frames


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, (0, 1, 2, 4)),
        (2, (4, 1, 6, 4)),
        (3, (4, 0, 6, 3)),
        (4, (0, 0, 2, 3)),
        (5, (1, 0, 4, 2)),
        (6, (1, 2, 4, 4)),
        (7, (2, 2, 5, 4)),
        (8, (2, 0, 5, 2)),
    ],
)
def test_box_of_an_upright_photo_in_a_file_of_6_by_4(
    orientation: int, stored: tuple[int, ...]
) -> None:
    upright = Box(0, 1, 2, 4)
    assert InputFrame(6, 4, orientation, upright).to_file_box(upright) == stored
    assert InputFrame(6, 4, orientation, upright).visible_box == stored


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frame_of_an_upright_size_is_as_large_as_the_file(orientation: int) -> None:
    frame = InputFrame.from_upright_size(451, 300, orientation, Box(0, 0, 1, 1))
    assert frame.upright_size == (451, 300)
    assert (frame.width, frame.height) == ((451, 300) if orientation < 5 else (300, 451))
    assert frame.orientation == orientation


def test_full_frame_has_all_of_the_photo_in_its_input() -> None:
    frame = InputFrame.full(224, 100)
    assert (frame.width, frame.height, frame.orientation) == (224, 100, 1)
    assert frame.input_box == frame.visible_box == (0, 0, 224, 100)


@pytest.mark.parametrize(
    ("input_box", "visible_box"),
    [
        pytest.param((1, 2, 5, 3), (1, 2, 5, 3), id="within"),
        pytest.param((-2, 1, 9, 3), (0, 1, 6, 3), id="wider"),
        pytest.param((1, -3, 5, 7), (1, 0, 5, 4), id="higher"),
        pytest.param((-1.5, -0.5, 6.5, 4.25), (0, 0, 6, 4), id="all-around"),
        pytest.param((0.25, 0.5, 5.75, 3.5), (0.25, 0.5, 5.75, 3.5), id="fractions"),
    ],
)
def test_visible_box_is_clipped_to_the_photo(
    input_box: tuple[float, ...], visible_box: tuple[float, ...]
) -> None:
    assert InputFrame(6, 4, 1, Box(*input_box)).visible_box == visible_box


@pytest.mark.parametrize(
    ("orientation", "input_box"),
    # The file gets twice as wide and three times as high.
    [(1, (2, 6, 6, 9)), (3, (2, 6, 6, 9)), (5, (3, 4, 9, 6)), (6, (3, 4, 9, 6))],
)
def test_scaled_by_the_files_sides(orientation: int, input_box: tuple[int, ...]) -> None:
    scaled = InputFrame(6, 4, orientation, Box(1, 2, 3, 3)).scaled(12, 12)
    assert scaled == InputFrame(12, 12, orientation, Box(*input_box))


SIDES = st.integers(1, 40)


@st.composite
def frames(draw: st.DrawFn) -> InputFrame:
    """A file of any shape and orientation; an input box of whole pixels, within or beyond it."""
    width, height = draw(SIDES), draw(SIDES)
    x0, y0 = draw(st.integers(-9, width - 1)), draw(st.integers(-9, height - 1))
    x1 = draw(st.integers(max(x0, 0) + 1, width + 9))
    y1 = draw(st.integers(max(y0, 0) + 1, height + 9))
    return InputFrame.from_upright_size(width, height, draw(st.integers(1, 8)), Box(x0, y0, x1, y1))


def bounding_box(painted: Pixels) -> tuple[int, ...]:
    """The box around what is not zero."""
    rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@given(frames())
@settings(deadline=None, derandomize=True)
def test_file_box_is_where_a_painted_box_is_in_the_file(frame: InputFrame) -> None:
    width, height = frame.upright_size
    x0, y0, x1, y1 = (int(edge) for edge in frame.input_box)
    upright = np.zeros((height, width), np.uint8)
    upright[max(y0, 0) : y1, max(x0, 0) : x1] = 1
    stored = undo_orientation(upright, frame.orientation)
    assert stored.shape == (frame.height, frame.width)
    assert frame.visible_box == bounding_box(stored)


@given(frames(), SIDES, SIDES)
@settings(deadline=None, derandomize=True)
def test_scaling_and_mapping_to_the_file_commute(
    frame: InputFrame, width: int, height: int
) -> None:
    scaled = frame.scaled(width, height)
    assert (scaled.width, scaled.height, scaled.orientation) == (width, height, frame.orientation)
    scale_x, scale_y = width / frame.width, height / frame.height
    x0, y0, x1, y1 = frame.visible_box
    assert scaled.visible_box == pytest.approx(
        (x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)
    )
    assert scaled.scaled(frame.width, frame.height).input_box == pytest.approx(frame.input_box)
