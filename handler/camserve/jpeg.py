"""A JPEG's scans, as far as a decoder must not be left alone with them. ITU-T T.81, annex B."""

from __future__ import annotations

from typing import Final

_SCAN: Final = 0xDA
# Baseline and extended: whose pixels a scan gives once and for all.
_SEQUENTIAL: Final = (0xC0, 0xC1)
# Without a length: restarts, the start and the end of an image.
_BARE: Final = range(0xD0, 0xDA)


def scans(data: bytes | bytearray) -> int:
    """How often a decoder may be led over a JPEG's pixels; at least as often as it will be."""
    return 1 if _whole_in_first(data) else data.count(bytes((0xFF, _SCAN)))


def _whole_in_first(data: bytes | bytearray) -> bool:
    """Whether the first scan has all colours of all pixels: libjpeg takes no other after that.

    False as well for what a decoder might read otherwise than it is read here.
    """
    at, colours = 2, 0
    while len(data) > at + 9 and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _SEQUENTIAL:
            colours = data[at + 9]
        elif marker == _SCAN:
            return data[at + 4] == colours
        elif marker < min(_SEQUENTIAL) or marker in _BARE or marker == 0xFF:
            return False
        at += 2 + length
    return False
