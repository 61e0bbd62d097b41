"""GIF files written byte by byte, and the first frame that a browser shows of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

CANVAS = (6, 9)
RED, GREEN, BLUE, GOLD = (255, 0, 0), (0, 128, 0), (0, 0, 255), (200, 150, 0)
Table = tuple[tuple[int, int, int], ...]
GLOBAL: Table = (RED, GREEN, BLUE, GOLD)
LOCAL: Table = (GOLD, BLUE, RED, GREEN)
GREYS: Table = tuple((level, level, level) for level in range(256))
LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
# An image and the end of the file, as far as bytes go.
COMMENT = b"!\xfe\x06,;!\xf9\x04\x01\0"
PLAIN_TEXT = b"!\x01\x0c" + bytes(12) + b"\x02,;\0"
#: Indices of colours: a row of all four, each row beginning with another.
INDICES = np.add.outer(np.arange(CANVAS[1]), np.arange(CANVAS[0])) % 4


def control(transparent: int | None = None, disposal: int = 0) -> bytes:
    """A graphic control extension."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9" + struct.pack("<BBHBB", 4, flags, 0, transparent or 0, 0)


def table_flags(table: Table) -> int:
    return 0x80 | len(table).bit_length() - 2 if table else 0


def lzw_codes(indices: NDArray[Any], block: int = 255) -> bytes:
    """Indices of 8 bits as LZW codes of 9, each behind a clear code, in blocks."""
    codes = [code for index in indices.flat for code in (256, int(index))] + [257]
    bits = sum(code << 9 * n for n, code in enumerate(codes))
    data = bits.to_bytes((9 * len(codes) + 7) // 8, "little")
    sub_blocks = (data[start : start + block] for start in range(0, len(data), block))
    return b"\x08" + b"".join(bytes((len(sub),)) + sub for sub in sub_blocks) + b"\0"


def image(
    indices: NDArray[Any],
    corner: tuple[int, int] = (0, 0),
    table: Table = (),
    interlaced: bool = False,
    block: int = 255,
) -> bytes:
    height, width = indices.shape
    if interlaced:
        indices = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    flags = table_flags(table) | interlaced << 6
    head = b"," + struct.pack("<HHHHB", *corner, width, height, flags)
    return head + np.array(table, np.uint8).tobytes() + lzw_codes(indices, block)


def animation(
    *blocks: bytes,
    table: Table = GLOBAL,
    canvas: tuple[int, int] = CANVAS,
    background: int = 0,
    end: bytes = b";",
) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, table_flags(table), background, 0)
    return head + np.array(table, np.uint8).tobytes() + b"".join(blocks) + end


def expected_pixels(
    indices: NDArray[Any],
    table: Table,
    transparent: int | None = None,
    corner: tuple[int, int] = (0, 0),
    canvas: tuple[int, int] = CANVAS,
) -> NDArray[Any]:
    """What a browser shows: the frame's colours, white where it is transparent and beside it."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(table)] = table
    if transparent is not None:
        colours[transparent] = 255
    shown = np.full((canvas[1], canvas[0], 3), 255, np.uint8)
    left, top = corner
    shown[top : top + len(indices), left : left + len(indices[0])] = colours[indices]
    return shown
