"""PNG files that any reader has the same pixels from."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from camserve.errors import RequestError
from camserve.images import Pixels, png
from tests.support.image_files import (
    decode_default,
    decode_with_opencv,
    max_difference,
    noise,
    orientation_exif,
    png_chunk,
    sample_image,
    save_image,
)


def decode_strictly_with_pillow(data: bytes) -> Pixels:
    # Checks the checksum of every chunk.
    Image.open(io.BytesIO(data)).verify()
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


def assert_round_trip(picture: Pixels) -> None:
    before = picture.copy()
    data = png.encode(picture)
    assert type(data) is bytes
    for decoded in (decode_strictly_with_pillow(data), decode_with_opencv(data)):
        assert decoded.dtype == np.uint8
        assert decoded.shape == picture.shape
        assert np.array_equal(decoded, picture)
    assert np.array_equal(picture, before)


SIZES = [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (2, 2), (3, 5), (7, 7), (33, 129), (224, 224)]


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_comes_back(size: tuple[int, int], channels: tuple[int, ...]) -> None:
    assert_round_trip(noise(*size, *channels))


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (3,)]), st.integers(0, 2**32 - 1)
)
def test_every_pixel_of_any_picture_comes_back(
    height: int, width: int, channels: tuple[int, ...], seed: int
) -> None:
    assert_round_trip(noise(height, width, *channels, seed=seed))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_constant_picture_comes_back(value: int, channels: tuple[int, ...]) -> None:
    assert_round_trip(np.full((50, 31, *channels), value, np.uint8))


def test_differences_of_rows_wrap_around() -> None:
    assert_round_trip(np.array([[0, 255, 1], [255, 0, 254], [0, 255, 255], [1, 1, 1]], np.uint8))


FULL = noise(40, 60, 3)
VIEWS = {
    "a part": FULL[3:30, 5:50],
    "every second": FULL[::2, ::3],
    "mirrored": FULL[:, ::-1],
    "upside down": FULL[::-1],
    "transposed": FULL.transpose(1, 0, 2),
    "BGR as RGB": FULL[..., ::-1],
    "columns first": np.asfortranarray(FULL),
    "one channel": FULL[..., 1],
    "grey, transposed": FULL[..., 0].T,
    "spread": np.broadcast_to(FULL[:1], FULL.shape),
    "of four channels": noise(9, 7, 4)[..., :3],
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_picture_may_have_any_memory_layout(name: str) -> None:
    assert not VIEWS[name].flags.c_contiguous
    assert_round_trip(VIEWS[name])


def test_a_read_only_picture_is_encoded() -> None:
    picture = noise(5, 6, 3)
    picture.flags.writeable = False
    assert_round_trip(picture)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Each chunk's type and content; its checksum is right."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    parsed, offset = [], 8
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        content = data[offset + 8 : offset + 8 + length]
        assert struct.unpack_from(">I", data, offset + 8 + length) == (zlib.crc32(kind + content),)
        parsed.append((kind, content))
        offset += 12 + length
    assert offset == len(data)
    return parsed


@pytest.mark.parametrize(("channels", "colour"), [((), 0), ((3,), 2)])
def test_a_file_is_a_header_its_rows_and_an_end(channels: tuple[int, ...], colour: int) -> None:
    picture = np.arange(2 * 3 * (3 if channels else 1), dtype=np.uint8).reshape(2, 3, *channels)
    (first, header), (second, rows), end = chunks(png.encode(picture))
    assert (first, second, end) == (b"IHDR", b"IDAT", (b"IEND", b""))
    assert header == struct.pack(">IIBBBBB", 3, 2, 8, colour, 0, 0, 0)
    # Each row is preceded by its filter, Sub: a pixel is what it has more than the one to its left.
    step = 3 if channels else 1
    further = [step] * (2 * step)
    upper, lower = [*range(step), *further], [*range(3 * step, 4 * step), *further]
    assert zlib.decompress(rows) == bytes([1, *upper, 1, *lower])


def test_a_heatmaps_file_is_small() -> None:
    y, x = np.mgrid[:224, :224] / 223
    smooth = cv2.applyColorMap(np.rint(255 * x * y).astype(np.uint8), cv2.COLORMAP_JET)
    # OpenCV's own, at its default level.
    assert len(png.encode(smooth)) < 2 * len(cv2.imencode(".png", smooth)[1])
    assert len(png.encode(noise(224, 224, 3))) < 1.01 * 224 * 224 * 3


# Read


def with_chunks(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A file with these (kind, content) behind its header, or behind its pixels."""
    data = png.encode(PICTURE)
    at = len(data) - 12 if behind else 33
    return data[:at] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[at:]


