"""Places: turned upright and back, scaled, and heat where a photo's own file has the thing."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from camserve.images import Heatmap, HotRegion, background, decode
from camserve.images.geometry import (
    ORIENTATIONS,
    Box,
    InputFrame,
    apply_orientation,
    undo_orientation,
)
from camserve.images.preprocess import resize_and_crop
from camserve.options import Options, Size
from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from camserve.settings import Limits, Preprocess
from tests.support.color_resnet import COLOURS, photo
from tests.support.images import decode_full_size, drawn

ORIENTATION = 0x0112
UPRIGHT_SIDES = [(1, 1), (1, 5), (5, 1), (2, 3), (4, 3), (7, 5), (33, 48)]
LIMITS = Limits()


def noise(*shape: int, dtype: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


# Turning


def by_pillow(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What Pillow, which knows EXIF, makes upright of stored pixels; channel by channel."""
    if pixels.ndim == 3:
        planes = [by_pillow(plane, orientation) for plane in np.moveaxis(pixels, 2, 0)]
        return np.stack(planes, axis=2)
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_turned_as_exif_says(orientation: int, upright: list[list[int]]) -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert apply_orientation(stored, orientation).tolist() == upright


def test_there_are_eight_orientations() -> None:
    assert set(range(1, 9)) == ORIENTATIONS


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["2-D", "3-D"])
def test_turned_as_pillow_turns(orientation: int, dtype: type, channels: tuple[int, ...]) -> None:
    for sides in UPRIGHT_SIDES:
        stored = noise(*sides, *channels, dtype=dtype)
        upright = apply_orientation(stored, orientation)
        assert upright.dtype == dtype
        np.testing.assert_array_equal(upright, by_pillow(stored, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["2-D", "3-D"])
def test_turned_back_is_as_stored(orientation: int, dtype: type, channels: tuple[int, ...]) -> None:
    for sides in UPRIGHT_SIDES:
        stored = noise(*sides, *channels, dtype=dtype)
        back = undo_orientation(apply_orientation(stored, orientation), orientation)
        np.testing.assert_array_equal(back, stored)
        np.testing.assert_array_equal(
            apply_orientation(undo_orientation(stored, orientation), orientation), stored
        )


# Frames


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, (0, 1, 2, 4)),
        (2, (4, 1, 6, 4)),
        (3, (4, 0, 6, 3)),
        (4, (0, 0, 2, 3)),
        (5, (1, 0, 4, 2)),
        (6, (1, 2, 4, 4)),
        (7, (2, 2, 5, 4)),
        (8, (2, 0, 5, 2)),
    ],
)
def test_box_of_an_upright_photo_in_a_file_of_6_by_4(
    orientation: int, stored: tuple[int, ...]
) -> None:
    upright = Box(0, 1, 2, 4)
    assert InputFrame(6, 4, orientation, upright).to_file_box(upright) == stored
    assert InputFrame(6, 4, orientation, upright).visible_box == stored


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frame_of_an_upright_size_is_as_large_as_the_file(orientation: int) -> None:
    frame = InputFrame.from_upright_size(451, 300, orientation, Box(0, 0, 1, 1))
    assert frame.upright_size == (451, 300)
    assert (frame.width, frame.height) == ((451, 300) if orientation < 5 else (300, 451))
    assert frame.orientation == orientation


def test_whole_frame_sees_all() -> None:
    frame = InputFrame.full(224, 100)
    assert (frame.width, frame.height, frame.orientation) == (224, 100, 1)
    assert frame.input_box == frame.visible_box == (0, 0, 224, 100)


@pytest.mark.parametrize(
    ("window", "seen"),
    [
        pytest.param((1, 2, 5, 3), (1, 2, 5, 3), id="within"),
        pytest.param((-2, 1, 9, 3), (0, 1, 6, 3), id="across"),
        pytest.param((1, -3, 5, 7), (1, 0, 5, 4), id="down"),
        pytest.param((-1.5, -0.5, 6.5, 4.25), (0, 0, 6, 4), id="all-around"),
        pytest.param((0.25, 0.5, 5.75, 3.5), (0.25, 0.5, 5.75, 3.5), id="fractions"),
    ],
)
def test_seen_is_cut_at_the_photos_edges(
    window: tuple[float, ...], seen: tuple[float, ...]
) -> None:
    assert InputFrame(6, 4, 1, Box(*window)).visible_box == seen


