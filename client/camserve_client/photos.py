"""A photo in any of the forms that a caller has it in -> the bytes to send."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Encoded bytes, the path of a file, RGB pixels of shape (h, w, 3), or a PIL image.
Photo = bytes | str | PathLike[str] | NDArray[np.uint8] | Image.Image

# The mode of a PNG that shows what a PIL image of another mode does; of all others, it is RGB.
_PNG_MODES = {
    "1": "1", "L": "L", "LA": "LA", "La": "LA", "P": "P", "PA": "RGBA", "RGBA": "RGBA",
    "RGBa": "RGBA",
}  # fmt: skip
# From these, Pillow reads 16 bits into mode I, which has 32: from a PNG before its release 11.
_FROM_16_BITS = ("PNG", "PPM")


def encoded(photo: Photo) -> bytes:
    """The photo as the bytes of an image file.

    A file is sent as it is, and is the cheapest to send; pixels become a PNG.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: it is none of a photo's forms, or pixels of another shape or type,
            or a PIL image of 32 bits, whose values may mean anything.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | PathLike):
        return Path(photo).read_bytes()
    if isinstance(photo, np.ndarray):
        return _png(_image(photo))
    if isinstance(photo, Image.Image):
        return _png(photo)
    raise TypeError(
        f"a photo is bytes, a path, a numpy array or a PIL image, not {type(photo).__name__}"
    )


def _image(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"pixels must be uint8 of shape (h, w, 3), RGB, not {pixels.dtype} of {pixels.shape}"
        )
    return Image.fromarray(pixels)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    # With its EXIF, so that an image opened from a turned photo is explained as its file would be.
    # The fastest compression: it takes longer to press a photo than to send it.
    _suited(image).save(file, "PNG", exif=image.getexif(), compress_level=1)
    return file.getvalue()


def _suited(image: Image.Image) -> Image.Image:
    """The same to the eye, in a mode that PNG has; of 16 bits where the image is. Or ValueError."""
    if image.mode.startswith("I;16"):
        return _of_16_bits(image)
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        low, high = pixels.min(), pixels.max()
        if image.mode == "I" and image.format in _FROM_16_BITS and 0 <= low <= high <= 0xFFFF:
            return _of_16_bits(image)
        raise ValueError(
            f"a PIL image of mode {image.mode} does not say which value is white; its values are "
            f"{low:g} to {high:g}; accepted: modes of 8 or 16 bits a channel; scale it first, by "
            "Image.fromarray((pixels * (255 / white)).clip(0, 255).astype(numpy.uint8))"
        )
    mode = _PNG_MODES.get(image.mode, "RGB")
    if mode in ("1", "L") and image.has_transparency_data:
        # The one transparent level of a grey PNG is not read everywhere.
        mode = "LA"
    return image if mode == image.mode else image.convert(mode)


def _of_16_bits(image: Image.Image) -> Image.Image:
    """In mode I;16, with the transparent level that it may have."""
    # Image.convert would clip all above 255 to white.
    same = Image.fromarray(np.asarray(image).astype(np.uint16))
    same.info.update(image.info)
    return same
