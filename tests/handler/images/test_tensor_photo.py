"""Photos that are tensors: their pixels, and the network's own input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camserve.errors import RequestError
from camserve.images.tensor_photo import (
    decode_pixel_tensor,
    normalized_input,
    pixel_tensor_size,
    pixels_of_input,
)
from camserve.settings import Limits, Preprocess

#: (7, 9, 3), of all levels.
NOISE = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
LIMITS = Limits(side=100, aspect_ratio=5.0)
SIZE = Preprocess(resize=8, crop=(6, 8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_pixels_are_the_photo(channels: int, datatype: str) -> None:
    pixels = NOISE[..., :channels]
    numbers = pixels if datatype == "UINT8" else pixels.astype("<f4")
    photo = decode_pixel_tensor(numbers.tobytes(), datatype, pixels.shape)
    assert (photo.upright == np.broadcast_to(pixels, (7, 9, 3))).all()
    assert (photo.orientation, photo.full_size, photo.warnings) == (1, (9, 7), ())


def test_numbers_with_a_fraction_are_rounded() -> None:
    numbers = np.array([[[0.4, 0.6, 254.6]]], "<f4")
    assert decode_pixel_tensor(numbers.tobytes(), "FP32", (1, 1, 3)).upright.tolist() == [
        [[0, 1, 255]]
    ]


def test_fractions_of_1_are_rejected() -> None:
    numbers = (NOISE / 255).astype("<f4")
    with pytest.raises(RequestError, match="accepted: 0 to 255"):
        decode_pixel_tensor(numbers.tobytes(), "FP32", NOISE.shape)
    black = np.array([[[0, 1, 1]]], "<f4")
    assert decode_pixel_tensor(black.tobytes(), "FP32", (1, 1, 3)).upright.tolist() == [[[0, 1, 1]]]


@pytest.mark.parametrize("wrong", [-0.5, 255.5, np.nan, np.inf])
def test_numbers_that_are_no_pixels_are_rejected(wrong: float) -> None:
    numbers = np.array([[[0, wrong, 255]]], "<f4")
    with pytest.raises(RequestError, match=r"accepted: 0 to 255, or .*'normalized'") as refused:
        decode_pixel_tensor(numbers.tobytes(), "FP32", (1, 1, 3))
    assert refused.value.code == "invalid_image"


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ((3, 9, 9), "invalid_image"),
        ((9, 9, 4), "invalid_image"),
        ((9, 9, 2), "invalid_image"),
        ((9, 101, 3), "image_too_large"),
        ((50, 50, 3), "image_too_large"),
        ((9, 50, 3), "image_too_large"),
    ],
)
def test_a_tensor_that_is_no_photo_or_too_large_is_rejected(
    shape: tuple[int, int, int], code: str
) -> None:
    with pytest.raises(RequestError) as refused:
        pixel_tensor_size(shape, LIMITS, max_pixels=2000)
    assert refused.value.code == code


def test_the_size_of_a_tensor() -> None:
    assert pixel_tensor_size((30, 20, 3), LIMITS, max_pixels=600) == (20, 30)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_networks_own_input_is_kept_as_it_is(channels: int, channels_last: bool) -> None:
    section: dict[str, Any] = {"channels": channels}
    preprocess = SIZE.model_copy(update=section)
    numbers = np.linspace(-3, 3, 48 * channels, dtype=np.float32).reshape(channels, 6, 8)
    sent = numbers.transpose(1, 2, 0) if channels_last else numbers
    found = normalized_input(sent.tobytes(), sent.shape, preprocess)
    assert (found == numbers).all()


@pytest.mark.parametrize(
    "shape", [(3, 8, 6), (8, 6, 3), (3, 6, 9), (1, 6, 8), (6, 8, 1), (6, 3, 8)]
)
def test_an_input_of_another_shape_is_rejected(shape: tuple[int, int, int]) -> None:
    with pytest.raises(RequestError, match=r"accepted: \(3, 6, 8\), or \(6, 8, 3\)"):
        normalized_input(np.zeros(shape, "<f4").tobytes(), shape, SIZE)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_input_that_is_not_finite_is_rejected(wrong: float) -> None:
    numbers = np.zeros((3, 6, 8), "<f4")
    numbers[1, 2, 3] = wrong
    with pytest.raises(RequestError, match="not finite"):
        normalized_input(numbers.tobytes(), numbers.shape, SIZE)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_an_input_is_shown_as_the_pixels_that_it_was_made_of(
    value_range: tuple[float, float],
) -> None:
    low, high = value_range
    section: dict[str, Any] = {
        "range": value_range,
        "mean": [low + part * (high - low) for part in (0.4, 0.5, 0.6)],
        "std": [part * (high - low) for part in (0.2, 0.25, 0.3)],
    }
    preprocess = Preprocess(resize=8, crop=(6, 8), **section)
    pixels = NOISE[:6, :8]
    scaled = pixels.transpose(2, 0, 1) / 255 * (high - low) + low
    mean, std = (np.array(section[name])[:, None, None] for name in ("mean", "std"))
    normalized = ((scaled - mean) / std).astype(np.float32)
    assert (pixels_of_input(normalized, preprocess) == pixels).all()


def test_an_input_beyond_black_and_white_is_shown_as_these() -> None:
    normalized = np.stack([np.full((6, 8), value, np.float32) for value in (-100, 0, 100)])
    shown = pixels_of_input(normalized, SIZE)
    assert shown[0, 0].tolist() == [0, 116, 255]