@pytest.mark.parametrize(
    ("orientation", "window"),
    # The file is doubled across and tripled down.
    [(1, (2, 6, 6, 9)), (3, (2, 6, 6, 9)), (5, (3, 4, 9, 6)), (6, (3, 4, 9, 6))],
)
def test_scaled_by_the_files_sides(orientation: int, window: tuple[int, ...]) -> None:
    scaled = InputFrame(6, 4, orientation, Box(1, 2, 3, 3)).scaled(12, 12)
    assert scaled == InputFrame(12, 12, orientation, Box(*window))


SIDES = st.integers(1, 40)


@st.composite
def frames(draw: st.DrawFn) -> InputFrame:
    """A file of any shape and orientation; its window is of whole pixels, within or beyond it."""
    width, height = draw(SIDES), draw(SIDES)
    x0, y0 = draw(st.integers(-9, width - 1)), draw(st.integers(-9, height - 1))
    x1 = draw(st.integers(max(x0, 0) + 1, width + 9))
    y1 = draw(st.integers(max(y0, 0) + 1, height + 9))
    return InputFrame.from_upright_size(width, height, draw(st.integers(1, 8)), Box(x0, y0, x1, y1))


def extent(painted: NDArray[np.uint8]) -> tuple[int, ...]:
    """The box around what is not zero."""
    rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@given(frames())
@settings(deadline=None, derandomize=True)
def test_stored_box_is_where_a_painted_box_is_stored(frame: InputFrame) -> None:
    width, height = frame.upright_size
    x0, y0, x1, y1 = (int(edge) for edge in frame.input_box)
    upright = np.zeros((height, width), np.uint8)
    upright[max(y0, 0) : y1, max(x0, 0) : x1] = 1
    stored = undo_orientation(upright, frame.orientation)
    assert stored.shape == (frame.height, frame.width)
    assert frame.visible_box == extent(stored)


@given(frames(), SIDES, SIDES)
@settings(deadline=None, derandomize=True)
def test_scaled_then_stored_is_stored_then_scaled(
    frame: InputFrame, width: int, height: int
) -> None:
    scaled = frame.scaled(width, height)
    assert (scaled.width, scaled.height, scaled.orientation) == (width, height, frame.orientation)
    across, down = width / frame.width, height / frame.height
    x0, y0, x1, y1 = frame.visible_box
    assert scaled.visible_box == pytest.approx((x0 * across, y0 * down, x1 * across, y1 * down))
    assert scaled.scaled(frame.width, frame.height).input_box == pytest.approx(frame.input_box)


# Files: the pixels are turned as the orientation says that goes on beside them

#: A tag of a TIFF directory, as which EXIF is written too: number, type, count, value.
Tag = tuple[int, int, int, bytes]
BYTE, TEXT, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, FLOAT, DOUBLE, IFD = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13,
)  # fmt: skip


def directory(*tags: Tag, order: str = "<", next: int = 0, count: int | None = None) -> bytes:
    """A TIFF header and a directory; a value of more than four bytes stands behind it."""
    entries, values = b"", b""
    for number, kind, length, value in tags:
        if len(value) > 4:
            place, values = 8 + 2 + 12 * len(tags) + 4 + len(values), values + value
            value = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", number, kind, length) + value.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    length = len(tags) if count is None else count
    return (
        header
        + struct.pack(f"{order}H", length)
        + entries
        + struct.pack(f"{order}I", next)
        + values
    )


def turned(kind: int, *values: float, letter: str = "H", order: str = "<") -> Tag:
    """An orientation of some type."""
    content = struct.pack(f"{order}{len(values)}{letter}", *values)
    return ORIENTATION, kind, len(values) // (2 if kind == RATIONAL else 1), content


