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
from PIL import Image

from camserve.images import Pixels, png
from tests.support.image_files import decode_with_opencv, noise, png_chunk


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


# Without profiles


def with_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A file with these (kind, content) behind its header."""
    data = png.encode(PICTURE)
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


PICTURE = noise(5, 7, 3, seed=3)
TEXT = (b"tEXt", b"Comment\0iCCP")
#: A profile that libpng warns of, by its name.
PROFILE = (b"iCCP", b"a\n[METRICS]b\n\0\0" + zlib.compress(noise(500).tobytes()))


@pytest.mark.parametrize(
    ("chunks", "remaining"),
    [
        ((), ()),
        ((TEXT,), (TEXT,)),
        ((PROFILE,), ()),
        ((TEXT, PROFILE, PROFILE, TEXT), (TEXT, TEXT)),
    ],
)
def test_profiles_are_removed_and_nothing_else(
    chunks: tuple[tuple[bytes, bytes], ...], remaining: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert png.strip_icc_profiles(with_chunks(*chunks)) == with_chunks(*remaining)
    assert png.strip_icc_profiles(bytearray(with_chunks(*chunks))) == with_chunks(*remaining)


@pytest.mark.parametrize("cut", [41, 45, 60])
def test_a_truncated_profile_is_removed(cut: int) -> None:
    assert png.strip_icc_profiles(with_chunks(PROFILE)[:cut]) == png.encode(PICTURE)[:33]


def test_the_decoder_prints_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    decode_with_opencv(with_chunks(PROFILE))
    assert "\n[METRICS]b\n" in capfd.readouterr().err
    decoded = decode_with_opencv(bytes(png.strip_icc_profiles(with_chunks(PROFILE))))
    assert capfd.readouterr().err == ""
    assert np.array_equal(decoded, PICTURE)
