"""JPEG files: decoded, with the decoder's report, and the number of scans, which it does not limit.

ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, cast

import cv2
import numpy as np
import simplejpeg

from camserve.images.damage import DAMAGED, END_MISSING, Decoded
from camserve.images.geometry import Pixels

#: A JPEG can be decoded at 1/8, 1/4 or 1/2 of its size, which skips most of the work.
SCALE_DENOMINATORS: Final = (8, 4, 2)
_END_OF_IMAGE: Final = b"\xff\xd9"
# libjpeg's report that the file ends too early.
_NO_END: Final = "Premature end of JPEG file"
_OPENCV_FLAGS: Final = {
    # Without the bit for BGR, which would contradict the one for RGB.
    denominator: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | flag & ~cv2.IMREAD_COLOR
    for denominator, flag in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
        (1, 0),
    )
}
_SOS: Final = 0xDA
# Start of frame, baseline and extended sequential: one scan codes a component completely.
_SEQUENTIAL: Final = (0xC0, 0xC1)
# Not among them: Huffman tables (C4), an extension (C8) and arithmetic coding's conditioning (CC).
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL_FRAMES: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE: Final = (0xC2, 0xCA)
_BITS: Final = 8
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


def decode(data: bytes | bytearray, width: int, height: int, scale_denominator: int) -> Decoded:
    """Decode a JPEG, or the first one of an MPO.

    libjpeg decodes, by simplejpeg, which hands on what libjpeg reports: OpenCV and Pillow answer a
    file with a hole inside as if it were whole.

    Args:
        data: the file.
        width, height: of the photo, in file pixels.
        scale_denominator: 1, 2, 4 or 8.

    Raises:
        ValueError, cv2.error: the file does not decode, or ends before its last pixel.
    """
    size = -(-width // scale_denominator), -(-height // scale_denominator)
    try:
        return Decoded(_decode(data, size))
    except ValueError as failure:
        # A progressive file that is cut off may have another report first.
        is_cut_off = data.rfind(_END_OF_IMAGE) < data.rfind(bytes((0xFF, _SOS)))
        if _NO_END in str(failure) or is_cut_off:
            # With the marker, a file that lacks nothing else decodes without a report. So does a
            # progressive one that ends between two scans.
            if not _has_every_scan(data):
                raise ValueError("the last scans are missing") from None
            pixels = _decode(b"".join((data, _END_OF_IMAGE)), size)
            return Decoded(pixels, END_MISSING)
    try:
        return Decoded(_decode(data, size, strict=False), (DAMAGED,))
    except ValueError:
        # TurboJPEG knows the usual subsamplings alone; OpenCV uses libjpeg itself.
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), _OPENCV_FLAGS[scale_denominator])
        if rgb is None:
            raise ValueError("no decoder reads the file") from None
        return Decoded(cast(Pixels, rgb))


def unsupported_kind(data: bytes | bytearray) -> str | None:
    """What a JPEG is that no decoder here reads, as a message says it; None for others."""
    for marker, content in _segments(data):
        if marker == _SOS:
            return None
        if marker in _FRAMES and content < len(data):
            if marker in _HIERARCHICAL_FRAMES:
                return "a hierarchical JPEG"
            return None if data[content] == _BITS else f"a JPEG of {data[content]}-bit samples"
    return None


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


def _segments(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """The marker of each segment, and the offset of its content; a scan's data are passed over."""
    byte_classes: bytes | bytearray = b""
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        segment = _SEGMENT.match(data, offset)
        if segment is None or segment[1] is None:
            return
        marker, content = segment[1][0], segment.end()
        yield marker, content
        offset = content + int.from_bytes(segment[2], "big") - 2
        if marker == _SOS:
            byte_classes = byte_classes or data.translate(_BYTE_CLASSES)
            offset = byte_classes.find(b"FM", offset)
            if offset < 0:
                return


def _has_every_scan(data: bytes | bytearray) -> bool:
    """Every coefficient of a progressive JPEG is coded to its last bit; True for other JPEGs."""
    # By component, what of its 64 coefficients is not coded yet: the number of bits, or anything.
    missing: dict[int, list[int]] = {}
    try:
        for marker, content in _segments(data):
            if marker in _FRAMES:
                if marker not in _PROGRESSIVE:
                    return True
                ids = data[content + 6 : content + 6 + 3 * data[content + 5] : 3]
                missing = {component: [1] * 64 for component in ids}
            elif marker == _SOS:
                count = data[content]
                first, last, bits = data[content + 1 + 2 * count : content + 4 + 2 * count]
                for component in data[content + 1 : content + 1 + 2 * count : 2]:
                    missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    except (IndexError, KeyError, ValueError):
        return False
    return not any(map(any, missing.values()))


def _decode(data: bytes | bytearray, size: tuple[int, int], *, strict: bool = True) -> Pixels:
    """(h, w, 3) RGB of at least ``size`` (width, height). If strict, a report is a ValueError."""
    width, height = size
    return cast(
        Pixels,
        simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=strict),
    )
