"""What a reply's pictures are drawn on, at each size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from camserve.images import Background, Box, DecodedPhoto, InputFrame, Pixels
from camserve.images.background import output_background, output_frame
from camserve.images.geometry import apply_orientation
from camserve.images.preprocess import resize_and_crop
from camserve.options import Size
from camserve.settings import Preprocess
from tests.support.image_files import max_difference, noise


def random_photo(width: int, height: int) -> Pixels:
    return noise(height, width, 3, seed=width)


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (451, 300, "original", (451, 300)),
        (451, 300, 451, (451, 300)),
        (451, 300, 100, (100, 67)),
        (300, 451, 100, (67, 100)),
        (451, 300, 902, (902, 600)),
        (451, 300, 1, (1, 1)),
        (400, 20, 10, (10, 1)),
        (20, 400, 8192, (410, 8192)),
        (1, 1, 8192, (8192, 8192)),
        (451, 300, "model", (224, 224)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_frame_has_the_requested_size(
    width: int, height: int, size: Size, expected: tuple[int, int], orientation: int
) -> None:
    frame = InputFrame(width, height, orientation, Box(1, 2, 15, 16))
    scaled = output_frame(frame, Preprocess(), size)
    assert (scaled.width, scaled.height) == expected
    assert scaled == (InputFrame.full(224, 224) if size == "model" else frame.scaled(*expected))


def background_of(stored: Pixels, orientation: int, size: Size) -> tuple[Pixels, Background]:
    preprocess = Preprocess()
    photo = DecodedPhoto(apply_orientation(stored, orientation), orientation)
    crop, frame = resize_and_crop(photo, preprocess)
    return crop, output_background(photo, crop, output_frame(frame, preprocess, size), size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_original_has_the_file_pixels(orientation: int) -> None:
    stored = random_photo(45, 30)
    _, background = background_of(stored, orientation, "original")
    assert np.array_equal(background.pixels, stored)
    assert (background.frame.width, background.frame.height) == (45, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [20, 45, 90, 101])
def test_other_sizes_have_the_file_pixels_resized(orientation: int, size: int) -> None:
    stored = random_photo(45, 30)
    _, background = background_of(stored, orientation, size)
    sides = (size, round(30 * size / 45))
    interpolation = cv2.INTER_AREA if size < 45 else cv2.INTER_LINEAR
    resized = cv2.resize(stored, sides, interpolation=interpolation)
    assert max_difference(background.pixels, resized) <= 1
    assert (background.frame.width, background.frame.height) == sides


@pytest.mark.parametrize("orientation", range(1, 9))
def test_at_the_models_size_the_input_is_shown(orientation: int) -> None:
    crop, background = background_of(random_photo(45, 30), orientation, "model")
    assert np.array_equal(background.pixels, crop)
    assert background.frame == InputFrame.full(224, 224)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20), (20, 1), (400, 20)])
@pytest.mark.parametrize("size", [1, 2, 399, 1000])
def test_extreme_photos_have_a_background_of_any_size(width: int, height: int, size: Size) -> None:
    for orientation in (1, 8):
        _, background = background_of(random_photo(width, height), orientation, size)
        assert background.pixels.shape == (background.frame.height, background.frame.width, 3)
        assert max(background.pixels.shape[:2]) == size
