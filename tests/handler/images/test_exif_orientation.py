"""Files whose orientation is odd: pixels and orientation agree, whatever is made of it."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from camserve.images.geometry import ORIENTATIONS, undo_orientation
from tests.support.color_resnet import photo
from tests.support.image_files import (
    BYTE,
    DOUBLE,
    FLOAT,
    IFD,
    LIMITS,
    LONG,
    ORIENTATION,
    RATIONAL,
    SBYTE,
    SHORT,
    SLONG,
    SSHORT,
    TEXT,
    UNDEFINED,
    Tag,
    decode_default,
    max_difference,
    noise,
    orientation_tag,
    png_chunk,
    save_with_exif,
    tiff_directory,
    write_tiff,
)
from tests.support.images import decode_full_size

STORED = photo(("red", (12, 9), 7), ("blue", (36, 20), 9), width=48, height=33)
SIX = orientation_tag(SHORT, 6)


# None where the tag may count or not, as long as the reported orientation is the applied one.
ODD_EXIF: dict[str, tuple[bytes, int | None]] = {
    "none": (b"", 1),
    "as it should be": (tiff_directory(SIX), 6),
    "the other byte order": (tiff_directory(orientation_tag(SHORT, 6, order=">"), order=">"), 6),
    "0": (tiff_directory(orientation_tag(SHORT, 0)), 1),
    "9": (tiff_directory(orientation_tag(SHORT, 9)), 1),
    "65535": (tiff_directory(orientation_tag(SHORT, 65535)), 1),
    "text": (tiff_directory((ORIENTATION, TEXT, 2, b"6\0")), 1),
    "byte": (tiff_directory(orientation_tag(BYTE, 6, letter="B")), None),
    "long": (tiff_directory(orientation_tag(LONG, 6, letter="I")), None),
    "negative": (tiff_directory(orientation_tag(SLONG, -6, letter="i")), 1),
    "rational": (tiff_directory(orientation_tag(RATIONAL, 6, 1, letter="I")), None),
    "rational, broken": (tiff_directory(orientation_tag(RATIONAL, 13, 2, letter="I")), 1),
    "rational over zero": (tiff_directory(orientation_tag(RATIONAL, 0, 0, letter="I")), 1),
    "float": (tiff_directory(orientation_tag(FLOAT, 6, letter="f")), None),
    "double": (tiff_directory(orientation_tag(DOUBLE, 6, letter="d")), None),
    "not a number": (tiff_directory(orientation_tag(DOUBLE, float("nan"), letter="d")), 1),
    "unknown type": (tiff_directory((ORIENTATION, 99, 1, b"\6\0")), None),
    "undefined": (tiff_directory(orientation_tag(UNDEFINED, 6, letter="B")), None),
    "no value": (tiff_directory((ORIENTATION, SHORT, 0, b"\6\0")), None),
    "two values": (tiff_directory(orientation_tag(SHORT, 6, 8)), None),
    "four values": (tiff_directory(orientation_tag(SHORT, 6, 6, 6, 6)), None),
    "twice": (tiff_directory(SIX, orientation_tag(SHORT, 3)), None),
    "beside an offset beyond the block": (
        tiff_directory((0x010F, TEXT, 100, b"\xf0\xff\xff\xff"), SIX), 6,
    ),
    "before more entries than there are": (tiff_directory(SIX, count=65535), 6),
    "in a directory that is its own next": (tiff_directory(SIX, next_offset=8), 6),
    "in a directory that is its own EXIF": (
        tiff_directory(SIX, (0x8769, LONG, 1, struct.pack("<I", 8))), 6,
    ),
    "before a lot of nothing": (tiff_directory(SIX) + bytes(60_000), 6),
    "directory beyond the block": (b"II*\0\xff\xff\xff\0", 1),
    "directory cut": (b"II*\0\x08\0\0\0\xff\xff", 1),
    "header cut": (b"II", 1),
    "no TIFF": (b"no TIFF header at all", 1),
}  # fmt: skip


def apply_with_pillow(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """File pixels made upright by Pillow, channel by channel."""
    if pixels.ndim == 3:
        planes = [apply_with_pillow(plane, orientation) for plane in np.moveaxis(pixels, 2, 0)]
        return np.stack(planes, axis=2)
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ODD_EXIF)
def test_odd_exif_is_no_error_and_agrees_with_the_pixels(name: str, format: str) -> None:
    exif, expected = ODD_EXIF[name]
    plain = decode_default(save_with_exif(STORED, format)).upright
    got = decode_default(save_with_exif(STORED, format, exif))
    # JSON and the table of orientations need an int, and no int-like number.
    assert type(got.orientation) is int
    assert got.orientation in ORIENTATIONS
    assert np.array_equal(undo_orientation(got.upright, got.orientation), plain)
    assert expected in (None, got.orientation)


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_exif_before_or_after_a_pngs_pixels_agrees_with_its_orientation(
    before: bytes,
) -> None:
    data = save_with_exif(STORED, "PNG")
    place = data.index(before) - 4
    got = decode_full_size(
        data[:place] + png_chunk(b"eXIf", tiff_directory(SIX)) + data[place:], LIMITS, LIMITS.pixels
    )
    assert np.array_equal(undo_orientation(got.upright, got.orientation), STORED)


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"Exif\0\0"], id="no-data"),
        pytest.param([b"Exif\0\0" + tiff_directory(SIX), b"Exif\0\0"], id="then-no-data"),
        pytest.param(
            [b"Exif\0\0" + tiff_directory(SIX), b"Exif\0\0" + tiff_directory()], id="then-none"
        ),
        pytest.param([b"Exif\0\0junk", b"Exif\0\0" + tiff_directory(SIX)], id="after-junk"),
        pytest.param(
            [b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + tiff_directory(SIX)], id="xmp"
        ),
    ],
)
def test_segments_of_a_jpeg_agrees_with_its_orientation(segments: list[bytes]) -> None:
    file = io.BytesIO()
    Image.fromarray(STORED).save(file, "JPEG", quality=95)
    data = file.getvalue()
    marked = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments
    )
    got = decode_default(data[:2] + marked + data[2:])
    plain = decode_default(data).upright
    assert np.array_equal(undo_orientation(got.upright, got.orientation), plain)


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param([], id="none"),
        pytest.param([SIX], id="short"),
        pytest.param([orientation_tag(SHORT, 0)], id="0"),
        pytest.param([orientation_tag(SHORT, 9)], id="9"),
        pytest.param([(ORIENTATION, TEXT, 2, b"6\0")], id="text"),
        pytest.param([orientation_tag(BYTE, 6, letter="B")], id="byte"),
        pytest.param([orientation_tag(SBYTE, 6, letter="b")], id="signed-byte"),
        pytest.param([orientation_tag(UNDEFINED, 6, letter="B")], id="undefined"),
        pytest.param([orientation_tag(SSHORT, 6, letter="h")], id="signed-short"),
        pytest.param([orientation_tag(LONG, 6, letter="I")], id="long"),
        pytest.param([orientation_tag(SLONG, 6, letter="i")], id="signed-long"),
        pytest.param([orientation_tag(IFD, 6, letter="I")], id="offset"),
        pytest.param([orientation_tag(RATIONAL, 6, 1, letter="I")], id="rational"),
        pytest.param([orientation_tag(RATIONAL, 13, 2, letter="I")], id="rational-broken"),
        pytest.param([orientation_tag(FLOAT, 6, letter="f")], id="float"),
        pytest.param([orientation_tag(DOUBLE, 6, letter="d")], id="double"),
        pytest.param([(ORIENTATION, 99, 1, b"\6\0")], id="unknown-type"),
        pytest.param([(ORIENTATION, SHORT, 0, b"\6\0")], id="no-value"),
        pytest.param([orientation_tag(SHORT, 6, 8)], id="two-values"),
        pytest.param([orientation_tag(SHORT, 6, 6, 6, 6)], id="four-values"),
        pytest.param([SIX, orientation_tag(SHORT, 3)], id="twice"),
        pytest.param([orientation_tag(SHORT, 3), SIX], id="twice-otherwise"),
    ],
)
def test_odd_tag_of_a_tiff_agrees_with_its_orientation(tags: list[Tag]) -> None:
    got = decode_default(write_tiff(STORED, *tags))
    assert type(got.orientation) is int
    assert np.array_equal(undo_orientation(got.upright, got.orientation), STORED)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("layout", "sides"),
    [
        pytest.param({}, (48, 33), id="one-strip"),
        pytest.param({"rows": 7}, (48, 33), id="strips"),
        pytest.param({"rows": 1}, (33, 48), id="strip-a-row"),
        pytest.param({"tile": (32, 32)}, (96, 64), id="tiles"),
        pytest.param({"tile": (32, 64)}, (70, 81), id="tiles-beyond-the-edges"),
    ],
)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_tiff_of_any_layout_is_oriented_as_its_tag_says(
    layout: dict[str, Any], sides: tuple[int, int], depth: type, orientation: int
) -> None:
    stored = noise(sides[1], sides[0], 3)
    pixels: NDArray[Any] = stored.astype(depth) * (257 if depth is np.uint16 else 1)
    got = decode_full_size(
        write_tiff(pixels, orientation_tag(SHORT, orientation), **layout), LIMITS, LIMITS.pixels
    )
    assert got.orientation == orientation
    assert max_difference(got.upright, apply_with_pillow(stored, orientation)) <= 1
