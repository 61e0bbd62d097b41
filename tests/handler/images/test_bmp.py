"""BMP files with headers and pixels of every kind."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve.errors import RequestError
from tests.support.image_files import SAMPLE_RGB, SAMPLE_RGBA, decode_default, max_difference

ALPHA = SAMPLE_RGBA[..., 3]
HEIGHT, WIDTH = ALPHA.shape
HEADERS = (40, 52, 56, 108, 124)
RGB555, RGB565 = (0x7C00, 0x3E0, 0x1F, 0), (0xF800, 0x7E0, 0x1F, 0)
RGBA4444, RGBA5551 = (0xF00, 0xF0, 0xF, 0xF000), (0x7C00, 0x3E0, 0x1F, 0x8000)
BGRA, RGBA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
RGB101010 = (0x3FF00000, 0xFFC00, 0x3FF, 0)


def bmp(
    rows: NDArray[Any],
    bits: int,
    header_bytes: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (0, 0, 0, 0),
    *,
    top_down: bool = False,
) -> bytes:
    """Rows of whole pixels, top row first, as a BMP."""
    stride = -(-WIDTH * bits // 32) * 4
    ordered = rows if top_down else rows[::-1]
    pixels = b"".join(row.tobytes().ljust(stride, b"\0") for row in ordered)
    height = -HEIGHT if top_down else HEIGHT
    header = struct.pack(
        "<IiiHHIIiiII", header_bytes, WIDTH, height, 1, bits, compression, len(pixels), 0, 0, 0, 0
    )
    all_masks = struct.pack("<4I", *masks)
    if header_bytes == 40:
        header += all_masks[: {3: 12, 6: 16}.get(compression, 0)]
    else:
        header = (header + all_masks)[:header_bytes].ljust(header_bytes, b"\0")
    offset = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + header + pixels


def fields(masks: tuple[int, ...], bits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The sample with its channels in these bits, and what of it is left: (h, w, 4), 0 to 255."""
    packed = np.zeros((HEIGHT, WIDTH), np.uint64)
    left = np.full((HEIGHT, WIDTH, 4), 255.0)
    for channel, mask in enumerate(masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            most = mask >> shift
            values = np.rint(SAMPLE_RGBA[..., channel] * (most / 255)).astype(np.uint64)
            packed |= values << np.uint64(shift)
            left[..., channel] = np.rint(values * (255 / most))
    return packed.astype(f"<u{bits // 8}"), left


def on_white(rgba: NDArray[Any]) -> NDArray[Any]:
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header_bytes", HEADERS)
@pytest.mark.parametrize(
    ("bits", "masks"),
    [(16, RGB555), (16, RGB565), (32, (*BGRA[:3], 0)), (32, (*RGBA[:3], 0)), (32, RGB101010)],
)
def test_fields_of_bits(
    bits: int, masks: tuple[int, ...], header_bytes: int, top_down: bool
) -> None:
    rows, left = fields(masks, bits)
    data = bmp(rows, bits, header_bytes, 3, masks, top_down=top_down)
    assert max_difference(decode_default(data).upright, left[..., :3]) == 0


@pytest.mark.parametrize("header_bytes", HEADERS)
def test_16_bits_without_masks_are_555_and_white_is_255(header_bytes: int) -> None:
    rows, left = fields(RGB555, 16)
    decoded = decode_default(bmp(rows, 16, header_bytes)).upright
    assert max_difference(decoded, left[..., :3]) == 0
    white = decode_default(bmp(np.full((HEIGHT, WIDTH), 0x7FFF, "<u2"), 16)).upright
    assert white.min() == 255


@pytest.mark.parametrize("header_bytes", [56, 108, 124])
@pytest.mark.parametrize(
    ("bits", "masks"), [(16, RGBA4444), (16, RGBA5551), (32, BGRA), (32, RGBA)]
)
def test_alpha_lies_on_white(bits: int, masks: tuple[int, ...], header_bytes: int) -> None:
    rows, left = fields(masks, bits)
    data = bmp(rows, bits, header_bytes, 3, masks)
    assert max_difference(decode_default(data).upright, on_white(left)) <= 1


def test_alpha_behind_a_short_header() -> None:
    rows, left = fields(RGBA, 32)
    data = bmp(rows, 32, 40, 6, RGBA)
    assert max_difference(decode_default(data).upright, on_white(left)) <= 1


def test_alpha_of_zero_everywhere_is_none() -> None:
    rows, left = fields((*BGRA[:3], 0), 32)
    decoded = decode_default(bmp(rows, 32, 124, 3, BGRA)).upright
    assert max_difference(decoded, left[..., :3]) == 0


@pytest.mark.parametrize("header_bytes", HEADERS)
@pytest.mark.parametrize("bits", [24, 32])
def test_plain_colours_under_any_header(bits: int, header_bytes: int) -> None:
    bgr = SAMPLE_RGB[..., ::-1]
    rows = bgr if bits == 24 else np.dstack([bgr, np.zeros_like(ALPHA)])
    data = bmp(np.ascontiguousarray(rows), bits, header_bytes)
    assert np.array_equal(decode_default(data).upright, SAMPLE_RGB)


@pytest.mark.parametrize(
    ("bits", "compression", "named"),
    [(2, 0, "2 bits a pixel"), (0, 4, "contains a JPEG"), (0, 5, "contains a PNG")],
)
def test_other_kinds_are_refused_by_name(bits: int, compression: int, named: str) -> None:
    with pytest.raises(RequestError, match=named) as error:
        decode_default(bmp(np.zeros((HEIGHT, WIDTH), np.uint8), bits, 40, compression))
    assert error.value.code == "unsupported_format"


@pytest.mark.parametrize(
    "masks",
    [(0, 0x7E0, 0x1F, 0), (0xF8000, 0x7E0, 0x1F, 0)],
    ids=["none", "outside"],
)
def test_masks_that_make_no_sense_are_refused(masks: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="BMP file is damaged"):
        decode_default(bmp(np.zeros((HEIGHT, WIDTH), "<u2"), 16, 40, 3, masks))


def test_missing_rows_are_refused() -> None:
    rows, _ = fields(RGB565, 16)
    with pytest.raises(RequestError, match="BMP file is damaged"):
        decode_default(bmp(rows, 16, 40, 3, RGB565)[:-1])


def run_lengths(levels: NDArray[Any], *, padding: int = 0) -> bytes:
    """Grey levels as a BMP of run lengths, its last run of each row longer than the row."""
    height, width = levels.shape
    runs = b"".join(
        b"".join(bytes((1 + (padding if x == width - 1 else 0), row[x])) for x in range(width))
        + b"\0\0"
        for row in levels[::-1]
    )
    runs += b"\0\1"
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    offset = 14 + len(header) + len(palette)
    start = struct.pack("<2sIHHI", b"BM", offset + len(runs), 0, 0, offset)
    return start + header + palette + runs


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("width", [8, 9, 11])
def test_run_lengths_may_end_behind_a_row(width: int, padding: int) -> None:
    levels = SAMPLE_RGB[:10, :width, 0]
    decoded = decode_default(run_lengths(levels, padding=padding)).upright
    assert np.array_equal(decoded, np.stack([levels] * 3, axis=-1))


def test_many_run_lengths_are_refused_by_name() -> None:
    data = run_lengths(np.zeros((10, 10), np.uint8)) + bytes(4_000_001)
    with pytest.raises(RequestError, match="a BMP of run lengths with more than 4 MB"):
        decode_default(data)


def test_the_oldest_header() -> None:
    bgr = np.ascontiguousarray(SAMPLE_RGB[::-1, :, ::-1])
    header = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    start = struct.pack("<2sIHHI", b"BM", 26 + bgr.nbytes, 0, 0, 26)
    decoded = decode_default(start + header + bgr.tobytes()).upright
    assert np.array_equal(decoded, SAMPLE_RGB)


@pytest.mark.parametrize("length", [2, 14, 20, 30, 54, 60, 66])
def test_a_header_that_is_cut_short_is_refused(length: int) -> None:
    rows, _ = fields(RGB565, 16)
    with pytest.raises(RequestError, match="BMP file is damaged"):
        decode_default(bmp(rows, 16, 40, 3, RGB565)[:length])
