"""The photos of golden requests: a few hundred bytes each, without near-ties.

Their colours differ from those of the classes, and each covers an area of its own. So no two scores
and no two values of a map are nearly equal; the order of such values would depend on the
processor's rounding.
"""

from __future__ import annotations

import io
from struct import pack
from typing import Any
from zlib import compress, crc32

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GREY = (128, 128, 128)
#: Colour, centre (x, y) and radius; the network sees x from 17 to 79.
_DISCS = [
    ((250, 23, 28), (30, 19), 16),
    ((5, 235, 64), (65, 19), 11),
    ((32, 46, 215), (31, 50), 10),
    ((206, 186, 20), (67, 43), 15),
    ((204, 32, 167), (53, 33), 8),
    ((6, 167, 209), (46, 57), 6),
]


def discs(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """The discs on grey, (height, width, 3) RGB."""
    canvas = np.full((64, 96, 3), _GREY, np.uint8)
    for colour, centre, radius in _DISCS:
        cv2.circle(canvas, centre, radius, colour, -1)
    resized = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def encoded(pixels: NDArray[np.uint8], format: str = "PNG", **more: Any) -> bytes:
    """A file of Pillow's ``format``; an RGB PNG gets a palette, which makes it smaller."""
    image = Image.fromarray(pixels)
    if format == "PNG" and image.mode == "RGB":
        image = image.quantize(256)
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


def _png(pixels: NDArray[Any]) -> bytes:
    """RGB without a palette, of 8 or 16 bits."""
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def with_orientation(orientation: int) -> bytes:
    """A JPEG with an EXIF orientation, 1 to 8."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(discs(), "JPEG", quality=80, exif=exif.tobytes())


def half_transparent() -> bytes:
    """A PNG whose left half is partly transparent; the server composites it on white."""
    alpha = np.full((64, 96, 1), 255, np.uint8)
    alpha[:, :48] = 120
    return encoded(np.concatenate([discs(), alpha], axis=2), optimize=True)


def animated() -> bytes:
    """A GIF of two frames; the server reads the first one."""
    first, second = Image.fromarray(discs()), Image.fromarray(discs()[:, ::-1].copy())
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    return buffer.getvalue()


def with_claimed_size(width: int, height: int) -> bytes:
    """A PNG with a size in its header and hardly any data."""
    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(data)) + chunk_type + data + pack(">I", crc32(chunk_type + data))
        for chunk_type, data in chunks
    )


PHOTO = encoded(discs())
#: A second photo, mirrored and smaller, for requests with several.
OTHER = encoded(discs(64, 48)[:, ::-1].copy())
#: A single colour. It has nothing of the opposite one, whose map is therefore zero everywhere.
RED = encoded(np.full((32, 32, 3), _DISCS[0][0], np.uint8))
#: The file formats that the server reads, by name.
FILES: dict[str, bytes] = {
    "JPEG": encoded(discs(), "JPEG", quality=85),
    "JPEG, progressive": encoded(discs(), "JPEG", quality=85, progressive=True),
    "PNG, palette": PHOTO,
    "PNG, RGB": _png(discs()),
    "PNG, 16 bits": _png(discs(48, 32).astype(np.uint16) * 257),
    "PNG, transparent": half_transparent(),
    "WebP": encoded(discs(), "WEBP", quality=85),
    "WebP, lossless": encoded(discs(), "WEBP", lossless=True),
    "GIF": encoded(discs(), "GIF"),
    "GIF, animated": animated(),
    "BMP": encoded(discs(30, 20), "BMP"),
    "TIFF": encoded(discs(), "TIFF", compression="tiff_lzw"),
    **{f"JPEG, orientation {n}": with_orientation(n) for n in (3, 6, 8, 5)},
}
