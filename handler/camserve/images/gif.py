"""A GIF's first frame, cut out of the file. GIF89a specification, sections 17 to 25.

OpenCV takes an animation's transparency from its last frame, decodes all frames to count them, and
fills what the first frame leaves free with the background colour, which no browser does.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

# An extension, an image or the trailer; other bytes are skipped.
_BLOCK: Final = re.compile(rb"[!,;]")
# Far more than any encoder writes: extensions before the first image, and sub-blocks in a chain
# (these have 255 bytes each, unless the file is made to be slow to read).
_MAX_EXTENSIONS: Final = 10_000
_MAX_SUB_BLOCKS: Final = 200_000
_GRAPHIC_CONTROL: Final = 0xF9
_HAS_COLOR_TABLE: Final = 0x80
_INTERLACED: Final = 0x40
# Signature, canvas width and height, flags, background colour, aspect ratio.
_SCREEN_DESCRIPTOR: Final = "<6sHHBBB"
# Left, top, width, height, flags.
_IMAGE_DESCRIPTOR: Final = "<HHHHB"
_MAX_COLOR_TABLE_BYTES: Final = 3 * 256
# For a file without any colour table.
_GREY_RAMP: Final = bytes(level for level in range(256) for _ in "rgb")
_WHITE: Final = b"\xff\xff\xff"


@dataclass(frozen=True)
class FirstFrame:
    """An animation's first frame.

    Attributes:
        file: a GIF of this frame alone, of its size, without transparency: what was transparent is
            white.
        left, top: the frame's upper left corner on the animation's canvas, in pixels.
        has_end: something follows the frame in the file: the end, or another frame.
    """

    file: bytes
    left: int
    top: int
    has_end: bool


def first_frame(data: bytes | bytearray) -> FirstFrame:
    """The first frame of a GIF.

    It is transparent where the graphic control extension before it says so. If there are several,
    the last one applies, as in browsers. An animation that ends behind its first frame's pixels
    needs no further byte.

    Raises:
        ValueError: the file has no image, or ends within the first one.
    """
    try:
        return _first_frame(data)
    except (IndexError, struct.error):
        raise ValueError("the file ends before its first image does") from None


def _first_frame(data: bytes | bytearray) -> FirstFrame:
    global_colors, offset = _color_table(data, data[10], struct.calcsize(_SCREEN_DESCRIPTOR))
    transparent = None
    for _ in range(_MAX_EXTENSIONS):
        block = _BLOCK.search(data, offset)
        if block is None or block[0] == b";":
            break
        offset = block.end()
        if block[0] == b"!":
            if data[offset] == _GRAPHIC_CONTROL and data[offset + 1] >= 4:
                transparent = data[offset + 5] if data[offset + 2] & 1 else None
            offset = _end_of_sub_blocks(data, offset + 1)
            continue
        left, top, width, height, flags = struct.unpack_from(_IMAGE_DESCRIPTOR, data, offset)
        local_colors, offset = _color_table(
            data, flags, offset + struct.calcsize(_IMAGE_DESCRIPTOR)
        )
        # Always 256 colours: an index beyond the file's table is black.
        colors = bytearray(
            (local_colors or global_colors or _GREY_RAMP).ljust(_MAX_COLOR_TABLE_BYTES, b"\0")
        )
        if transparent is not None:
            colors[3 * transparent : 3 * transparent + 3] = _WHITE
        # The LZW minimum code size, one byte, then the sub-blocks.
        end = _end_of_sub_blocks(data, offset + 1)
        pixels = data[offset:end]
        screen = struct.pack(
            _SCREEN_DESCRIPTOR, b"GIF89a", width, height, _HAS_COLOR_TABLE | 7, 0, 0
        )
        image = b"," + struct.pack(_IMAGE_DESCRIPTOR, 0, 0, width, height, flags & _INTERLACED)
        # The zero ends a chain that the file's end cut off.
        return FirstFrame(
            b"".join((screen, colors, image, pixels, b"\0;")), left, top, end < len(data)
        )
    raise ValueError("the file has no image, or too many extensions before it")


def _color_table(data: bytes | bytearray, flags: int, offset: int) -> tuple[bytes, int]:
    """The colour table that the flags announce, empty if none, and the offset of its end."""
    end = offset + (3 << (flags & 7) + 1 if flags & _HAS_COLOR_TABLE else 0)
    return bytes(data[offset:end]), end


def _end_of_sub_blocks(data: bytes | bytearray, offset: int) -> int:
    """The offset behind a chain of data sub-blocks; the file's end if the chain is too long.

    Each sub-block begins with its length; the last one is empty, or missing at the file's end.
    """
    for _ in range(_MAX_SUB_BLOCKS):
        if offset == len(data):
            break
        length = data[offset]
        offset += 1 + length
        if length == 0:
            return offset
    return len(data)
