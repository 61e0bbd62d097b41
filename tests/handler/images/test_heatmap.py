"""Maps upsampled to a photo, and the heatmap of several layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from camserve.images import Box, Heatmap, InputFrame, Map
from camserve.images.geometry import undo_orientation
from camserve.images.heatmap import upsample_to_frame
from camserve.preprocess_settings import InputSize

SIDE = 224
SQUARE = InputSize(SIDE, SIDE)


def map_of(*rows: Sequence[float]) -> Map:
    return np.array(rows, np.float32)


def random_map(*shape: int) -> Map:
    return np.random.default_rng(shape).random(shape, np.float32)


def bilinear_weights(cells: int, length: int, start: float, end: float) -> NDArray[np.float64]:
    """(length, cells): the weight of each cell of an axis from ``start`` to ``end`` in each pixel.

    Zero for pixels whose centre is outside.
    """
    centres = np.arange(length) + 0.5
    positions = np.clip((centres - start) * cells / (end - start) - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(cells)))
    weights[(centres < start) | (centres >= end)] = 0
    return weights


def reference(map: Map, frame: InputFrame) -> NDArray[np.float64]:
    """Bilinear in float64, by one matrix per axis; border cells extend to the input's edge."""
    width, height = frame.upright_size
    x0, y0, x1, y1 = frame.input_box
    rows = bilinear_weights(map.shape[0], height, y0, y1)
    columns = bilinear_weights(map.shape[1], width, x0, x1)
    return undo_orientation(rows @ map.astype(np.float64) @ columns.T, frame.orientation)