def tiff(
    pixels: NDArray[Any],
    *orientations: Tag,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
) -> bytes:
    """(h, w) or (h, w, 3), of 8 or 16 bits -> a TIFF in strips of some rows, or in tiles."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if tile:
        across, down = tile
        margins = ((0, -height % down), (0, -width % across), (0, 0))[: pixels.ndim]
        whole = np.pad(pixels, margins)
        pieces = [
            whole[y : y + down, x : x + across].tobytes()
            for y in range(0, height, down)
            for x in range(0, width, across)
        ]
        layout, places, sizes = [(322, SHORT, [across]), (323, SHORT, [down])], 324, 325
    else:
        rows = rows or height
        pieces = [pixels[y : y + rows].tobytes() for y in range(0, height, rows)]
        layout, places, sizes = [(278, SHORT, [rows])], 273, 279
    letters = {SHORT: "H", LONG: "I"}

    def written(offsets: list[int]) -> bytes:
        fields = [
            (256, SHORT, [width]), (257, SHORT, [height]),
            (258, SHORT, [8 * pixels.itemsize] * channels), (259, SHORT, [1]),
            (262, SHORT, [1 if channels == 1 else 2]), (277, SHORT, [channels]), *layout,
            (places, LONG, offsets), (sizes, LONG, [len(piece) for piece in pieces]),
        ]  # fmt: skip
        tags = [
            (number, kind, len(values), struct.pack(f"<{len(values)}{letters[kind]}", *values))
            for number, kind, values in fields
        ]
        return directory(*sorted([*tags, *orientations], key=lambda tag: tag[0]))

    start = len(written([0] * len(pieces)))
    offsets = [start + sum(map(len, pieces[:n])) for n in range(len(pieces))]
    return written(offsets) + b"".join(pieces)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def encoded(pixels: NDArray[np.uint8], format: str, exif: bytes = b"", **options: Any) -> bytes:
    """A file whose EXIF block is this one, whatever stands in it."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if format == "WEBP":
        image.save(file, format, lossless=True, exif=b"Exif\0\0" + exif)
        return file.getvalue()
    image.save(file, format, **options)
    data = file.getvalue()
    if format == "PNG":
        place = data.index(b"IDAT") - 4
        return data[:place] + chunk(b"eXIf", exif) + data[place:]
    block = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def difference(got: NDArray[Any], expected: NDArray[Any]) -> int:
    assert got.shape == expected.shape
    return int(np.abs(got.astype(int) - expected).max())


STORED = photo(("red", (12, 9), 7), ("blue", (36, 20), 9), width=48, height=33)
SIX = turned(SHORT, 6)

