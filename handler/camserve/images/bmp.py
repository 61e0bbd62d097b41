"""BMP files: which are read, and the pixels that are fields of bits, of which libraries read some.

Windows bitmap headers of 40 to 124 bytes, as the Windows GDI's BITMAPINFOHEADER, its extensions of
three and four masks, BITMAPV4HEADER and BITMAPV5HEADER define them.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from camserve.images.geometry import Pixels

_FILE_HEADER_BYTES: Final = 14
_INFO_HEADER: Final = "<IiiHHI"
_INFO_HEADER_BYTES: Final = 40
_BITFIELDS: Final = (3, 6)
_UNCOMPRESSED: Final = 0
_RED_GREEN_BLUE_555: Final = (0x7C00, 0x3E0, 0x1F, 0)
_RUN_LENGTH: Final = (1, 2)
# Pillow reads runs in Python: such a file takes half a second.
_MAX_RUN_LENGTH_BYTES: Final = 4_000_000
_MAX_RUN_LENGTH_PIXELS: Final = 10_000_000
#: What cannot be read, by the header's compression.
_OTHER_COMPRESSIONS: Final = {4: "a BMP that contains a JPEG", 5: "a BMP that contains a PNG"}
_MASKS: Final = 4


class BitFields(NamedTuple):
    """Where the pixels of a BMP are, and which bits of each are red, green, blue and alpha.

    Attributes:
        width, height: in pixels.
        bits: of a pixel: 16 or 32.
        offset: of the first row in the file.
        top_down: the first row is the top one.
        masks: of red, green, blue and alpha; 0 for an alpha that is not there.
    """

    width: int
    height: int
    bits: int
    offset: int
    top_down: bool
    masks: tuple[int, ...]


class _InfoHeader(NamedTuple):
    """The fields that the headers of 40 bytes and more begin with."""

    size: int
    width: int
    height: int
    planes: int
    bits: int
    compression: int


def _info_header(data: bytes | bytearray) -> _InfoHeader | None:
    """The header; None where the file is cut short, or has one of 12 bytes."""
    try:
        header = _InfoHeader(*struct.unpack_from(_INFO_HEADER, data, _FILE_HEADER_BYTES))
    except struct.error:
        return None
    return header if header.size >= _INFO_HEADER_BYTES else None


def unsupported_kind(data: bytes | bytearray) -> str | None:
    """What a BMP is that no decoder here reads, as a message says it; None for others."""
    header = _info_header(data)
    if header is None:
        return None
    if has_run_lengths(data) and (
        len(data) > _MAX_RUN_LENGTH_BYTES
        or abs(header.width * header.height) > _MAX_RUN_LENGTH_PIXELS
    ):
        return "a BMP of run lengths with more than 4 MB or 10 million pixels"
    if header.bits == 2:
        return "a BMP of 2 bits a pixel"
    return _OTHER_COMPRESSIONS.get(header.compression)


def has_run_lengths(data: bytes | bytearray) -> bool:
    """Whether pixels are run lengths. OpenCV reads them wrong where a run ends behind a row."""
    header = _info_header(data)
    return header is not None and header.compression in _RUN_LENGTH


def read_bit_fields(data: bytes | bytearray) -> BitFields | None:
    """The layout of a BMP of 16 or 32 bits a pixel; None for another one.

    Raises:
        ValueError: the header is invalid.
    """
    header = _info_header(data)
    if header is None or header.bits not in (16, 32):
        return None
    if header.compression == _UNCOMPRESSED and header.bits == 16:
        masks: tuple[int, ...] = _RED_GREEN_BLUE_555
    elif header.compression in _BITFIELDS:
        # In longer headers the masks are where they follow the shortest one.
        has_alpha = header.size >= _INFO_HEADER_BYTES + 16 or header.compression == 6
        count = _MASKS if has_alpha else _MASKS - 1
        try:
            masks = struct.unpack_from(f"<{count}I", data, _FILE_HEADER_BYTES + _INFO_HEADER_BYTES)
        except struct.error as failure:
            raise ValueError(f"the header is cut short: {failure}") from None
        masks += (0,) * (_MASKS - count)
    else:
        return None
    (offset,) = struct.unpack_from("<I", data, 10)
    # No colour without bits, and none whose bits are outside the pixel.
    is_outside = any(mask >> header.bits for mask in masks)
    if header.width <= 0 or header.height == 0 or not all(masks[:3]) or is_outside:
        raise ValueError("the header's size or masks are invalid")
    return BitFields(
        header.width, abs(header.height), header.bits, offset, header.height < 0, masks
    )


def decode_bit_fields(data: bytes | bytearray, layout: BitFields) -> NDArray[Any]:
    """(height, width, 3) RGB or (height, width, 4) RGBA, 0 to 255.

    A file whose alpha is 0 in every pixel is opaque: many programs leave it at that.

    Raises:
        ValueError: the file has fewer rows than its header says.
    """
    row_bytes = (layout.width * layout.bits + 31) // 32 * 4
    end = layout.offset + row_bytes * layout.height
    if end > len(data):
        raise ValueError("the file is incomplete")
    rows = np.frombuffer(data, np.uint8, row_bytes * layout.height, layout.offset)
    pixels = rows.view(f"<u{layout.bits // 8}").reshape(layout.height, -1)[:, : layout.width]
    if not layout.top_down:
        pixels = pixels[::-1]
    *colors, alpha = layout.masks
    channels = [_scaled(pixels, mask) for mask in colors]
    if alpha and (opacity := _scaled(pixels, alpha)).any():
        channels.append(opacity)
    return np.dstack(channels)


def _scaled(pixels: NDArray[Any], mask: int) -> Pixels:
    """The bits of a mask as 0 to 255: all of them set is 255."""
    shift = (mask & -mask).bit_length() - 1
    values, most = (pixels & pixels.dtype.type(mask)) >> shift, mask >> shift
    scaled = values if most == 255 else np.rint(values * np.float32(255 / most))
    return cast(Pixels, scaled.astype(np.uint8))
