"""A TIFF's first directory: checked, edited before a decoder reads it, and what it says of pixels.

TIFF 6.0; for BigTIFF, libtiff's specification of it; TIFF/EP and the DNG specification for the
files of cameras.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _PLANAR, _SUB_DIRECTORIES, _EXTRA_SAMPLES = 274, 277, 284, 330, 338
_SAMPLE_FORMAT, _ICC_PROFILE, _DNG_VERSION = 339, 34675, 50706
_UPRIGHT: Final = 1
_SHORT: Final = 3
# The bytes of a value of each type.
_TYPE_BYTES: Final = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_GREYS: Final = (_MIN_IS_WHITE, _MIN_IS_BLACK)
#: By the photometric interpretation: the colour channels, and the bits of a sample that are read.
_READ: Final[dict[int, tuple[int, tuple[int, ...]]]] = {
    _MIN_IS_WHITE: (1, (1, 2, 4, 8, 12, 16)),
    _MIN_IS_BLACK: (1, (1, 2, 4, 8, 12, 16)),
    _RGB: (3, (8, 16)),
    _PALETTE: (1, (1, 2, 4, 8)),
    _CMYK: (4, (8, 16)),
    _YCBCR: (3, (8,)),
}
_COLOR_NAMES: Final = {
    _MIN_IS_WHITE: "grey", _MIN_IS_BLACK: "grey", _RGB: "RGB", _PALETTE: "palette colours",
    _CMYK: "CMYK colours", _YCBCR: "YCbCr colours", 4: "a transparency mask", 8: "Lab colours",
    9: "Lab colours", 10: "Lab colours", 32844: "LogL colours", 32845: "LogLuv colours",
}  # fmt: skip
_COMPRESSION_NAMES: Final = {
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI Log",
    34677: "SGI Log", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL",
}  # fmt: skip
#: What OpenCV does not decompress, which reads 12 bits.
_PILLOWS_COMPRESSIONS: Final = {34925: "LZMA", 50000: "Zstandard"}
_PACKED_BITS: Final = 12
# What a sensor sees through its colour filters, and the same before it becomes a picture.
_RAW_COLORS: Final = (32803, 34892)
_SAMPLE_NAMES: Final = {2: "signed {}-bit integers", 3: "{}-bit floats"}
_COMPLEX: Final = (5, 6)
_REDUCED: Final = 1
_CONTIGUOUS: Final = 1
ASSOCIATED_ALPHA: Final = 1
_ALPHAS: Final = (ASSOCIATED_ALPHA, 2)


class _Layout(NamedTuple):
    """Where the directory's offset is, and the struct formats of the fields."""

    offset_position: int
    offset: str
    entry_count: str
    entry: str


_CLASSIC: Final = _Layout(4, "I", "H", "HHII")
_BIG: Final = _Layout(8, "Q", "Q", "HHQQ")


class TiffDirectory(NamedTuple):
    """What a TIFF's first directory says.

    Attributes:
        width, height: in pixels.
        orientation: the tag's value; may be none that exists.
        bits: of a sample.
        samples: of a pixel.
        photometric: what the samples mean.
        alpha: the kind of the alpha channel, 1 associated and 2 not; None where there is none.
        profile: the ICC profile; empty where there is none.
    """

    width: int
    height: int
    orientation: Any
    bits: int
    samples: int
    photometric: int
    alpha: int | None
    profile: bytes

    @property
    def is_grey(self) -> bool:
        """Its colour channel is one of grey levels."""
        return self.photometric in _GREYS

    @property
    def min_is_white(self) -> bool:
        """Its grey level 0 is white."""
        return self.photometric == _MIN_IS_WHITE


def read_directory(data: bytes | bytearray) -> TiffDirectory | str:
    """The first directory of a TIFF; a text where no decoder here reads the kind of its pixels.

    Returns:
        The directory, or what the file is, as "a TIFF of 32-bit floats".

    Raises:
        ValueError: the directory is invalid, or its tags together claim more data than the file
            has: a decoder would allocate that for each of them.
    """
    if data[:4] == b"MM\0+":
        # Pillow takes it for a usual TIFF.
        return "a big-endian BigTIFF"
    # Before Pillow reads the tags, what they claim is checked.
    _orientation_entries(data)
    is_big = data[2:4] == b"+\0"
    directory = ImageFileDirectory_v2(bytes(data[: 16 if is_big else 8]))
    stream = io.BytesIO(data)
    try:
        stream.seek(directory.next)
        directory.load(stream)
        tags = {tag: directory.get(tag) for tag in directory}
    except Exception as failure:
        # Pillow raises nearly anything on invalid tags.
        raise ValueError(f"invalid directory: {failure}") from None
    if raw := _raw_kind(data, tags, has_next=bool(directory.next)):
        return raw
    if kind := _unsupported(tags):
        return f"a TIFF of {kind}"
    extras = _numbers(tags, _EXTRA_SAMPLES)
    profile = tags.get(_ICC_PROFILE)
    return TiffDirectory(
        _number(tags, _WIDTH, 0),
        _number(tags, _HEIGHT, 0),
        tags.get(_ORIENTATION),
        _bits(tags)[0],
        _number(tags, _SAMPLES, 1),
        _number(tags, _PHOTOMETRIC, _MIN_IS_BLACK),
        extras[0] if extras and extras[0] in _ALPHAS else None,
        bytes(profile) if isinstance(profile, bytes) else b"",
    )


