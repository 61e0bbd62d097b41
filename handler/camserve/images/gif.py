"""A GIF's first frame, cut out of the file. GIF89a specification, sections 17 to 25.

OpenCV takes an animation's transparency from its last frame, decodes all frames to count them, and
fills what the first frame leaves free with the background colour, which no browser does.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

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


class FirstFrame(NamedTuple):
    """Where an animation's first frame is in its file, and on its canvas.

    Attributes:
        width, height: of the canvas, in pixels. It is as large as the first frame needs.
        left, top: the frame's upper left corner on the canvas, in pixels.
        size: the frame's width and height.
        interlaced: its rows are in the order of an interlaced frame.
        colors: 256 colours of three bytes; what is transparent is white.
        pixels: the offsets of its compressed pixels in the file.
        has_end: something follows the frame in the file: the end, or another frame.
    """

    width: int
    height: int
    left: int
    top: int
    size: tuple[int, int]
    interlaced: bool
    colors: bytes
    pixels: slice
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


def as_file(data: bytes | bytearray, frame: FirstFrame) -> bytes:
    """A GIF of the first frame alone, of its size, without transparency."""
    flags = _INTERLACED if frame.interlaced else 0
    return b"".join(
        (
            struct.pack(_SCREEN_DESCRIPTOR, b"GIF89a", *frame.size, _HAS_COLOR_TABLE | 7, 0, 0),
            frame.colors,
            b"," + struct.pack(_IMAGE_DESCRIPTOR, 0, 0, *frame.size, flags),
            data[frame.pixels],
            # The zero ends a chain that the file's end cut off.
            b"\0;",
        )
    )


def _first_frame(data: bytes | bytearray) -> FirstFrame:
    canvas_width, canvas_height = struct.unpack_from("<HH", data, 6)
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
        return FirstFrame(
            max(canvas_width, left + width),
            max(canvas_height, top + height),
            left,
            top,
            (width, height),
            bool(flags & _INTERLACED),
            bytes(colors),
            slice(offset, end),
            end < len(data),
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