# None where what a tag of that kind says is nobody's business, if only it is told as it was done.
ODD_EXIF: dict[str, tuple[bytes, int | None]] = {
    "none": (b"", 1),
    "as it should be": (directory(SIX), 6),
    "the other byte order": (directory(turned(SHORT, 6, order=">"), order=">"), 6),
    "0": (directory(turned(SHORT, 0)), 1),
    "9": (directory(turned(SHORT, 9)), 1),
    "65535": (directory(turned(SHORT, 65535)), 1),
    "text": (directory((ORIENTATION, TEXT, 2, b"6\0")), 1),
    "byte": (directory(turned(BYTE, 6, letter="B")), None),
    "long": (directory(turned(LONG, 6, letter="I")), None),
    "negative": (directory(turned(SLONG, -6, letter="i")), 1),
    "rational": (directory(turned(RATIONAL, 6, 1, letter="I")), None),
    "rational, broken": (directory(turned(RATIONAL, 13, 2, letter="I")), 1),
    "rational over zero": (directory(turned(RATIONAL, 0, 0, letter="I")), 1),
    "float": (directory(turned(FLOAT, 6, letter="f")), None),
    "double": (directory(turned(DOUBLE, 6, letter="d")), None),
    "not a number": (directory(turned(DOUBLE, float("nan"), letter="d")), 1),
    "unknown type": (directory((ORIENTATION, 99, 1, b"\6\0")), None),
    "undefined": (directory(turned(UNDEFINED, 6, letter="B")), None),
    "no value": (directory((ORIENTATION, SHORT, 0, b"\6\0")), None),
    "two values": (directory(turned(SHORT, 6, 8)), None),
    "four values": (directory(turned(SHORT, 6, 6, 6, 6)), None),
    "twice": (directory(SIX, turned(SHORT, 3)), None),
    "beside an offset beyond the block": (
        directory((0x010F, TEXT, 100, b"\xf0\xff\xff\xff"), SIX), 6,
    ),
    "before more entries than there are": (directory(SIX, count=65535), 6),
    "in a directory that is its own next": (directory(SIX, next=8), 6),
    "in a directory that is its own EXIF": (
        directory(SIX, (0x8769, LONG, 1, struct.pack("<I", 8))), 6,
    ),
    "before a lot of nothing": (directory(SIX) + bytes(60_000), 6),
    "directory beyond the block": (b"II*\0\xff\xff\xff\0", 1),
    "directory cut": (b"II*\0\x08\0\0\0\xff\xff", 1),
    "header cut": (b"II", 1),
    "no TIFF": (b"no TIFF header at all", 1),
}  # fmt: skip


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ODD_EXIF)
def test_odd_exif_neither_refuses_a_photo_nor_parts_it_from_its_orientation(
    name: str, format: str
) -> None:
    exif, expected = ODD_EXIF[name]
    plain = decode_full_size(encoded(STORED, format), LIMITS, LIMITS.pixels).upright
    got = decode_full_size(encoded(STORED, format, exif), LIMITS, LIMITS.pixels)
    # A reply's JSON and the tables of turns want nothing but whole numbers.
    assert type(got.orientation) is int
    assert got.orientation in ORIENTATIONS
    assert np.array_equal(undo_orientation(got.upright, got.orientation), plain)
    assert expected in (None, got.orientation)


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_exif_before_or_after_a_pngs_pixels_never_parts_it_from_its_orientation(
    before: bytes,
) -> None:
    data = encoded(STORED, "PNG")
    place = data.index(before) - 4
    got = decode_full_size(
        data[:place] + chunk(b"eXIf", directory(SIX)) + data[place:], LIMITS, LIMITS.pixels
    )
    assert np.array_equal(undo_orientation(got.upright, got.orientation), STORED)


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"Exif\0\0"], id="no-data"),
        pytest.param([b"Exif\0\0" + directory(SIX), b"Exif\0\0"], id="then-no-data"),
        pytest.param([b"Exif\0\0" + directory(SIX), b"Exif\0\0" + directory()], id="then-none"),
        pytest.param([b"Exif\0\0junk", b"Exif\0\0" + directory(SIX)], id="after-junk"),
        pytest.param(
            [b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + directory(SIX)], id="xmp"
        ),
    ],
)
def test_segments_of_a_jpeg_never_part_it_from_its_orientation(segments: list[bytes]) -> None:
    file = io.BytesIO()
    Image.fromarray(STORED).save(file, "JPEG", quality=95)
    data = file.getvalue()
    marked = b"".join(b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in segments)
    got = decode_full_size(data[:2] + marked + data[2:], LIMITS, LIMITS.pixels)
    plain = decode_full_size(data, LIMITS, LIMITS.pixels).upright
    assert np.array_equal(undo_orientation(got.upright, got.orientation), plain)


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param([], id="none"),
        pytest.param([SIX], id="short"),
        pytest.param([turned(SHORT, 0)], id="0"),
        pytest.param([turned(SHORT, 9)], id="9"),
        pytest.param([(ORIENTATION, TEXT, 2, b"6\0")], id="text"),
        pytest.param([turned(BYTE, 6, letter="B")], id="byte"),
        pytest.param([turned(SBYTE, 6, letter="b")], id="signed-byte"),
        pytest.param([turned(UNDEFINED, 6, letter="B")], id="undefined"),
        pytest.param([turned(SSHORT, 6, letter="h")], id="signed-short"),
        pytest.param([turned(LONG, 6, letter="I")], id="long"),
        pytest.param([turned(SLONG, 6, letter="i")], id="signed-long"),
        pytest.param([turned(IFD, 6, letter="I")], id="offset"),
        pytest.param([turned(RATIONAL, 6, 1, letter="I")], id="rational"),
        pytest.param([turned(RATIONAL, 13, 2, letter="I")], id="rational-broken"),
        pytest.param([turned(FLOAT, 6, letter="f")], id="float"),
        pytest.param([turned(DOUBLE, 6, letter="d")], id="double"),
        pytest.param([(ORIENTATION, 99, 1, b"\6\0")], id="unknown-type"),
        pytest.param([(ORIENTATION, SHORT, 0, b"\6\0")], id="no-value"),
        pytest.param([turned(SHORT, 6, 8)], id="two-values"),
        pytest.param([turned(SHORT, 6, 6, 6, 6)], id="four-values"),
        pytest.param([SIX, turned(SHORT, 3)], id="twice"),
        pytest.param([turned(SHORT, 3), SIX], id="twice-otherwise"),
    ],
)
def test_odd_tag_of_a_tiff_never_parts_it_from_its_orientation(tags: list[Tag]) -> None:
    got = decode_full_size(tiff(STORED, *tags), LIMITS, LIMITS.pixels)
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
def test_tiff_of_any_layout_is_turned_as_its_tag_says(
    layout: dict[str, Any], sides: tuple[int, int], depth: type, orientation: int
) -> None:
    stored = noise(sides[1], sides[0], 3)
    pixels = stored.astype(depth) * (257 if depth is np.uint16 else 1)
    got = decode_full_size(
        tiff(pixels, turned(SHORT, orientation), **layout), LIMITS, LIMITS.pixels
    )
    assert got.orientation == orientation
    assert difference(got.upright, by_pillow(stored, orientation)) <= 1


