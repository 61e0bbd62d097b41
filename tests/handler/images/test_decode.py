"""Image files of every kind, hostile ones too: their pixels, or the error."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camserve.errors import RequestError
from camserve.images import Pixels, decode, decode_photo, enable_decoders, read_header
from camserve.images.background import output_background
from camserve.images.geometry import ORIENTATIONS, apply_orientation, undo_orientation
from camserve.images.preprocess import resize_and_crop
from camserve.settings import Limits, PhotoFormat, Preprocess
from tests.support.icc_profiles import cmyk_profile, grey_profile, rgb_profile
from tests.support.image_files import (
    LIMITS,
    SAMPLE_RGB,
    SAMPLE_RGBA,
    decode_default,
    decode_with_pillow,
    encode_with_opencv,
    insert_png_chunk,
    max_difference,
    noise,
    orientation_exif,
    sample_image,
    save_image,
)
from tests.support.images import decode_full_size


def decode_upright(data: bytes | bytearray, limits: Limits = LIMITS) -> Pixels:
    return decode_full_size(data, limits, limits.pixels).upright


# Pixels


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save_image(sample_image(), "PNG"), id="png"),
        pytest.param(save_image(sample_image(), "BMP"), id="bmp"),
        pytest.param(save_image(sample_image(), "TIFF"), id="tiff"),
        pytest.param(save_image(sample_image(), "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        pytest.param(
            save_image(sample_image(), "TIFF", compression="tiff_adobe_deflate"), id="tiff-deflate"
        ),
        pytest.param(save_image(sample_image(), "WEBP", lossless=True), id="webp"),
        pytest.param(bytearray(save_image(sample_image(), "PNG")), id="bytearray"),
    ],
)
def test_lossless_file_gives_the_source_pixels(data: bytes) -> None:
    assert np.array_equal(decode_upright(data), SAMPLE_RGB)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save_image(sample_image("L"), "PNG"), id="grey-png"),
        pytest.param(save_image(sample_image("L"), "JPEG"), id="grey-jpeg"),
        pytest.param(save_image(sample_image("L"), "TIFF"), id="grey-tiff"),
        pytest.param(save_image(sample_image("1"), "PNG"), id="1-bit-png"),
        pytest.param(save_image(sample_image("1"), "BMP"), id="1-bit-bmp"),
        pytest.param(save_image(sample_image("1"), "TIFF"), id="1-bit-tiff"),
        pytest.param(save_image(sample_image("P"), "PNG"), id="palette-png"),
        pytest.param(save_image(sample_image("P"), "BMP"), id="palette-bmp"),
        pytest.param(save_image(sample_image("P"), "GIF"), id="palette-gif"),
        pytest.param(save_image(sample_image("P"), "TIFF"), id="palette-tiff"),
        pytest.param(save_image(sample_image(), "JPEG", progressive=True), id="progressive-jpeg"),
        pytest.param(save_image(sample_image("CMYK"), "JPEG"), id="cmyk-jpeg"),
        pytest.param(save_image(sample_image("CMYK"), "TIFF"), id="cmyk-tiff"),
    ],
)
def test_every_kind_of_colour_becomes_rgb(data: bytes) -> None:
    assert max_difference(decode_upright(data), decode_with_pillow(data)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options", "lost"),
    [
        pytest.param("JPEG", {"quality": 95}, 12, id="jpeg"),
        pytest.param("PNG", {}, 0, id="png"),
        pytest.param("WEBP", {"lossless": True}, 0, id="webp"),
        pytest.param("TIFF", {}, 0, id="tiff"),
    ],
)
def test_photo_is_upright(
    format: str, options: dict[str, Any], lost: int, orientation: int
) -> None:
    data = save_image(sample_image(), format, exif=orientation_exif(orientation), **options)
    photo = decode_default(data)
    assert photo.orientation == orientation
    assert max_difference(photo.upright, decode_with_pillow(data)) <= 1
    assert max_difference(undo_orientation(photo.upright, orientation), SAMPLE_RGB) <= lost


def test_photo_without_orientation_is_as_stored() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        assert (
            decode_full_size(save_image(sample_image(), format), LIMITS, LIMITS.pixels).orientation
            == 1
        )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save_image(sample_image("RGBA"), "PNG"), id="png"),
        pytest.param(save_image(sample_image("RGBA"), "WEBP", lossless=True), id="webp"),
        pytest.param(
            save_image(sample_image("RGBA"), "WEBP", lossless=True, exact=True), id="webp-exact"
        ),
        pytest.param(save_image(sample_image("RGBA"), "TIFF"), id="tiff"),
        pytest.param(
            save_image(sample_image("RGBA"), "TIFF", compression="tiff_lzw"), id="tiff-lzw"
        ),
        # OpenCV does not write down that the fourth channel is alpha.
        pytest.param(encode_with_opencv(".tiff", SAMPLE_RGBA[..., [2, 1, 0, 3]]), id="tiff-opencv"),
        pytest.param(save_image(sample_image("LA"), "PNG"), id="grey-png"),
        pytest.param(
            save_image(sample_image("P"), "PNG", transparency=bytes(range(256))), id="palette-png"
        ),
        pytest.param(
            save_image(sample_image("P"), "PNG", transparency=30), id="palette-png-one-colour"
        ),
        pytest.param(save_image(sample_image("P"), "GIF", transparency=30), id="gif-one-colour"),
        pytest.param(
            save_image(sample_image(), "PNG", transparency=(27, 25, 26)), id="png-one-colour"
        ),
    ],
)
def test_transparency_lies_on_white(data: bytes) -> None:
    assert max_difference(decode_upright(data), decode_with_pillow(data)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [
        pytest.param("PNG", {}, id="png"),
        pytest.param("WEBP", {"lossless": True}, id="webp"),
        pytest.param("TIFF", {}, id="tiff"),
    ],
)
def test_photo_with_transparency_is_upright(
    format: str, options: dict[str, Any], orientation: int
) -> None:
    data = save_image(sample_image("RGBA"), format, exif=orientation_exif(orientation), **options)
    photo = decode_default(data)
    assert photo.orientation == orientation
    assert max_difference(photo.upright, decode_with_pillow(data)) <= 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_photo_with_transparency_is_upright(orientation: int) -> None:
    deep = SAMPLE_RGBA.astype(np.uint16) * 257
    plain = encode_with_opencv(".png", deep[..., [2, 1, 0, 3]])
    data = insert_png_chunk(
        plain, b"IDAT", b"eXIf", orientation_exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    )
    photo = decode_default(data)
    assert photo.orientation == orientation
    # Each value is 257 times one of 8 bits: nothing is lost on the way.
    alpha = SAMPLE_RGBA[..., 3:] / 255
    white = np.rint(SAMPLE_RGB * alpha + 255 * (1 - alpha))
    assert np.array_equal(photo.upright, apply_orientation(white.astype(np.uint8), orientation))


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_to_8(extension: str, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, channels), np.uint16)
    data = encode_with_opencv(extension, deep)
    expected = np.broadcast_to(np.rint(deep[..., ::-1] / 257), (32, 48, 3))
    assert max_difference(decode_upright(data), expected) <= 1


def test_16_bits_with_transparency_lie_on_white() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, 4), np.uint16)
    data = encode_with_opencv(".png", deep)
    alpha = deep[..., 3:] / 65535
    expected = np.rint(deep[..., 2::-1] / 257 * alpha + 255 * (1 - alpha))
    assert max_difference(decode_upright(data), expected) <= 1


def deep_tiff(pixels: NDArray[Any], extra: int) -> bytes:
    """(h, w, 4) of 16 bits -> a TIFF whose fourth channel is what ``extra`` says."""
    height, width = pixels.shape[:2]
    offset = 8 + 2 + 12 * 10 + 4
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 4, offset), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, offset + 8), (277, 3, 1, 4), (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes), (338, 3, 1, extra),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return header + entries + bytes(4) + struct.pack("<4H", 16, 16, 16, 16) + pixels.tobytes()


@pytest.mark.parametrize(("extra", "multiplied"), [(1, True), (2, False)])
def test_16_bits_of_tiff_with_transparency_lie_on_white(extra: int, multiplied: bool) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, 4)).astype(np.uint16)
    alpha = deep[..., 3:] / 65535
    expected = np.rint(deep[..., :3] / 257 * alpha + 255 * (1 - alpha))
    if multiplied:
        deep[..., :3] = np.rint(deep[..., :3] * alpha)
    # Where colours are multiplied, Pillow divides them by an alpha that may be small.
    assert max_difference(decode_upright(deep_tiff(deep, extra)), expected) <= 3


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        pytest.param("GIF", "RGB", {}, id="gif"),
        pytest.param("GIF", "RGBA", {}, id="gif-transparent"),
        pytest.param("WEBP", "RGB", {"lossless": True}, id="webp"),
        pytest.param("WEBP", "RGBA", {"lossless": True}, id="webp-transparent"),
        pytest.param("PNG", "RGB", {}, id="apng"),
        pytest.param("PNG", "RGBA", {}, id="apng-transparent"),
        pytest.param("TIFF", "RGB", {}, id="tiff-pages"),
        pytest.param("MPO", "RGB", {"quality": 95}, id="mpo"),
    ],
)
def test_animation_is_its_first_frame(format: str, mode: str, options: dict[str, Any]) -> None:
    first = sample_image(mode)
    second = first.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    data = save_image(first, format, save_all=True, append_images=[second], **options)
    assert max_difference(decode_upright(data), decode_with_pillow(data)) <= 1


# Invalid files


@pytest.mark.parametrize(
    ("format", "options"),
    [
        pytest.param("JPEG", {}, id="jpeg"),
        pytest.param("JPEG", {"progressive": True}, id="progressive-jpeg"),
        pytest.param("PNG", {}, id="png"),
        pytest.param("WEBP", {}, id="webp"),
        pytest.param("GIF", {}, id="gif"),
        pytest.param("BMP", {}, id="bmp"),
        pytest.param("TIFF", {}, id="tiff"),
    ],
)
def test_truncated_file_is_refused(format: str, options: dict[str, Any]) -> None:
    data = save_image(Image.fromarray(noise(90, 120, 3)), format, **options)
    with pytest.raises(RequestError) as error:
        decode_upright(data[: len(data) // 2])
    assert error.value.code == "invalid_image"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_with_damaged_data_is_refused(mode: str) -> None:
    data = bytearray(save_image(sample_image(mode), "PNG"))
    offset = data.index(b"IDAT") + 40
    data[offset : offset + 20] = bytes(20)
    with pytest.raises(RequestError) as error:
        decode_upright(data)
    assert error.value.code == "invalid_image"


TAG_BOMB = """
import struct
from pathlib import Path

