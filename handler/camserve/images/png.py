"""PNG files: written in a quarter of the time that libpng takes, and read without ICC profiles.

Nearly all the time goes into compression, and ISA-L's is several times as fast as zlib's at the
same size. The rest of a PNG is a signature, three chunks and a filter.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from isal import isal_zlib

from camserve.images.geometry import Pixels

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ICC_PROFILE: Final = b"iCCP"
_GREY, _RGB = 0, 2
# Each byte as its difference from the pixel to its left: nearly zero in a heatmap, which is smooth.
# The difference from the row above takes a quarter more time and a sixth more bytes.
_SUB_FILTER: Final = 1


def encode(picture: Pixels) -> bytes:
    """Encode (h, w, 3) RGB or (h, w) grey as a PNG.

    PNG Specification, third edition, W3C 2025.
    """
    height, width = picture.shape[:2]
    color_type, channels = (_GREY, 1) if picture.ndim == 2 else (_RGB, 3)
    rows = picture.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _SUB_FILTER
    filtered[:, 1 : channels + 1] = rows[:, :channels]
    np.subtract(rows[:, channels:], rows[:, :-channels], out=filtered[:, channels + 1 :])
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    pixels = isal_zlib.compress(filtered, level=1)
    return b"".join(
        (_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", pixels), *_chunk(b"IEND", b""))
    )


def strip_icc_profiles(data: bytes | bytearray) -> bytes | bytearray:
    """A PNG without its ICC profiles (iCCP chunks), which no decoded pixel depends on.

    For an invalid profile, libpng prints a warning with the profile's name to stderr. A caller
    could put line breaks into the name and so write lines of their own there, where TorchServe
    reads its log and metrics from.
    """
    if _ICC_PROFILE not in data:
        return data
    parts, offset = [data[: len(_SIGNATURE)]], len(_SIGNATURE)
    while offset < len(data):
        # Length, type, content and checksum.
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if data[offset + 4 : offset + 8] != _ICC_PROFILE:
            parts.append(data[offset:end])
        offset = end
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> tuple[bytes, ...]:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)
