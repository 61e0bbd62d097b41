"""A JPEG's scans, as far as a decoder must not be left alone with them. ITU-T T.81, annex B."""

from __future__ import annotations

import re
from typing import Final

_SOS: Final = 0xDA
# Baseline and extended: whose pixels a scan gives once and for all.
_SEQUENTIAL: Final = (0xC0, 0xC1)
# A segment with its length, or the end of the image; before each as many fill bytes as there are.
_SEGMENT: Final = re.compile(rb"\xff++(?:([\xc0-\xcf\xda-\xfe])(..)|\xd9)", re.DOTALL)
# A camera's file has some dozens of segments, one with large profiles some hundreds.
_MOST_SEGMENTS: Final = 10_000
# What ends the data of a scan: a marker that is no restart (D0 to D7), as libjpeg reads on behind
# a stuffed zero, another fill byte and the markers that it does not know (up to BF).
_ENDING: Final = (*range(0xC0, 0xD0), *range(0xD8, 0xFF))
# All bytes in three kinds, by which the end of a scan is found without a look at each FF.
_KINDS: Final = bytes(
    ord("F") if byte == 0xFF else ord("M") if byte in _ENDING else ord(".") for byte in range(256)
)


def count_scans(data: bytes | bytearray) -> int:
    """How often a decoder may be led over a JPEG's pixels; at least as often as it will be.

    Exact up to the end of the image where the file is well-formed. From where it is not, and
    decoders go different ways, all that could be a scan's beginning counts.
    """
    count, components, at = 0, -1, 2
    kinds: bytes | bytearray = b""
    for _ in range(_MOST_SEGMENTS):
        segment = _SEGMENT.match(data, at)
        if segment is None:
            break
        if segment[1] is None:
            return count
        marker, content = segment[1][0], segment.end()
        length = int.from_bytes(segment[2], "big")
        if length < 2:
            break
        end = content + length - 2
        if marker in _SEQUENTIAL and end <= len(data) and length >= 8:
            components = data[content + 5]
        if marker == _SOS:
            if end > len(data) or length != 6 + 2 * data[content]:
                break
            count += 1
            if count == 1 and data[content] == components:
                # All colours of all pixels: libjpeg takes no other scan after that.
                return 1
            kinds = kinds or data.translate(_KINDS)
            end = kinds.find(b"FM", end)
            if end < 0:
                return count
        at = end
    return count + data.count(bytes((0xFF, _SOS)), at)