def clear_orientation(data: bytes | bytearray) -> bytearray:
    """A copy of a TIFF whose orientation tag says upright, so that it decodes to its file pixels.

    OpenCV cannot be told to ignore a TIFF's orientation. It supports fewer types of that tag than
    Pillow does, and rotates each tile in its place.

    Raises:
        ValueError: as :func:`read_directory`.
    """
    copy = bytearray(data)
    entry_format, positions = _orientation_entries(data)
    for position in positions:
        # The value stands in the first two bytes of the last field.
        upright = (_ORIENTATION, _SHORT, 1, _UPRIGHT)
        struct.pack_into(entry_format[:-1] + "H", copy, position, *upright)
    return copy


def _orientation_entries(data: bytes | bytearray) -> tuple[str, list[int]]:
    """The struct format of the first directory's entries, and where those of the orientation are.

    Raises:
        ValueError: the directory is invalid, or its tags together claim more data than the file
            has: libtiff would allocate that for each of them.
    """
    byte_order = "<" if data[:2] == b"II" else ">"
    layout = _BIG if data[2:4] in (b"+\0", b"\0+") else _CLASSIC
    entry_format = byte_order + layout.entry
    entry_bytes = struct.calcsize(entry_format)
    positions, claimed_bytes = [], 0
    try:
        (directory,) = struct.unpack_from(byte_order + layout.offset, data, layout.offset_position)
        (entry_count,) = struct.unpack_from(byte_order + layout.entry_count, data, directory)
        first = directory + struct.calcsize(byte_order + layout.entry_count)
        for entry in range(first, first + entry_count * entry_bytes, entry_bytes):
            tag, kind, value_count, _ = struct.unpack_from(entry_format, data, entry)
            claimed_bytes += value_count * _TYPE_BYTES.get(kind, 1)
            if tag == _ORIENTATION:
                positions.append(entry)
    except struct.error as failure:
        raise ValueError(f"invalid directory: {failure}") from None
    if claimed_bytes > len(data):
        raise ValueError(f"the tags claim {claimed_bytes} bytes of {len(data)}")
    return entry_format, positions


def _raw_kind(data: bytes | bytearray, tags: Mapping[int, Any], *, has_next: bool) -> str | None:
    """What a camera's raw file is called, whose first directory has at most a small picture."""
    if _DNG_VERSION in tags:
        return "a camera's raw photo (DNG)"
    if data[8:10] == b"CR" or _number(tags, _PHOTOMETRIC, -1) in _RAW_COLORS:
        return "a camera's raw photo"
    is_thumbnail = _number(tags, _SUBFILE, 0) & _REDUCED
    if is_thumbnail and (_SUB_DIRECTORIES in tags or has_next):
        return "a TIFF whose first picture is a small copy, as a camera's raw photo is"
    return None


def _unsupported(tags: Mapping[int, Any]) -> str | None:
    """What the pixels are of, where no decoder here reads them right."""
    all_bits, bits = _bits(tags), _bits(tags)[0]
    if len(set(all_bits)) > 1:
        return f"samples of {', '.join(map(str, all_bits[:8]))} bits"
    for sample_format in _numbers(tags, _SAMPLE_FORMAT):
        if sample_format in _COMPLEX:
            return "complex numbers"
        if sample_format in _SAMPLE_NAMES:
            return _SAMPLE_NAMES[sample_format].format(bits)
    compression = _number(tags, _COMPRESSION, 1)
    if compression in _COMPRESSION_NAMES:
        return f"{_COMPRESSION_NAMES[compression]} compression"
    photometric = _number(tags, _PHOTOMETRIC, _MIN_IS_BLACK)
    if photometric not in _READ:
        return _COLOR_NAMES.get(photometric, f"photometric interpretation {photometric}")
    channels, read_bits = _READ[photometric]
    if bits not in read_bits:
        return f"{bits}-bit {_COLOR_NAMES[photometric]}"
    samples = _number(tags, _SAMPLES, 1)
    further = samples - channels
    if not 0 <= further <= 1 or (further and photometric in (_CMYK, _YCBCR)):
        return f"{samples} bands"
    if bits == _PACKED_BITS and compression in _PILLOWS_COMPRESSIONS:
        return f"12-bit grey with {_PILLOWS_COMPRESSIONS[compression]} compression"
    extras = _numbers(tags, _EXTRA_SAMPLES)
    if further and channels == 1:
        if _number(tags, _PLANAR, _CONTIGUOUS) != _CONTIGUOUS:
            return f"{samples} bands in planes"
        has_alpha = bool(extras) and extras[0] in _ALPHAS
        if bits not in (8, 16) or (bits == 16 and not has_alpha):
            return f"{samples} bands of {bits} bits"
    return None


def _bits(tags: Mapping[int, Any]) -> tuple[int, ...]:
    return _numbers(tags, _BITS) or (1,)


def _numbers(tags: Mapping[int, Any], tag: int) -> tuple[int, ...]:
    value = tags.get(tag)
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    if not all(isinstance(number, int) for number in values):
        raise ValueError(f"tag {tag} is no whole number")
    return values


def _number(tags: Mapping[int, Any], tag: int, default: int) -> int:
    values = _numbers(tags, tag)
    return values[0] if values else default
