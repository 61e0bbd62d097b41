"""A GIF's first frame, cut out of the file. GIF89a specification, sections 17 to 25.

OpenCV takes an animation's transparency from its last frame, reads all frames to count them, and
fills what the first frame leaves free with the background colour, which no browser does.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

# An extension, an image or the end of the file; bytes that are none of these are passed over.
_BLOCK: Final = re.compile(rb"[!,;]")
# Far more than any encoder writes: of extensions before the first image, and of data blocks in one
# chain (of 255 bytes each, unless a file is to be slow to read).
_MOST_EXTENSIONS: Final = 10_000
_MOST_BLOCKS: Final = 200_000
_GRAPHIC_CONTROL: Final = 0xF9
_HAS_TABLE: Final = 0x80
_INTERLACED: Final = 0x40
_HEADER: Final = "<6sHHBBB"
_IMAGE: Final = "<HHHHB"
_TABLE_BYTES: Final = 3 * 256
# Where a file has no colours at all.
_GREYS: Final = bytes(level for level in range(256) for _ in "rgb")
_WHITE: Final = b"\xff\xff\xff"


@dataclass(frozen=True)
class FirstFrame:
    """An animation's first frame.

    Attributes:
        file: a GIF of this frame alone, as large as it is, without transparency: what was
            transparent is white.
        left, top: its upper left corner on the screen, in pixels.
    """

    file: bytes
    left: int
    top: int


def first_frame(data: bytes | bytearray) -> FirstFrame:
    """The first frame of a GIF, transparent as the control extensions before it say.

    Of several of these, one that names a transparent colour holds, as Pillow has it.

    Raises:
        ValueError: the file has no image, or ends before its first one does.
    """
    try:
        return _first_frame(data)
    except (IndexError, struct.error):
        raise ValueError("it ends before its first image does") from None


def _first_frame(data: bytes | bytearray) -> FirstFrame:
    colours, at = _table(data, data[10], struct.calcsize(_HEADER))
    transparent = None
    for _ in range(_MOST_EXTENSIONS):
        block = _BLOCK.search(data, at)
        if block is None or block[0] == b";":
            break
        at = block.end()
        if block[0] == b"!":
            if data[at] == _GRAPHIC_CONTROL and data[at + 1] >= 4 and data[at + 2] & 1:
                transparent = data[at + 5]
            at = _behind_blocks(data, at + 1)
            continue
        left, top, width, height, flags = struct.unpack_from(_IMAGE, data, at)
        local, at = _table(data, flags, at + struct.calcsize(_IMAGE))
        # All 256 colours: an index beyond those given is black.
        table = bytearray((local or colours or _GREYS).ljust(_TABLE_BYTES, b"\0"))
        if transparent is not None:
            table[3 * transparent : 3 * transparent + 3] = _WHITE
        # The size of the LZW codes stands before the blocks.
        pixels = data[at : _behind_blocks(data, at + 1)]
        screen = struct.pack(_HEADER, b"GIF89a", width, height, _HAS_TABLE | 7, 0, 0)
        image = b"," + struct.pack(_IMAGE, 0, 0, width, height, flags & _INTERLACED)
        return FirstFrame(b"".join((screen, table, image, pixels, b";")), left, top)
    raise ValueError("it has no image, or too much before it")


def _table(data: bytes | bytearray, flags: int, at: int) -> tuple[bytes, int]:
    """The table of colours that flags announce, empty if none, and where it ends."""
    end = at + (3 << (flags & 7) + 1 if flags & _HAS_TABLE else 0)
    return bytes(data[at:end]), end


def _behind_blocks(data: bytes | bytearray, at: int) -> int:
    """Where a chain of data blocks ends: each begins with its length, the last one is empty.

    The end of the file where the chain is too long.
    """
    for _ in range(_MOST_BLOCKS):
        length = data[at]
        at += 1 + length
        if length == 0:
            return at
    return len(data)
