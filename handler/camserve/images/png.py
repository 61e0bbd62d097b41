"""PNG files, written in a quarter of the time that libpng takes, and read without their profiles.

Compression is all the work there is in one, and ISA-L's is several times as fast as zlib's at the
same size. What stands around it is little: a signature, three chunks, and a filter.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from isal import isal_zlib

from camserve.images.geometry import Pixels

_GREY, _RGB = 0, 2
# Each byte as its difference from the pixel to its left: in a heatmap, which changes slowly, nearly
# nothing. From the row above, it takes a quarter more time and a sixth more bytes.
_SUB: Final = 1


def encode(picture: Pixels) -> bytes:
    """(h, w, 3) RGB or (h, w) grey -> the file, without loss.

    PNG Specification, third edition, W3C 2025.
    """
    height, width = picture.shape[:2]
    colour, pixel = (_GREY, 1) if picture.ndim == 2 else (_RGB, 3)
    rows = picture.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _SUB
    filtered[:, 1 : pixel + 1] = rows[:, :pixel]
    np.subtract(rows[:, pixel:], rows[:, :-pixel], out=filtered[:, pixel + 1 :])
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = isal_zlib.compress(filtered, level=1)
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", pixels), *_END))


def without_profiles(data: bytes | bytearray) -> bytes | bytearray:
    """A PNG without its colour profiles (iCCP), on which no decoded pixel depends.

    Of a damaged one, libpng prints a warning to stderr that quotes its name. With line breaks in
    it, a caller would write lines there, and TorchServe reads stderr for metrics as well as for the
    log.
    """
    if _PROFILE not in data:
        return data
    kept, at = [data[: len(_SIGNATURE)]], len(_SIGNATURE)
    while at < len(data):
        # Length, kind, content and a checksum.
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] != _PROFILE:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _chunk(kind: bytes, content: bytes) -> tuple[bytes, ...]:
    check = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)), kind, content, struct.pack(">I", check)


_PROFILE: Final = b"iCCP"
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = _chunk(b"IEND", b"")
