"""A TIFF's first directory, checked and edited before a decoder reads it.

TIFF 6.0, section 2; for BigTIFF, libtiff's specification of it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_ORIENTATION: Final = 274
_UPRIGHT: Final = 1
_SHORT: Final = 3
# The bytes of a value of each type.
_TYPE_BYTES: Final = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip


class _Layout(NamedTuple):
    """Where the directory's offset is, and the struct formats of the fields."""

    offset_position: int
    offset: str
    entry_count: str
    entry: str


_CLASSIC: Final = _Layout(4, "I", "H", "HHII")
_BIG: Final = _Layout(8, "Q", "Q", "HHQQ")


def clear_orientation(data: bytes | bytearray) -> bytearray:
    """A copy of a TIFF whose orientation tag says upright, so that it decodes to its file pixels.

    OpenCV cannot be told to ignore a TIFF's orientation. It supports fewer types of that tag than
    Pillow does, and rotates each tile in its place.

    Raises:
        ValueError: the directory is invalid, or its tags together claim more data than the file
            has: libtiff would allocate that for each of them.
    """
    copy = bytearray(data)
    byte_order = "<" if data[:2] == b"II" else ">"
    layout = _BIG if data[2:4] in (b"+\0", b"\0+") else _CLASSIC
    entry_format = byte_order + layout.entry
    entry_bytes = struct.calcsize(entry_format)
    claimed_bytes = 0
    try:
        (directory,) = struct.unpack_from(byte_order + layout.offset, data, layout.offset_position)
        (entry_count,) = struct.unpack_from(byte_order + layout.entry_count, data, directory)
        first = directory + struct.calcsize(byte_order + layout.entry_count)
        for entry in range(first, first + entry_count * entry_bytes, entry_bytes):
            tag, kind, value_count, _ = struct.unpack_from(entry_format, data, entry)
            claimed_bytes += value_count * _TYPE_BYTES.get(kind, 1)
            if tag == _ORIENTATION:
                # The value stands in the first two bytes of the last field.
                upright = (tag, _SHORT, 1, _UPRIGHT)
                struct.pack_into(entry_format[:-1] + "H", copy, entry, *upright)
    except struct.error as failure:
        raise ValueError(f"invalid directory: {failure}") from None
    if claimed_bytes > len(data):
        raise ValueError(f"the tags claim {claimed_bytes} bytes of {len(data)}")
    return copy