PICTURE = noise(5, 7, 3, seed=3)
TEXT = (b"tEXt", b"Comment\0iCCP")
#: A profile that libpng warns of, by its name.
PROFILE = (b"iCCP", b"a\n[METRICS]b\n\0\0" + zlib.compress(noise(500).tobytes()))
EXIF = orientation_exif(6).tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("chunks", [(), (TEXT,), (PROFILE,), (TEXT, PROFILE, PROFILE, TEXT)])
def test_the_decoder_is_given_what_pixels_depend_on(
    chunks: tuple[tuple[bytes, bytes], ...], behind: bool
) -> None:
    data = with_chunks(*chunks, behind=behind)
    assert png.essential(data, png.read(data)) == png.encode(PICTURE)
    assert png.essential(bytearray(data), png.read(bytearray(data))) == png.encode(PICTURE)


def test_the_decoder_prints_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    data = with_chunks(PROFILE)
    decode_with_opencv(data)
    assert "\n[METRICS]b\n" in capfd.readouterr().err
    decoded = decode_with_opencv(png.essential(data, png.read(data)))
    assert capfd.readouterr().err == ""
    assert np.array_equal(decoded, PICTURE)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"gAMA", b"abCd"])
def test_a_wrong_checksum_outside_the_pixels_does_not_matter(kind: bytes) -> None:
    data = bytearray(with_chunks((kind, b"Comment\0some text")))
    data[data.index(kind) + 4 + 18] ^= 1
    photo = decode_default(data)
    assert np.array_equal(photo.upright, PICTURE)
    assert photo.warnings == ()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_pixels_depend_on_is_refused(kind: bytes) -> None:
    data = bytearray(save_image(sample_image("P"), "PNG", transparency=3))
    start = data.index(kind)
    (length,) = struct.unpack_from(">I", data, start - 4)
    data[start + 4 + length] ^= 1
    with pytest.raises(RequestError, match="PNG file is damaged"):
        decode_default(data)


@pytest.mark.parametrize("behind", [False, True])
def test_exif_turns_the_photo_wherever_it_is(behind: bool) -> None:
    photo = decode_default(with_chunks((b"eXIf", EXIF), behind=behind))
    assert photo.orientation == 6
    assert np.array_equal(photo.upright, np.rot90(PICTURE, -1))


@pytest.mark.parametrize("cut", [1, 4, 8, 12])
def test_only_the_end_is_missing(cut: int) -> None:
    photo = decode_default(png.encode(PICTURE)[:-cut])
    assert np.array_equal(photo.upright, PICTURE)
    assert photo.warnings == ("damaged", "no_end_marker")


@pytest.mark.parametrize("cut", [13, 20, 60])
def test_pixels_are_missing(cut: int) -> None:
    with pytest.raises(RequestError, match="PNG file is damaged"):
        decode_default(png.encode(PICTURE)[:-cut])


def test_an_unknown_chunk_that_pixels_may_depend_on_is_refused() -> None:
    # As in the PNGs of iPhone applications, whose colours are in another order.
    with pytest.raises(RequestError, match="PNG file is damaged, incomplete or of a rare kind"):
        decode_default(with_chunks((b"CgBI", b"\x50\0\x20\x02")))


@pytest.mark.parametrize(("bits", "levels"), [(1, 2), (2, 4), (4, 16), (8, 256), (16, 65536)])
def test_the_transparent_level_of_a_grey_file_is_white(bits: int, levels: int) -> None:
    rng = np.random.default_rng(bits)
    grey = rng.integers(0, levels, (16, 24))
    transparent = int(grey[3, 5])
    if bits == 16:
        # Alike in its first byte, and not transparent.
        grey[0, 0] = transparent ^ 1
    data = grey_png(grey, bits, transparent)
    level = np.rint(grey * (255 / (levels - 1)))
    expected = np.where(grey == transparent, 255, level)[..., None].repeat(3, axis=2)
    assert max_difference(decode_default(data).upright, expected) <= (1 if bits == 16 else 0)


def test_a_transparent_level_beyond_the_bits_is_none() -> None:
    grey = np.random.default_rng(0).integers(0, 2, (16, 24))
    decoded = decode_default(grey_png(grey, 1, 128)).upright
    assert np.array_equal(decoded, (grey * 255)[..., None].repeat(3, axis=2))


def grey_png(grey: NDArray[np.int64], bits: int, transparent: int) -> bytes:
    """(h, w) levels as a PNG of so many bits, with one transparent level."""
    height, width = grey.shape
    if bits == 16:
        rows = grey.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        planes = (grey[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(planes.reshape(height, -1).astype(np.uint8), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content)
        for kind, content in (
            (b"IHDR", header),
            (b"tRNS", struct.pack(">H", transparent)),
            (b"IDAT", zlib.compress(pixels)),
            (b"IEND", b""),
        )
    )


def test_a_file_of_tiny_chunks_is_refused_at_once() -> None:
    chunk = png_chunk(b"tEXt", b"")
    data = png.encode(PICTURE)
    with pytest.raises(RequestError):
        decode_default(data[:33] + chunk * 200_000 + data[33:])
