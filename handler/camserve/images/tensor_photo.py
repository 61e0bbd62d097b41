"""A photo that is no file: a tensor of pixels, or of the network's own input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from camserve.errors import RequestError
from camserve.images.decode import DecodedPhoto
from camserve.images.geometry import Pixels
from camserve.images.header import check_size
from camserve.settings import Limits, Preprocess

#: KServe's datatypes of photos, as NumPy names them; binary tensors are in little endian.
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
_CHANNELS: Final = (1, 3)


def pixel_tensor_size(shape: Sequence[int], limits: Limits, max_pixels: int) -> tuple[int, int]:
    """Width and height of a photo that is a tensor of pixels, checked against the limits.

    Args:
        shape: (height, width, channels) of the tensor.
        limits: of the operator.
        max_pixels: how many pixels the photo may have.

    Raises:
        RequestError: ``invalid_image``: it has other channels than RGB or grey;
            ``image_too_large``.
    """
    height, width, channels = shape
    if channels not in _CHANNELS:
        raise RequestError(
            "invalid_image",
            f"the tensor of pixels has the shape {_shown(shape)}; accepted: (height, width, 3) in "
            "RGB, or (height, width, 1) in grey",
        )
    check_size(width, height, limits, max_pixels)
    return width, height


def decode_pixel_tensor(
    data: bytes | memoryview, datatype: str, shape: Sequence[int]
) -> DecodedPhoto:
    """The photo of a tensor of pixels. Numbers with a fraction are rounded to the nearest pixel.

    Args:
        data: the numbers, row by row.
        datatype: ``UINT8`` or ``FP32``.
        shape: (height, width, channels), 3 for RGB or 1 for grey.

    Raises:
        RequestError: ``invalid_image``: a number is not from 0 to 255, or they are fractions of 1.
    """
    numbers = np.frombuffer(data, _DTYPES[datatype]).reshape(shape)
    if datatype == "FP32":
        # A NaN is not within, either.
        if not (numbers.min() >= 0 and numbers.max() <= 255):
            raise RequestError(
                "invalid_image",
                f"the pixels are numbers from {numbers.min():.4g} to {numbers.max():.4g}; "
                "accepted: 0 to 255, or the network's own input with input_kind 'normalized'",
            )
        rounded = np.rint(numbers)
        if numbers.max() <= 1 and (rounded != numbers).any():
            raise RequestError(
                "invalid_image",
                f"the pixels are fractions from {numbers.min():.4g} to {numbers.max():.4g}, all "
                "but black; accepted: 0 to 255",
            )
        numbers = rounded.astype(np.uint8)
    return DecodedPhoto(_in_color(numbers), orientation=1)


def normalized_input(
    data: bytes | memoryview, shape: Sequence[int], preprocess: Preprocess
) -> NDArray[np.float32]:
    """The network's own input that a caller has prepared: (channels, H, W).

    Args:
        data: the numbers in FP32, row by row.
        shape: (channels, H, W) or (H, W, channels) of the network's input.
        preprocess: how the network's input is made.

    Raises:
        RequestError: ``invalid_image``: it has another shape, or numbers that are not finite.
    """
    height, width = preprocess.input_size
    expected = (preprocess.channels, height, width)
    numbers: NDArray[Any] = np.frombuffer(data, _DTYPES["FP32"]).reshape(shape)
    if numbers.shape == (height, width, preprocess.channels) != expected:
        numbers = numbers.transpose(2, 0, 1)
    if numbers.shape != expected:
        raise RequestError(
            "invalid_image",
            f"the normalized input has the shape {_shown(shape)}; accepted: {_shown(expected)}, "
            f"or {_shown((height, width, preprocess.channels))}",
        )
    if not np.isfinite(numbers).all():
        raise RequestError(
            "invalid_image", "the normalized input holds numbers that are not finite"
        )
    # A copy: PyTorch takes no array that cannot be written to, as the bytes of a request.
    return np.array(numbers, np.float32, order="C")


def pixels_of_input(normalized: NDArray[np.float32], preprocess: Preprocess) -> Pixels:
    """The network's input as pixels that can be shown: (H, W, 3) RGB, 0 to 255.

    Args:
        normalized: (channels, H, W), as :func:`normalized_input` returns it.
        preprocess: how the network's input is made.
    """
    low, high = preprocess.range
    mean, std = (
        np.asarray(values, np.float32)[:, None, None]
        for values in (preprocess.mean, preprocess.std)
    )
    scaled = (normalized * std + mean - low) * (255 / (high - low))
    pixels = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    return _in_color(pixels)


def _in_color(pixels: Pixels) -> Pixels:
    """(h, w, 1) or (h, w, 3) -> (h, w, 3)."""
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _shown(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