# There and back, without a network: a disc's own redness, at the grid of a layer, is its map


@dataclass(frozen=True)
class Scene:
    """A red disc of a centre and a radius in a file of a size, seen whole by any fit; a blue one
    far from it.
    """

    width: int
    height: int
    red: tuple[tuple[int, int], int]
    blue: tuple[tuple[int, int], int]

    @property
    def stored(self) -> NDArray[np.uint8]:
        return photo(("red", *self.red), ("blue", *self.blue), width=self.width, height=self.height)


SCENES = {
    "landscape": Scene(451, 300, ((168, 200), 80), ((365, 60), 40)),
    "portrait": Scene(301, 452, ((105, 265), 80), ((250, 60), 40)),
    "square": Scene(333, 333, ((220, 130), 75), ((50, 280), 35)),
    "small": Scene(97, 83, ((40, 50), 22), ((80, 15), 10)),
    "wide": Scene(501, 241, ((215, 130), 78), ((440, 60), 40)),
    "narrow": Scene(61, 470, ((27, 225), 22), ((30, 420), 20)),
}
FITS = ("crop", "stretch", "pad")
GRID = 32


def redness(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w, 3) RGB -> (h, w) in [0, 1]: 1 where it is red, 0 where it is grey or blue."""
    red, *others = np.moveaxis(pixels.astype(np.float32), 2, 0)
    return np.clip((red - np.maximum(*others)) / 255, 0, 1)


@dataclass(frozen=True)
class Shown:
    """What a reply would hold of a photo whose heat is its redness."""

    frame: InputFrame
    mask: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    regions: tuple[HotRegion, ...]


def showing(stored: NDArray[np.uint8], orientation: int, fit: str, size: Size) -> Shown:
    preprocess = Preprocess(fit=fit)
    side = preprocess.crop
    original = decode.DecodedPhoto(apply_orientation(stored, orientation), orientation)
    crop, frame = resize_and_crop(original, preprocess)
    map = cv2.resize(redness(crop), (GRID, GRID), interpolation=cv2.INTER_AREA)
    shown = background.output_frame(frame, preprocess, size)
    drawings = drawn(
        Heatmap([map], side),
        background.output_background(original, crop, shown, size),
        frame,
        side,
        Options(outputs=("mask", "overlay", "boxes"), alpha=0, image_format="png"),
    )
    mask, overlay = (
        cv2.imdecode(np.frombuffer(drawings[output].data, np.uint8), cv2.IMREAD_UNCHANGED)
        for output in ("mask", "overlay")
    )
    assert mask.ndim == 2
    assert mask.shape == overlay.shape[:2] == (shown.height, shown.width)
    return Shown(frame, mask, overlay[..., ::-1], drawings["boxes"])


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, over the area that either covers."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    down = min(one.y1, other.y1) - max(one.y0, other.y0)
    shared = max(across, 0) * max(down, 0)
    areas = [(box.x1 - box.x0) * (box.y1 - box.y0) for box in (one, other)]
    return shared / (sum(areas) - shared)


def unseen(mask: NDArray[np.uint8], seen: Sequence[float], width: int, height: int) -> Any:
    """What of a mask, of a file of a size, is not in the part that was seen."""
    x0, y0, x1, y1 = seen
    across = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1]
    down = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]
    # A reply rounds ``seen`` to thousandths.
    outside_across = (across < x0 - 0.001) | (across > x1 + 0.001)
    outside_down = (down < y0 - 0.001) | (down > y1 + 0.001)
    return mask[outside_down[:, None] | outside_across]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", SCENES)
def test_heat_lies_where_the_file_has_what_is_hot(name: str, fit: str, orientation: int) -> None:
    scene = SCENES[name]
    (x, y), radius = scene.red
    expected = Box(x - radius, y - radius, x + radius + 1, y + radius + 1)
    for size in ("original", 100, 701):
        got = showing(scene.stored, orientation, fit, size)
        assert (got.frame.width, got.frame.height) == (scene.width, scene.height)
        scale = 1.0 if size == "original" else size / max(scene.width, scene.height)
        assert got.mask.shape == (round(scene.height * scale), round(scene.width * scale))
        assert not unseen(got.mask, got.frame.visible_box, scene.width, scene.height).any()
        # The disc and its heat cover each other, but for what the grid blurs at the rim.
        seen = cv2.resize(got.mask, (scene.width, scene.height)) > 127
        disc = redness(scene.stored) > 0.5
        assert (seen & disc).sum() / (seen | disc).sum() > 0.85
        (region, *others) = got.regions
        assert overlap(region.box, expected) > 0.8
        assert not others
        assert 0.5 < region.share <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
def test_pictures_show_the_files_raster(fit: str, orientation: int) -> None:
    stored = SCENES["landscape"].stored
    assert np.array_equal(showing(stored, orientation, fit, "original").overlay, stored)
    for size in (300, 701):
        resized = cv2.resize(stored, (size, round(size * 300 / 451)), interpolation=cv2.INTER_AREA)
        off = np.abs(showing(stored, orientation, fit, size).overlay.astype(int) - resized)
        # However it is scaled, only rims differ.
        assert off.mean() < 2


ODD = [(1, 1), (1, 20), (20, 1), (3, 5), (400, 20), (20, 400), (225, 224)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [1, 2, 7, 2000, "original", "model"])
@pytest.mark.parametrize(("width", "height"), ODD)
def test_no_photo_is_too_odd_for_any_size(width: int, height: int, size: Size, fit: str) -> None:
    stored = np.full((height, width, 3), COLOURS["red"], np.uint8)
    for orientation in (3, 6):
        got = showing(stored, orientation, fit, size)
        x0, y0, x1, y1 = got.frame.visible_box
        assert 0 <= x0 < x1 <= width + 1e-9
        assert 0 <= y0 < y1 <= height + 1e-9
        longest = {"model": 224, "original": max(width, height)}.get(str(size), size)
        assert max(got.mask.shape) == longest
        (region,) = got.regions
        # All of what was seen is hot; bilinear sampling blurs a bar's edge.
        assert overlap(region.box, got.frame.visible_box) > 0.9
        assert region.share > 0.9


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [1, 2, 7, 2000, "original"])
@pytest.mark.parametrize(("width", "height"), ODD)
def test_what_is_shown_of_an_odd_photo_is_the_photo(
    width: int, height: int, size: Size, fit: str
) -> None:
    stored = np.full((height, width, 3), COLOURS["red"], np.uint8)
    for orientation in (3, 6):
        got = showing(stored, orientation, fit, size)
        assert not unseen(got.mask, got.frame.visible_box, width, height).any()
        assert (got.overlay == COLOURS["red"]).all()


# From end to end, with the network whose answers are known by construction

#: Its map has 7 cells a side, and each tells of what lies at its first pixel, not in its middle:
#: what it finds, it finds half a cell right of and below the upright place. In the file, that is:
ASKEW = {
    1: (1, 1), 2: (-1, 1), 3: (-1, -1), 4: (1, -1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted(load: Callable[..., Pipeline], colours: Pipeline) -> dict[str, Pipeline]:
    """The constructed network behind each way to make a photo a square."""
    others = {fit: load(preprocess={"fit": fit}) for fit in FITS if fit != "crop"}
    return {"crop": colours, **others}


def answers(pipeline: Pipeline, *files: bytes, **options: str) -> Iterator[dict[str, Any]]:
    """Each photo's reply; they are asked about the red disc."""
    asked = {"target": "red", "outputs": "mask,boxes", "size": "original", **options}
    fields = {name: value.encode() for name, value in asked.items()}
    rows = [IncomingRequest({"data": data, **fields}, {}) for data in files]
    replies = pipeline.postprocess(pipeline.inference(pipeline.preprocess(rows)))
    for reply in replies:
        assert reply.status == 200, reply.body
        yield json.loads(reply.body)


