"""Encodes a photo, in any form that a caller may have it in, to the bytes to send."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Encoded bytes, the path of a file, RGB pixels of shape (h, w, 3), or a PIL image.
Photo = bytes | bytearray | memoryview | str | PathLike[str] | NDArray[np.uint8] | Image.Image

# The PNG mode for each PIL mode; RGB for all modes that are not listed.
_PNG_MODES = {
    "1": "1", "L": "L", "LA": "LA", "La": "LA", "P": "P", "PA": "RGBA", "RGBA": "RGBA",
    "RGBa": "RGBA",
}  # fmt: skip
# Formats whose 16 bits Pillow reads into the 32 bits of mode I (PNG: before Pillow 11).
_FROM_16_BITS = ("PNG", "PPM")


def encode_photo(photo: Photo) -> bytes:
    """Encode a photo as the bytes of an image file.

    Bytes and files are sent unchanged, which is the fastest. Pixels are encoded as PNG.

    Raises:
        OSError: the file cannot be read.
        TypeError: the photo is of none of the accepted types.
        ValueError: the pixels are not uint8 of shape (h, w, 3), or the PIL image has 32 bits a
            channel, which do not define which value is white.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | PathLike):
        return Path(photo).read_bytes()
    if isinstance(photo, np.ndarray):
        return _encode_png(_from_pixels(photo))
    if isinstance(photo, Image.Image):
        return _encode_png(photo)
    raise TypeError(
        f"a photo is bytes, a path, a numpy array or a PIL image, not {type(photo).__name__}"
    )


def _from_pixels(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"pixels must be uint8 of shape (h, w, 3), RGB, not {pixels.dtype} of {pixels.shape}"
        )
    return Image.fromarray(pixels)


def _encode_png(image: Image.Image) -> bytes:
    file = BytesIO()
    # EXIF is kept, so that an image opened from a rotated photo is explained as its file would be.
    # The fastest compression level: compressing a photo takes longer than sending it.
    _to_png_mode(image).save(file, "PNG", exif=image.getexif(), compress_level=1)
    return file.getvalue()


def _to_png_mode(image: Image.Image) -> Image.Image:
    """Convert to a mode that PNG has and that looks the same; 16 bits stay 16 bits.

    Raises:
        ValueError: the mode does not define which value is white.
    """
    if image.mode.startswith("I;16"):
        return _to_16_bits(image)
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        low, high = pixels.min(), pixels.max()
        if image.mode == "I" and image.format in _FROM_16_BITS and 0 <= low <= high <= 0xFFFF:
            return _to_16_bits(image)
        raise ValueError(
            f"a PIL image of mode {image.mode} does not say which value is white; its values are "
            f"{low:g} to {high:g}; accepted: modes of 8 or 16 bits a channel; scale it first, by "
            "Image.fromarray((pixels * (255 / white)).clip(0, 255).astype(numpy.uint8))"
        )
    mode = _PNG_MODES.get(image.mode, "RGB")
    if mode in ("1", "L") and image.has_transparency_data:
        # Not every decoder supports the transparent grey level of a PNG without an alpha channel.
        mode = "LA"
    return image if mode == image.mode else image.convert(mode)


def _to_16_bits(image: Image.Image) -> Image.Image:
    """Convert to mode I;16, and keep the transparent grey level if there is one."""
    # Image.convert would clip all values above 255.
    converted = Image.fromarray(np.asarray(image).astype(np.uint16))
    converted.info.update(image.info)
    return converted
