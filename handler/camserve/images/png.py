"""PNG files: written in a quarter of the time that libpng takes; their chunks, to be decoded.

Nearly all the time goes into compression, and ISA-L's is several times as fast as zlib's at the
same size. The rest of a PNG is a signature, three chunks and a filter.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

import numpy as np
from isal import isal_zlib

from camserve.images.color_profile import MAX_PROFILE_BYTES, png_chunk_content
from camserve.images.geometry import Pixels

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# What pixels depend on. libpng is not given the rest: a wrong checksum in a text is no reason to
# refuse a photo, and for an invalid colour profile it prints a warning with the profile's name to
# stderr, where a caller's line breaks would begin lines of their own in TorchServe's log.
_ESSENTIAL: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# This bit of a kind's first letter is set where a decoder may skip the chunk.
_ANCILLARY: Final = 0x20
# Length, type and checksum.
_CHUNK_BYTES: Final = 12
_HEADER_BYTES: Final = 13
# A file of 20 MB has 2,500 of 8 kB, the usual size.
_MAX_CHUNKS: Final = 100_000
_GREY, _RGB = 0, 2
_ALPHA_TYPES: Final = (4, 6)
# Each byte as its difference from the pixel to its left: nearly zero in a heatmap, which is smooth.
# The difference from the row above takes a quarter more time and a sixth more bytes.
_SUB_FILTER: Final = 1


class PngFile(NamedTuple):
    """A PNG's chunks.

    Attributes:
        spans: the parts of the file, first and last byte each, that pixels depend on.
        width, height: in pixels.
        bits: of a sample.
        color_type: of the header: 0 grey, 2 RGB, 3 palette, 4 grey and 6 RGB with alpha.
        transparency: the content of tRNS, which makes levels, a colour or palette entries
            transparent; None where there is none.
        exif: the content of eXIf, wherever it is in the file; empty where there is none.
        profile: the ICC profile; empty where it is damaged or too large, None where there is none.
        has_end: the file has the chunk that ends it.
    """

    spans: tuple[tuple[int, int], ...]
    width: int
    height: int
    bits: int
    color_type: int
    transparency: bytes | None
    exif: bytes
    profile: bytes | None
    has_end: bool

    @property
    def is_transparent(self) -> bool:
        """It has an alpha channel, or something of it is transparent."""
        return self.color_type in _ALPHA_TYPES or self.transparency is not None


def encode(picture: Pixels, profile: bytes = b"") -> bytes:
    """Encode (h, w, 3) RGB or (h, w) grey as a PNG, with an ICC profile if one is given.

    PNG Specification, third edition, W3C 2025.
    """
    height, width = picture.shape[:2]
    color_type, channels = (_GREY, 1) if picture.ndim == 2 else (_RGB, 3)
    rows = picture.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _SUB_FILTER
    filtered[:, 1 : channels + 1] = rows[:, :channels]
    np.subtract(rows[:, channels:], rows[:, :-channels], out=filtered[:, channels + 1 :])
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    pixels = isal_zlib.compress(filtered, level=1)
    embedded = _chunk(b"iCCP", png_chunk_content(profile)) if profile else ()
    return b"".join(
        (
            _SIGNATURE,
            *_chunk(b"IHDR", header),
            *embedded,
            *_chunk(b"IDAT", pixels),
            *_chunk(b"IEND", b""),
        )
    )


def read(data: bytes | bytearray) -> PngFile:
    """Read a PNG's chunks.

    Raises:
        ValueError: a chunk that the pixels depend on is missing, damaged or longer than the file,
            or of an unknown kind; or there are too many chunks.
    """
    spans: list[tuple[int, int]] = []
    exif = b""
    header = transparency = profile = None
    has_pixels = has_end = False
    offset = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if has_end or offset + _CHUNK_BYTES > len(data):
            break
        (length,) = struct.unpack_from(">I", data, offset)
        kind, start, end = bytes(data[offset + 4 : offset + 8]), offset + 8, offset + 8 + length
        if end + 4 > len(data):
            # libpng would allocate what a chunk claims, up to 4 GB.
            raise ValueError("a chunk is longer than the file")
        match kind:
            case b"IHDR" if length == _HEADER_BYTES and header is None:
                header = struct.unpack_from(">IIBB", data, start)
            case b"IDAT":
                has_pixels = True
            case b"IEND":
                has_end = True
            case b"tRNS":
                # libpng checks the others, but leaves out a tRNS whose checksum is wrong.
                if zlib.crc32(data[offset + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                    raise ValueError("the transparency is damaged")
                transparency = bytes(data[start:end])
            case b"eXIf":
                exif = exif or bytes(data[start:end])
            case b"iCCP":
                profile = _unpack_profile(bytes(data[start:end]))
        if kind in _ESSENTIAL:
            if spans and spans[-1][1] == offset:
                spans[-1] = spans[-1][0], end + 4
            else:
                spans.append((offset, end + 4))
        elif not kind[0] & _ANCILLARY:
            raise ValueError(f"unknown chunk {kind!r}")
        offset = end + 4
    else:
        raise ValueError("too many chunks")
    if header is None or not has_pixels:
        raise ValueError("no header or no pixels")
    width, height, bits, color_type = header
    return PngFile(
        tuple(spans), width, height, bits, color_type, transparency, exif, profile, has_end
    )


def essential(data: bytes | bytearray, file: PngFile) -> bytes:
    """The PNG without the chunks that no pixel depends on, and with an end."""
    end = () if file.has_end else _chunk(b"IEND", b"")
    return b"".join((_SIGNATURE, *(data[start:stop] for start, stop in file.spans), *end))


def transparent_level(file: PngFile) -> int | None:
    """The grey level that is transparent, as OpenCV decodes it to 8 or 16 bits; None for none."""
    if file.color_type != _GREY or file.transparency is None or len(file.transparency) < 2:
        return None
    level, most = int.from_bytes(file.transparency[:2], "big"), (1 << file.bits) - 1
    if level > most:
        # As Pillow and ImageMagick have it: no pixel has it.
        return None
    return level if file.bits > 8 else level * (255 // most)


def _unpack_profile(content: bytes) -> bytes:
    """The profile of an iCCP chunk; empty where it is damaged or too large."""
    _, _, packed = content.partition(b"\0")
    try:
        decompressor = zlib.decompressobj()
        profile = decompressor.decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if decompressor.eof else b""


def _chunk(kind: bytes, content: bytes) -> tuple[bytes, ...]:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)