def pixels_of(image: dict[str, Any]) -> NDArray[np.uint8]:
    """A reply's picture: grey where its file is, else RGB."""
    data = np.frombuffer(base64.b64decode(image["b64"], validate=True), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert pixels.shape[:2] == (image["height"], image["width"])
    return pixels if pixels.ndim == 2 else pixels[..., ::-1]


def assert_found(
    reply: dict[str, Any], scene: Scene, orientation: int, fit: str, longest: int | None = None
) -> None:
    """The red disc's heat lies on it, in the file's own raster, and nowhere unseen."""
    about = reply["image"]
    assert (about["width"], about["height"]) == (scene.width, scene.height)
    assert about["orientation"] == orientation
    x0, y0, x1, y1 = about["seen"]
    (explanation,) = reply["explanations"]
    (x, y), _ = scene.red
    left, top, right, bottom = explanation["boxes"][0]["box"]
    assert left < x < right
    assert top < y < bottom
    # Not merely around it, but about it.
    longer = max(scene.width, scene.height)
    cells = (longer / 7,) * 2 if fit == "pad" else ((x1 - x0) / 7, (y1 - y0) / 7)
    for middle, centre, cell, askew in zip(
        ((left + right) / 2, (top + bottom) / 2), (x, y), cells, ASKEW[orientation], strict=True
    ):
        assert abs(middle - centre - askew * cell / 2) < 0.6 * cell

    mask = pixels_of(explanation["mask"])
    scale = longest / longer if longest else 1
    assert mask.shape == (round(scene.height * scale), round(scene.width * scale))
    hot, cold = (
        int(mask[int(v * scale), int(u * scale)]) for u, v in (scene.red[0], scene.blue[0])
    )
    assert hot > 170
    assert cold < 85
    assert not unseen(mask, about["seen"], scene.width, scene.height).any()


def oriented(scene: Scene, *orientations: int) -> list[bytes]:
    return [encoded(scene.stored, "PNG", directory(turned(SHORT, one))) for one in orientations]


@pytest.mark.parametrize(
    ("fit", "name", "orientations"),
    [
        ("crop", "landscape", range(1, 9)),
        ("crop", "portrait", (3, 8)),
        ("crop", "square", (6,)),
        ("crop", "small", (4,)),
        ("crop", "wide", (7,)),
        ("stretch", "landscape", (5,)),
        ("stretch", "portrait", (1, 2)),
        ("stretch", "wide", (8,)),
        ("pad", "landscape", (1, 7)),
        ("pad", "portrait", (6,)),
        ("pad", "wide", (3,)),
    ],
)
def test_disc_is_found_whatever_the_shape_the_fit_and_the_orientation(
    fitted: dict[str, Pipeline], fit: str, name: str, orientations: Sequence[int]
) -> None:
    replies = answers(fitted[fit], *oriented(SCENES[name], *orientations))
    for orientation, reply in zip(orientations, replies, strict=True):
        assert_found(reply, SCENES[name], orientation, fit)


@pytest.mark.parametrize(
    ("fit", "orientation", "size"), [("crop", 6, 120), ("stretch", 4, 900), ("pad", 8, 333)]
)
def test_disc_is_found_at_any_size(
    fitted: dict[str, Pipeline], fit: str, orientation: int, size: int
) -> None:
    scene = SCENES["portrait"]
    (reply,) = answers(fitted[fit], *oriented(scene, orientation), size=str(size))
    assert_found(reply, scene, orientation, fit, longest=size)


def saved(stored: NDArray[np.uint8], format: str, orientation: int, **options: Any) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(file, format, exif=exif, **options)
    return file.getvalue()


def in_strips(stored: NDArray[np.uint8], orientation: int) -> bytes:
    return saved(stored, "TIFF", orientation, compression="tiff_lzw", strip_size=8192)


#: How each kind of file is written.
KINDS: dict[str, Callable[[NDArray[np.uint8], int], bytes]] = {
    "jpeg": lambda stored, turn: saved(stored, "JPEG", turn, quality=95),
    "png": lambda stored, turn: saved(stored, "PNG", turn),
    "webp": lambda stored, turn: saved(stored, "WEBP", turn, lossless=True),
    "tiff": lambda stored, turn: saved(stored, "TIFF", turn),
    "tiff in strips": in_strips,
    "tiff in tiles": lambda stored, turn: tiff(stored, turned(SHORT, turn), tile=(64, 64)),
    "tiff of 16 bits": lambda stored, turn: tiff(
        stored.astype(np.uint16) * 257, turned(SHORT, turn), rows=16
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_disc_is_found_and_shown_as_stored_in_every_kind_of_file(
    colours: Pipeline, kind: str
) -> None:
    scene = SCENES["landscape"]
    orientations = range(1, 9) if kind == "jpeg" else (2, 6, 7)
    files = [KINDS[kind](scene.stored, orientation) for orientation in orientations]
    asked = {"outputs": "mask,heatmap,overlay,boxes", "image_format": "png"}
    replies = answers(colours, *files, **asked)
    for orientation, reply, data in zip(orientations, replies, files, strict=True):
        assert_found(reply, scene, orientation, "crop")
        raster = scene.stored
        if kind == "jpeg":
            flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
            raster = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        (explanation,) = reply["explanations"]
        heatmap = pixels_of(explanation["heatmap"])
        jet = cv2.applyColorMap(pixels_of(explanation["mask"]), cv2.COLORMAP_JET)
        assert np.array_equal(heatmap, jet[..., ::-1])
        blend = cv2.addWeighted(np.ascontiguousarray(heatmap), 0.3, raster, 0.7, 0)
        tolerance = 1 if kind == "tiff of 16 bits" else 0
        assert difference(pixels_of(explanation["overlay"]), blend) <= tolerance


def test_strips_are_several() -> None:
    stored = SCENES["landscape"].stored
    for data in (tiff(stored, rows=16), in_strips(stored, 1)):
        assert len(Image.open(io.BytesIO(data)).tag_v2[273]) > 10


@pytest.mark.parametrize("orientation", [2, 7])
def test_at_the_models_size_a_reply_is_upright(colours: Pipeline, orientation: int) -> None:
    stored = SCENES["landscape"].stored
    files = [
        encoded(stored, "PNG", directory(turned(SHORT, orientation))),
        encoded(apply_orientation(stored, orientation), "PNG"),
    ]
    got, expected = answers(colours, *files, size="model", outputs="mask,heatmap,overlay")
    for output in ("mask", "heatmap", "overlay"):
        one, other = (pixels_of(reply["explanations"][0][output]) for reply in (got, expected))
        assert one.shape[:2] == (224, 224)
        assert difference(one, other) <= 1


@pytest.mark.parametrize(
    ("fit", "heat"), [("crop", range(1)), ("stretch", range(61, 256)), ("pad", range(61, 256))]
)
def test_what_is_not_seen_has_no_heat(fitted: dict[str, Pipeline], fit: str, heat: range) -> None:
    # Near the edge of a wide photo: cropped away, or seen.
    scene = Scene(701, 201, ((75, 100), 74), ((350, 100), 50))
    for reply in answers(fitted[fit], *oriented(scene, 3, 6)):
        mask = pixels_of(reply["explanations"][0]["mask"])
        assert int(mask[100, 75]) in heat
        assert not unseen(mask, reply["image"]["seen"], 701, 201).any()


def test_odd_orientation_does_not_touch_the_neighbours(colours: Pipeline) -> None:
    scene = SCENES["small"]
    names = ("as it should be", "rational", "float", "no TIFF")
    files = [encoded(scene.stored, "JPEG", ODD_EXIF[name][0]) for name in names]
    good, *others = answers(colours, *files, outputs="boxes")
    assert good["image"]["orientation"] == 6
    assert all(type(reply["image"]["orientation"]) is int for reply in others)
