"""A TIFF's first directory, as far as a decoder must not be left alone with it.

TIFF 6.0, section 2; for BigTIFF, libtiff's specification of it.
"""

from __future__ import annotations

import struct
from typing import Final

_ORIENTATION: Final = 274
_SHORT: Final = 3
# The bytes of a value, by its type.
_WIDTHS: Final = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip


def clear_orientation(data: bytes | bytearray) -> bytearray:
    """A copy of a TIFF that decodes to its pixels as they are stored.

    OpenCV turns a TIFF whatever it is asked for, reads fewer kinds of the orientation tag than
    Pillow, and turns each tile in its place; so the copy is marked as upright.

    Raises:
        ValueError: the directory is broken, or its tags together claim more data than the file
            holds; libtiff would allocate it for each of them.
    """
    copy = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    at, offset, count, entry = (8, "Q", "Q", "HHQQ") if big else (4, "I", "H", "HHII")
    try:
        (place,) = struct.unpack_from(order + offset, data, at)
        (entries,) = struct.unpack_from(order + count, data, place)
        place += struct.calcsize(order + count)
        claimed = 0
        for at in range(place, place + entries * (20 if big else 12), 20 if big else 12):
            tag, kind, length, _ = struct.unpack_from(order + entry, data, at)
            claimed += length * _WIDTHS.get(kind, 1)
            if tag == _ORIENTATION:
                struct.pack_into(order + entry[:3] + "H", copy, at, tag, _SHORT, 1, 1)
    except struct.error as failure:
        raise ValueError(f"a broken directory: {failure}") from None
    if claimed > len(data):
        raise ValueError(f"tags that claim {claimed} bytes of {len(data)}")
    return copy