from camserve.errors import RequestError
from camserve.images.decode import decode_photo
from camserve.images.header import read_header
from camserve.settings import Limits

SIZE, COUNT = 400_000, 1000
tags = [(256, 3, 1, 48), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
    (273, 4, 1, 8), (278, 3, 1, 32), (279, 4, 1, 48 * 32)]
offset = 8 + 2 + 12 * (len(tags) + COUNT) + 4
tags += [(1000 + n, 7, SIZE, offset) for n in range(COUNT)]
data = b"II*\\0" + struct.pack("<IH", 8, len(tags))
data += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4 + SIZE)


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


before = peak()
try:
    decode_photo(data, read_header(data, Limits(), Limits().pixels))
except RequestError:
    pass
print(peak() - before)
"""


def test_tiff_whose_tags_share_their_data_takes_no_more_memory_than_it_holds() -> None:
    # 400 kB that a thousand tags claim, each for itself.
    handler = Path(decode.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", TAG_BOMB],
        env={"PYTHONPATH": str(handler)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 50_000


# Metadata does not affect the pixels


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"no TIFF header", id="junk"),
        pytest.param(b"II*\0\x08\0\0\0\xff\xff", id="cut"),
        pytest.param(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06\0\0\0\0", id="long"),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_odd_exif_gives_one_orientation_with_and_without_transparency(
    format: str, exif: bytes
) -> None:
    def data(mode: str) -> bytes:
        picture = sample_image(mode)
        if format == "PNG":
            return insert_png_chunk(save_image(picture, "PNG"), b"IDAT", b"eXIf", exif)
        return save_image(picture, "WEBP", lossless=True, exif=b"Exif\0\0" + exif)

    photos = [decode_default(data(mode)) for mode in ("RGBA", "RGB")]
    assert photos[0].orientation == photos[1].orientation
    assert photos[0].upright.shape == photos[1].upright.shape


def test_text_bomb_after_the_pixels_is_not_unpacked() -> None:
    bomb = b"Comment\0\0" + zlib.compress(bytes(10_000_000))
    data = insert_png_chunk(save_image(sample_image("RGBA"), "PNG"), b"IEND", b"zTXt", bomb)
    expected = decode_with_pillow(save_image(sample_image("RGBA"), "PNG"))
    assert max_difference(decode_upright(data), expected) <= 1


# Hostile files

EVERY_FORMAT = get_args(PhotoFormat)
enable_decoders(EVERY_FORMAT)
FILES = {
    "jpeg": save_image(sample_image(), "JPEG", exif=orientation_exif(6)),
    "mpo": save_image(sample_image(), "MPO", save_all=True, append_images=[sample_image()]),
    "png": save_image(sample_image("RGBA"), "PNG"),
    "png-exif": save_image(sample_image("RGBA"), "PNG", exif=orientation_exif(6)),
    "png-palette": save_image(sample_image("P"), "PNG", transparency=3),
    "apng": save_image(
        sample_image("RGBA"), "PNG", save_all=True, append_images=[sample_image("LA")]
    ),
    "webp": save_image(sample_image(), "WEBP"),
    "webp-exif": save_image(sample_image("RGBA"), "WEBP", lossless=True, exif=orientation_exif(6)),
    "gif": save_image(sample_image("RGBA"), "GIF", save_all=True, append_images=[sample_image()]),
    "bmp": save_image(sample_image(), "BMP"),
    "tiff": save_image(sample_image("RGBA"), "TIFF", exif=orientation_exif(6)),
    "tiff-lzw": save_image(sample_image(), "TIFF", compression="tiff_lzw"),
    "tiff-deflate-16": save_image(
        Image.fromarray(noise(32, 48).astype(np.uint16) * 257), "TIFF", compression="tiff_deflate"
    ),
    "tiff-cmyk": save_image(sample_image("CMYK"), "TIFF", compression="lzma"),
    "avif": save_image(sample_image(), "AVIF"),
    "avif-alpha": save_image(sample_image("RGBA"), "AVIF", exif=orientation_exif(6)),
    "heic": save_image(sample_image(), "HEIF"),
    "heic-alpha": save_image(sample_image("RGBA"), "HEIF", icc_profile=rgb_profile()),
    "jpeg-profile": save_image(sample_image(), "JPEG", icc_profile=rgb_profile()),
    "jpeg-cmyk-profile": save_image(sample_image("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    "png-profile": save_image(sample_image("L"), "PNG", icc_profile=grey_profile(), transparency=7),
}


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    """Cut short, or with a few bytes changed; half of these in the header."""
    rng = random.Random(0)
    for _ in range(count):
        mutated = bytearray(data)
        if rng.random() < 0.15:
            yield data[: rng.randrange(len(data))]
            continue
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            offset = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 120))
            mutated[offset] = rng.choice((0, 255, rng.randrange(256)))
        yield bytes(mutated)


@pytest.mark.parametrize("name", FILES)
def test_mutated_file_gives_pixels_or_a_request_error(name: str) -> None:
    limits = Limits(pixels=1_000_000)
    for data in mutations(FILES[name], 60):
        try:
            header = read_header(data, limits, limits.pixels, EVERY_FORMAT)
            photo = decode_photo(data, header, icc="srgb")
        except RequestError:
            continue
        assert type(photo.orientation) is int
        assert photo.orientation in ORIENTATIONS
        crop, frame = resize_and_crop(photo, Preprocess())
        assert crop.shape == (224, 224, 3)
        assert crop.dtype == np.uint8
        pixels = output_background(photo, crop, frame, "original").pixels
        assert pixels.shape == (frame.height, frame.width, 3)