@pytest.mark.parametrize(
    ("map", "width", "height", "expected"),
    [
        pytest.param(map_of([0, 1]), 4, 1, map_of([0, 0.25, 0.75, 1]), id="horizontal"),
        pytest.param(map_of([0], [1]), 1, 4, map_of([0], [0.25], [0.75], [1]), id="vertical"),
        pytest.param(
            map_of([0, 1], [1, 0]),
            4,
            4,
            map_of(
                [0, 0.25, 0.75, 1],
                [0.25, 0.375, 0.625, 0.75],
                [0.75, 0.625, 0.375, 0.25],
                [1, 0.75, 0.25, 0],
            ),
            id="both",
        ),
        pytest.param(map_of([0.5]), 3, 2, np.full((2, 3), 0.5), id="one-value"),
        pytest.param(map_of([0, 1], [1, 0]), 2, 2, map_of([0, 1], [1, 0]), id="same-size"),
    ],
)
def test_upsampling_is_bilinear(map: Map, width: int, height: int, expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(
        upsample_to_frame(map, InputFrame.full(width, height)), expected, atol=1e-6
    )


@pytest.mark.parametrize(
    ("input_box", "expected"),
    [
        pytest.param((1, 0, 5, 1), [[0, 0, 0.25, 0.75, 1, 0]], id="within"),
        pytest.param((2, 0, 6, 1), [[0, 0, 0, 0.25, 0.75, 1]], id="to-the-edge"),
        pytest.param((-1, 0, 3, 1), [[0.25, 0.75, 1, 0, 0, 0]], id="beyond-the-left"),
        pytest.param((3, 0, 7, 1), [[0, 0, 0, 0, 0.25, 0.75]], id="beyond-the-right"),
        pytest.param((1.6, 0, 5.6, 1), [[0, 0, 0, 0.45, 0.95, 1]], id="fractions"),
    ],
)
def test_upsampling_to_a_photo_by_hand(
    input_box: tuple[float, ...], expected: list[list[float]]
) -> None:
    upsampled = upsample_to_frame(map_of([0, 1]), InputFrame(6, 1, 1, Box(*input_box)))
    np.testing.assert_allclose(upsampled, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [
        (1.4, 4.4, [0, 1, 1, 1, 0, 0]),
        (1.5, 4.5, [0, 1, 1, 1, 0, 0]),
        (1.6, 4.6, [0, 0, 1, 1, 1, 0]),
        (-0.5, 0.4, [0, 0, 0, 0, 0, 0]),
        (-9, 0.6, [1, 0, 0, 0, 0, 0]),
        (5.5, 9, [0, 0, 0, 0, 0, 1]),
    ],
)
def test_a_pixel_is_in_the_input_if_its_centre_is(
    start: float, end: float, inside: list[float]
) -> None:
    ones = map_of([1, 1], [1, 1])
    assert upsample_to_frame(ones, InputFrame(6, 1, 1, Box(start, 0, end, 1))).tolist() == [inside]
    vertical = upsample_to_frame(ones, InputFrame(1, 6, 1, Box(0, start, 1, end)))
    assert vertical.ravel().tolist() == inside


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(224, 224), (451, 300), (33, 97), (1, 1)])
def test_upsampling_to_a_photo_without_a_crop_is_opencvs_resize(
    width: int, height: int, orientation: int
) -> None:
    map = random_map(7, 7)
    frame = InputFrame.from_upright_size(width, height, orientation, Box(0, 0, width, height))
    resized = cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(upsample_to_frame(map, frame), undo_orientation(resized, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("input_box", [(80, 5, 371, 295), (0, 0, 300, 300), (151, 0, 451, 299)])
def test_the_input_gets_what_a_resize_to_it_gives(
    input_box: tuple[int, int, int, int], orientation: int
) -> None:
    map = random_map(7, 9)
    x0, y0, x1, y1 = input_box
    expected = np.zeros((300, 451), np.float32)
    expected[y0:y1, x0:x1] = cv2.resize(map, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    upsampled = upsample_to_frame(
        map, InputFrame.from_upright_size(451, 300, orientation, Box(*input_box))
    )
    np.testing.assert_allclose(
        upsampled, undo_orientation(expected, orientation), rtol=0, atol=1e-5
    )
    assert not upsampled[undo_orientation(expected, orientation) == 0].any()


@st.composite
def frames(draw: st.DrawFn) -> InputFrame:
    """A photo and an input box, within or beyond it."""
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    edges = []
    for length in (width, height):
        start = draw(st.floats(-length / 2, length * 0.7))
        edges.append((start, start + draw(st.floats(length * 0.5, length * 2))))
    (x0, x1), (y0, y1) = edges
    return InputFrame.from_upright_size(width, height, draw(st.integers(1, 8)), Box(x0, y0, x1, y1))


@given(frames(), st.integers(1, 14), st.integers(1, 14))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_upsampling_is_bilinear_for_any_input_box(
    frame: InputFrame, rows: int, columns: int
) -> None:
    map = random_map(rows, columns)
    upsampled = upsample_to_frame(map, frame)
    assert upsampled.shape == (frame.height, frame.width)
    assert upsampled.dtype == np.float32
    expected = reference(map, frame)
    np.testing.assert_allclose(upsampled, expected, rtol=0, atol=1e-5)
    # Exactly zero outside.
    assert not upsampled[reference(np.ones_like(map), frame) == 0].any()


@pytest.mark.parametrize(
    "frame",
    [
        InputFrame(8192, 410, 1, Box(3891, 0, 4301, 410)),
        InputFrame(410, 8192, 6, Box(0.25, -3890.5, 410, 4300.75)),
        InputFrame(3000, 2000, 8, Box(4.5, 505.25, 1996, 2495.5)),
        InputFrame(3, 2, 1, Box(-2.5, 0, 4.5, 2)),
    ],
    ids=["wide", "tall", "large", "tiny"],
)
def test_upsampling_is_bilinear_over_extreme_photos(frame: InputFrame) -> None:
    map = random_map(7, 7)
    expected = reference(map, frame)
    np.testing.assert_allclose(upsample_to_frame(map, frame), expected, rtol=0, atol=1e-5)


def test_heatmap_stays_between_0_and_1() -> None:
    heatmap = Heatmap([random_map(7, 7).round()], SQUARE)
    larger = heatmap.resample(InputFrame.full(SIDE, SIDE))
    assert (larger.min(), larger.max()) == (0, 1)
    assert larger.dtype == np.float32


def test_heatmap_of_one_layer_is_its_map() -> None:
    map = random_map(7, 9) * np.float32(0.5)
    heatmap = Heatmap([map], SQUARE)
    assert heatmap.peak == 1
    assert np.array_equal(heatmap.map, map)
    frame = InputFrame(451, 300, 6, Box(10, 20, 290, 400))
    assert np.array_equal(heatmap.resample(frame), upsample_to_frame(map, frame))


FRAMES = [
    InputFrame.full(SIDE, SIDE),
    InputFrame.full(50, 50),
    InputFrame.full(1000, 1000),
    InputFrame(451, 300, 1, Box(80, 5, 371, 295)),
    InputFrame(451, 300, 6, Box(5, 80, 295, 371)),
    InputFrame(451, 300, 3, Box(0, -75.5, 451, 375.5)),
]


@pytest.mark.parametrize("input_size", [SQUARE, InputSize(128, 256), InputSize(20, 9)])
@pytest.mark.parametrize("frame", FRAMES)
def test_heatmap_of_several_layers_is_their_mean_normalised_once(
    frame: InputFrame, input_size: InputSize
) -> None:
    maps = [random_map(7, 7), random_map(14, 14), random_map(3, 5)]
    heatmap = Heatmap(maps, input_size)
    full = InputFrame.full(input_size.width, input_size.height)
    at_input = np.mean([reference(map, full) for map in maps], axis=0)
    low, high = at_input.min(), at_input.max()
    assert heatmap.peak == pytest.approx(high, abs=1e-6)
    mean = np.mean([reference(map, frame) for map in maps], axis=0)
    # By the minimum and maximum at the input's size, so that sizes are comparable.
    expected = np.clip((mean - low) / (high - low), 0, 1)
    np.testing.assert_allclose(heatmap.resample(frame), expected, rtol=0, atol=1e-4)
    inside = np.mean([reference(np.ones_like(map), frame) for map in maps], axis=0) > 0
    assert not heatmap.resample(frame)[~inside].any()


def test_heatmap_of_several_layers_reaches_from_0_to_1_in_the_networks_input() -> None:
    values = Heatmap([random_map(7, 7), random_map(14, 14)], SQUARE).resample(
        InputFrame.full(SIDE, SIDE)
    )
    assert (values.min(), values.max()) == (0, 1)


def test_map_of_several_layers_is_at_the_finest_grid() -> None:
    maps = [random_map(4, 4), random_map(8, 6), random_map(2, 9)]
    heatmap = Heatmap(maps, SQUARE)
    assert heatmap.map.shape == (8, 6)
    assert np.array_equal(heatmap.map, heatmap.resample(InputFrame.full(6, 8)))


def test_layers_with_the_same_map_give_the_heatmap_of_one() -> None:
    map = map_of([0, 0.5], [0.25, 1])
    single, several = Heatmap([map], SQUARE), Heatmap([map, map, map], SQUARE)
    for frame in FRAMES:
        np.testing.assert_allclose(several.resample(frame), single.resample(frame), atol=1e-6)


def test_a_layer_without_evidence_halves_the_mean_but_not_the_heat() -> None:
    map, zeros = map_of([0, 0.5], [0.25, 1]), np.zeros((4, 4), np.float32)
    heatmap = Heatmap([map, zeros], SQUARE)
    assert heatmap.peak == pytest.approx(0.5)
    frame = InputFrame.full(30, 20)
    np.testing.assert_allclose(heatmap.resample(frame), upsample_to_frame(map, frame), atol=1e-6)


def test_rounding_errors_of_layers_that_cancel_give_no_heat() -> None:
    map = random_map(7, 7)
    heatmap = Heatmap([map, 1 - map], SQUARE)
    assert heatmap.is_constant
    assert not heatmap.map.any()
    assert not heatmap.resample(InputFrame.full(SIDE, SIDE)).any()
    assert not Heatmap([map, map], SQUARE).is_constant


def test_layers_without_evidence_give_no_heat() -> None:
    heatmap = Heatmap([np.zeros((7, 7), np.float32), np.zeros((14, 14), np.float32)], SQUARE)
    assert heatmap.peak == 0
    assert not heatmap.map.any()
    assert not heatmap.resample(InputFrame(60, 40, 1, Box(10, 0, 50, 40))).any()
