"""The number of a JPEG's scans, which decoders do not limit. ITU-T T.81, annex B."""

from __future__ import annotations

import re
from typing import Final

_SOS: Final = 0xDA
# Start of frame, baseline and extended sequential: one scan codes a component completely.
_SEQUENTIAL: Final = (0xC0, 0xC1)
# A segment with its length, or the end of the image; any number of fill bytes before it.
_SEGMENT: Final = re.compile(rb"\xff++(?:([\xc0-\xcf\xda-\xfe])(..)|\xd9)", re.DOTALL)
# A camera's file has some dozens of segments, one with large profiles some hundreds.
_MAX_SEGMENTS: Final = 10_000
# The markers that end a scan's data. libjpeg reads on after restarts (D0 to D7), a stuffed zero,
# fill bytes and the markers that it does not know (up to BF).
_SCAN_END_MARKERS: Final = (*range(0xC0, 0xD0), *range(0xD8, 0xFF))
# Each byte as one of three classes, so that a scan's end is the first "FM": without a look at each
# FF in Python.
_BYTE_CLASSES: Final = bytes(
    ord("F") if byte == 0xFF else ord("M") if byte in _SCAN_END_MARKERS else ord(".")
    for byte in range(256)
)


def count_scans(data: bytes | bytearray) -> int:
    """How many scans a decoder may decode in a JPEG; never fewer than it will.

    Exact for a well-formed file, up to the end of its image. From an error on, where decoders
    differ, every byte pair that could start a scan counts.
    """
    count, components, offset = 0, -1, 2
    byte_classes: bytes | bytearray = b""
    for _ in range(_MAX_SEGMENTS):
        segment = _SEGMENT.match(data, offset)
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
                # This scan has all components of all pixels: libjpeg decodes no further one.
                return 1
            byte_classes = byte_classes or data.translate(_BYTE_CLASSES)
            end = byte_classes.find(b"FM", end)
            if end < 0:
                return count
        offset = end
    return count + data.count(bytes((0xFF, _SOS)), offset)
