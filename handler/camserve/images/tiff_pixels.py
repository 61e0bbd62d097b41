"""A TIFF's first picture -> its pixels.

Pillow decodes, because it says where the data are damaged. OpenCV decodes what Pillow does not
read, and what is left of a damaged file.
"""

from __future__ import annotations

import io
from itertools import product
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from camserve.images import tiff
from camserve.images.damage import DAMAGED, Decoded
from camserve.images.geometry import Pixels
from camserve.images.tiff import ASSOCIATED_ALPHA, TiffDirectory
from camserve.images.transparency import composite_on_white, grey_on_white

_OPENCV_FLAGS: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
# Pillow reads these in little-endian files alone.
_PACKED_BITS: Final = 12
# By default Pillow reads uncompressed data itself, and takes planes of 16 bits for ones of 8.
TiffImagePlugin.READ_LIBTIFF = True
# Pillow has no mode for 16 bits of grey with alpha. It reads their four bytes as they are, into the
# mode that also has four.
_OPEN_INFO: Final = TiffImagePlugin.OPEN_INFO
_OPEN_INFO.update(
    {
        (byte_order, photometric, (1,), 1, (16, 16), (alpha,)): ("RGBA", "RGBA")
        for byte_order, photometric, alpha in product((b"II", b"MM"), (0, 1), (1, 2))
    }
)
for _order in (b"II", b"MM"):
    # Pillow has this for little-endian files, and those below for files in which 0 is black. Their
    # levels are turned after decoding.
    _OPEN_INFO[(_order, 0, (1,), 1, (16,), ())] = ("I;16", "I;16")
    _OPEN_INFO[(_order, 0, (1,), 1, (8, 8), (0,))] = ("L", "LX")
    _OPEN_INFO[(_order, 0, (1,), 1, (8, 8), (1,))] = ("La", "La")
    _OPEN_INFO[(_order, 0, (1,), 1, (8, 8), (2,))] = ("LA", "LA")
# libtiff itself turns bytes whose bits are in the other order.
for _key, _modes in list(_OPEN_INFO.items()):
    _OPEN_INFO.setdefault((*_key[:3], 2, *_key[4:]), _modes)


def decode(data: bytes | bytearray, directory: TiffDirectory) -> Decoded:
    """Decode a TIFF's first picture.

    Args:
        data: the file.
        directory: the result of :func:`~camserve.images.tiff.read_directory` for it.

    Raises:
        ValueError, OSError, MemoryError, cv2.error: the file does not decode.
    """
    upright = tiff.clear_orientation(data)
    if directory.bits == _PACKED_BITS:
        return Decoded(_decode_with_opencv(upright, directory))
    try:
        image = Image.open(io.BytesIO(upright), formats=("TIFF",))
    except UnidentifiedImageError:
        return Decoded(_decode_with_opencv(upright, directory))
    try:
        image.load()
    except (OSError, SyntaxError):
        return Decoded(_decode_with_opencv(upright, directory), (DAMAGED,))
    return Decoded(_to_rgb(image, directory))


def _to_rgb(image: Image.Image, directory: TiffDirectory) -> Pixels:
    """What Pillow decoded, as (h, w, 3) RGB over white."""
    premultiplied = directory.alpha == ASSOCIATED_ALPHA
    if directory.is_grey and directory.samples > 1 and directory.bits > 8:
        samples = np.asarray(image).view(np.uint16)
        levels, alpha = samples[..., 0], samples[..., 1]
        if directory.min_is_white:
            levels = (alpha if premultiplied else np.uint16(65535)) - levels
        return grey_on_white(levels, alpha, premultiplied=premultiplied)
    match image.mode:
        case "I;16" | "I;16B":
            # The upper 8 bits, as of RGB, and as OpenCV takes them of PNGs.
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return _repeated(255 - grey if directory.min_is_white else grey)
        case "LA" | "La":
            levels, alpha = np.moveaxis(np.asarray(image), -1, 0)
            if directory.min_is_white:
                levels = (alpha if premultiplied else np.uint8(255)) - levels
            return grey_on_white(levels, alpha, premultiplied=premultiplied)
        case "L" if directory.min_is_white and directory.samples > 1:
            return _repeated(255 - np.asarray(image))
        case "RGBA" | "PA":
            return composite_on_white(np.asarray(image.convert("RGBA")))
        case _:
            return np.asarray(image.convert("RGB"))


def _decode_with_opencv(upright: bytes | bytearray, directory: TiffDirectory) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(upright, np.uint8), _OPENCV_FLAGS)
    if decoded is None:
        raise ValueError("OpenCV cannot decode the file")
    if decoded.dtype == np.uint16:
        # Samples of 12 bits are shifted to 16. Only those of 8 bits are turned where 0 is white.
        decoded = cv2.convertScaleAbs(decoded, alpha=1 / 257)
        decoded = 255 - decoded if directory.min_is_white else decoded
    return cast(Pixels, decoded) if decoded.ndim == 3 else _repeated(decoded)


def _repeated(levels: NDArray[Any]) -> Pixels:
    """(h, w) grey -> (h, w, 3) RGB."""
    return cast(Pixels, cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB))
