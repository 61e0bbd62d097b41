"""Encodes a photo, in any form that a caller may have it in, to the bytes to send."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Encoded bytes, the path of a file, pixels, or a PIL image. Pixels have the shape (h, w) for grey,
#: (h, w, 3) for RGB or (h, w, 4) for RGBA. White is 255 in uint8, 65535 in uint16, 1 in floats, and
#: True.
Photo = bytes | bytearray | memoryview | str | PathLike[str] | NDArray[Any] | Image.Image

# The PNG mode for each PIL mode; RGB for all modes that are not listed.
_PNG_MODES = {
    "1": "1", "L": "L", "LA": "LA", "La": "LA", "P": "P", "PA": "RGBA", "RGBA": "RGBA",
    "RGBa": "RGBA",
}  # fmt: skip
# Formats whose 16 bits Pillow reads into the 32 bits of mode I (PNG: before Pillow 11).
_FROM_16_BITS = ("PNG", "PPM")
_ACCEPTED_PIXELS = (
    "accepted: uint8, uint16, bool, or floats from 0 to 1, of shape (h, w), (h, w, 3) or (h, w, 4)"
)
_WHITE_OF_UINT16 = 65535
_ROUNDING = 1e-3
# Tags of a TIFF: how many bits a level has, and whether 0 is black or white.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MIN_IS_WHITE = 258, 262, 0
# The space of a colour profile stands in these bytes of it.
_PROFILE_SPACE = slice(16, 20)
_SPACES = {b"GRAY": ("1", "L", "LA", "I;16"), b"RGB ": ("P", "RGB", "RGBA")}


def encode_photo(photo: Photo) -> bytes:
    """Encode a photo as the bytes of an image file.

    Bytes and files are sent unchanged, which is the fastest. Pixels are encoded as PNG.

    Raises:
        OSError: the file cannot be read.
        TypeError: the photo is of none of the accepted types.
        ValueError: the pixels are of another shape or type, or floats outside of [0, 1]; or the PIL
            image has 32 bits a channel, which do not define which value is white.
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
        f"a photo is bytes, a path, a numpy array or a PIL image, not {type(photo).__name__}; of a "
        "tensor, an array of shape (h, w, 3)"
    )


def _from_pixels(pixels: NDArray[Any]) -> Image.Image:
    """Pixels as an image of 8 bits a channel."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    has_shape = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not has_shape or 0 in pixels.shape:
        raise ValueError(f"pixels of shape {pixels.shape} are no photo; {_ACCEPTED_PIXELS}")
    return Image.fromarray(np.ascontiguousarray(_to_8_bits(pixels)))


def _to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        # As the server does with files of 16 bits.
        return np.rint(pixels * np.float32(255 / _WHITE_OF_UINT16)).astype(np.uint8)
    if pixels.dtype.kind == "f":
        low, high = pixels.min(), pixels.max()
        # What arithmetic rounds to beyond the range is white or black. Not a number is neither.
        if low >= -_ROUNDING and high <= 1 + _ROUNDING:
            return np.rint(pixels.clip(0, 1) * 255.0).astype(np.uint8)
        raise ValueError(
            f"pixels are floats from {low:g} to {high:g}; {_ACCEPTED_PIXELS} (divide by what is "
            "white, or use uint8)"
        )
    raise ValueError(f"pixels of type {pixels.dtype} do not say what is white; {_ACCEPTED_PIXELS}")


def _encode_png(image: Image.Image) -> bytes:
    file = BytesIO()
    # EXIF is kept, so that an image opened from a rotated photo is explained as its file would be.
    # The fastest compression level: compressing a photo takes longer than sending it.
    png = _to_png_mode(image)
    profile = image.info.get("icc_profile") or b""
    # A profile of other colours, as of CMYK, does not describe those that the image became.
    fits = png.mode in _SPACES.get(bytes(profile[_PROFILE_SPACE]), ())
    png.save(
        file,
        "PNG",
        exif=image.getexif(),
        compress_level=1,
        icc_profile=profile if fits else None,
    )
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
    transparency = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparency, tuple) and max(transparency) > 0xFF:
        # Of a PNG of 16 bits, of whose pixels Pillow keeps the upper 8.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    mode = _PNG_MODES.get(image.mode, "RGB")
    if mode in ("1", "L") and image.has_transparency_data:
        # Not every decoder supports the transparent grey level of a PNG without an alpha channel.
        mode = "LA"
    return image if mode == image.mode else image.convert(mode)


def _to_16_bits(image: Image.Image) -> Image.Image:
    """Convert to mode I;16, and keep the transparent grey level if there is one."""
    # Image.convert would clip all values above 255.
    levels = np.asarray(image).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    # Pillow leaves the levels of a TIFF as the file has them.
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        levels = np.rint(levels * (_WHITE_OF_UINT16 / 4095)).astype(np.uint16)
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        levels = _WHITE_OF_UINT16 - levels
    converted = Image.fromarray(levels)
    converted.info.update(image.info)
    return converted
