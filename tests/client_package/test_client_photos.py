"""A PIL image of any mode reaches the server with the pixels that it shows, or is an error.

The bytes that the client sends are decoded by the server's own code, and the pixels compared.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from camserve.images import decode_photo, read_header
from camserve.settings import DEFAULT_FORMATS, Limits
from camserve_client.photos import encode_photo
from tests.support.icc_profiles import cmyk_profile, grey_profile, rgb_profile
from tests.support.images import decode_full_size

LIMITS = Limits()
GENERATOR = np.random.default_rng(0)
DEEP = GENERATOR.integers(0, 65536, (20, 30)).astype(np.uint16)
GREY, ALPHA, INK = GENERATOR.integers(0, 256, (3, 20, 30)).astype(np.uint8)
RGB = GENERATOR.integers(0, 256, (20, 30, 3)).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
COLOURS = GENERATOR.integers(0, 256, (256, 4)).astype(np.uint8)
SIGNED = np.linspace(-1024, 2047, 600).astype(np.int32).reshape(20, 30)
LEVELS = np.linspace(0, 255, 600).astype(np.float32).reshape(20, 30)
ORIENTATION = 0x0112


def decoded(data: bytes) -> NDArray[Any]:
    return decode_full_size(data, LIMITS, LIMITS.pixels).upright.astype(int)


def grey(levels: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(levels[..., None], 3, -1)


def on_white(colours: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    part = alpha[..., None] / 255
    return np.rint(colours * part + 255 * (1 - part))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def raw(mode: str, pixels: NDArray[Any]) -> Image.Image:
    """An image of any mode from its stored bytes."""
    return Image.frombytes(mode, (30, 20), pixels.tobytes())


def of_palette(mode: str = "RGB") -> Image.Image:
    image = raw("P", GREY)
    image.putpalette(COLOURS[:, : len(mode)].tobytes(), mode)
    return image


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(raw("L", ALPHA))
    return image


def with_transparent(image: Image.Image, transparent: Any) -> Image.Image:
    image.info["transparency"] = transparent
    return image


def opened_as(kind: str, image: Image.Image) -> Image.Image:
    image.format = kind
    return image


#: For each mode: an image, its expected RGB pixels, and the tolerance.
MODES: dict[str, tuple[Image.Image, NDArray[Any], int]] = {
    "1": (raw("L", GREY).point(lambda level: 255 * (level > 99), "1"), grey(255 * (GREY > 99)), 0),
    "L": (raw("L", GREY), grey(GREY), 0),
    "LA": (with_alpha(raw("L", GREY)), on_white(grey(GREY), ALPHA), 1),
    "La": (with_alpha(raw("L", GREY)).convert("La"), on_white(grey(GREY), ALPHA), 2),
    "P": (of_palette(), COLOURS[GREY][..., :3], 0),
    "PA": (with_alpha(of_palette()), on_white(COLOURS[GREY][..., :3], ALPHA), 1),
    "RGB": (raw("RGB", RGB), RGB, 0),
    "RGBA": (raw("RGBA", RGBA), on_white(RGB, ALPHA), 1),
    "RGBa": (raw("RGBA", RGBA).convert("RGBa"), on_white(RGB, ALPHA), 2),
    # The fourth byte is unused.
    "RGBX": (raw("RGBX", RGBA), RGB, 0),
    "CMYK": (raw("CMYK", np.dstack([255 - RGB, 0 * GREY])), RGB, 0),
    "YCbCr": (raw("RGB", RGB).convert("YCbCr"), RGB, 3),
    "HSV": (raw("RGB", RGB).convert("HSV"), RGB, 7),
    # Eight bits a channel: one step of LAB is several of RGB.
    "LAB": (raw("RGB", RGB).convert("LAB"), RGB, 40),
    "I;16": (Image.fromarray(DEEP), grey(DEEP / 257), 1),
    "I;16L": (raw("I;16L", DEEP.astype("<u2")), grey(DEEP / 257), 1),
    "I;16B": (raw("I;16B", DEEP.astype(">u2")), grey(DEEP / 257), 1),
    "I;16N": (raw("I;16N", DEEP), grey(DEEP / 257), 1),
}


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_is_seen_as_it_looks(mode: str) -> None:
    image, looks, off = MODES[mode]
    assert image.mode == mode
    assert np.abs(decoded(encode_photo(image)) - looks).max() <= off


def test_every_mode_of_pillow_is_covered() -> None:
    assert {*MODES, "I", "F"} == {*Image.MODES}


@pytest.mark.parametrize(
    ("image", "looks"),
    [
        pytest.param(
            with_transparent(of_palette(), 7),
            on_white(COLOURS[GREY][..., :3], 255 * (GREY != 7)),
            id="palette-one-colour",
        ),
        pytest.param(
            with_transparent(of_palette(), COLOURS[:, 3].tobytes()),
            on_white(COLOURS[GREY][..., :3], COLOURS[GREY][..., 3]),
            id="palette-each-colour",
        ),
        pytest.param(
            of_palette("RGBA"),
            on_white(COLOURS[GREY][..., :3], COLOURS[GREY][..., 3]),
            id="palette-with-alpha",
        ),
        pytest.param(
            with_transparent(raw("L", GREY), 7), on_white(grey(GREY), 255 * (GREY != 7)), id="grey"
        ),
        pytest.param(
            with_transparent(raw("L", GREY // 128 * 255).convert("1"), 0),
            grey(0 * GREY + 255),
            id="1",
        ),
        pytest.param(
            with_transparent(raw("RGB", RGB // 128 * 255), (0, 255, 0)),
            on_white(RGB // 128 * 255, 255 * (RGB // 128 != [0, 1, 0]).any(-1)),
            id="rgb-one-colour",
        ),
    ],
)
def test_what_is_transparent_in_an_image_is_white(image: Image.Image, looks: NDArray[Any]) -> None:
    assert np.abs(decoded(encode_photo(image)) - looks).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("pixels", [DEEP, DEEP // 300, 0 * DEEP], ids=["all", "dark", "black"])
def test_16_bits_are_seen_as_those_of_their_file(kind: str, pixels: NDArray[Any]) -> None:
    file = saved(Image.fromarray(pixels), kind)
    sent = decoded(encode_photo(Image.open(io.BytesIO(file))))
    assert np.abs(sent - grey(pixels / 257)).max() <= 1
    readable = file if kind != "PPM" else saved(Image.fromarray(pixels), "PNG")
    assert np.array_equal(sent, decoded(readable))


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_16_bits_in_a_mode_of_32_are_read_as_in_their_file(kind: str) -> None:
    # As Pillow 10 opens a grey PNG of 16 bits.
    image = opened_as(kind, Image.fromarray(DEEP.astype(np.int32)))
    assert image.mode == "I"
    assert np.abs(decoded(encode_photo(image)) - grey(DEEP / 257)).max() <= 1


@pytest.mark.parametrize(
    ("image", "range_"),
    [
        pytest.param(Image.fromarray(SIGNED), "mode I .*-1024 to 2047", id="signed"),
        pytest.param(
            Image.open(io.BytesIO(saved(Image.fromarray(SIGNED), "TIFF"))),
            "-1024",
            id="signed-tiff",
        ),
        pytest.param(opened_as("PNG", Image.fromarray(SIGNED)), "-1024 to", id="below-a-png's"),
        pytest.param(opened_as("PNG", Image.fromarray(SIGNED + 70_000)), "to 72047", id="above"),
        pytest.param(Image.fromarray(DEEP.astype(np.int32)), "mode I ", id="no-file"),
        pytest.param(Image.fromarray(LEVELS), "mode F .* to 255", id="float-255"),
        pytest.param(Image.fromarray(LEVELS / 255), "mode F .* 0 to 1", id="float-1"),
        pytest.param(Image.fromarray(LEVELS * np.float32("nan")), "mode F .*nan", id="nan"),
    ],
)
def test_an_image_of_a_mode_without_a_defined_white_is_an_error(
    image: Image.Image, range_: str
) -> None:
    with pytest.raises(ValueError, match=f"{range_}.*; accepted: modes of 8 or 16 bits"):
        encode_photo(image)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16B", "La"])
def test_an_image_of_any_mode_keeps_its_orientation(mode: str) -> None:
    image, looks, off = MODES[mode]
    exif = image.getexif()
    exif[ORIENTATION] = 6
    try:
        got = decoded(encode_photo(image))
    finally:
        del exif[ORIENTATION]
    assert np.abs(got - np.rot90(looks, -1)).max() <= off


# Arrays


@pytest.mark.parametrize(
    ("pixels", "looks"),
    [
        pytest.param(RGB, RGB, id="rgb"),
        pytest.param(RGB[:, ::-1], RGB[:, ::-1], id="a-view"),
        pytest.param(RGBA, on_white(RGB, ALPHA), id="rgba"),
        pytest.param(GREY, grey(GREY), id="grey"),
        pytest.param(GREY[..., None], grey(GREY), id="grey-of-one-channel"),
        pytest.param(DEEP, grey(DEEP / 257), id="uint16"),
        pytest.param(DEEP.astype(">u2"), grey(DEEP / 257), id="uint16-big-endian"),
        pytest.param(RGB.astype(np.uint16) * 257, RGB, id="uint16-rgb"),
        pytest.param(GREY > 99, grey(255 * (GREY > 99)), id="bool"),
        pytest.param(RGB > 99, 255 * (RGB > 99), id="bool-rgb"),
        pytest.param(RGB / 255, RGB, id="float64"),
        pytest.param((RGB / 255).astype(np.float32), RGB, id="float32"),
        pytest.param((RGBA / 255).astype(np.float32), on_white(RGB, ALPHA), id="float32-rgba"),
        pytest.param((GREY / 255).astype(np.float16), grey(GREY), id="float16"),
    ],
)
def test_an_array_is_seen_as_it_looks(pixels: NDArray[Any], looks: NDArray[Any]) -> None:
    assert np.abs(decoded(encode_photo(pixels)) - looks).max() <= 1


# Files


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def packed(levels: NDArray[Any]) -> bytes:
    """(h, w) of 12 bits as a TIFF, two levels in three bytes."""
    planes = (levels[..., None] >> np.arange(11, -1, -1)) & 1
    rows = np.packbits(planes.reshape(len(levels), -1).astype(np.uint8), axis=1)
    data = bytearray(tiff(rows, photometric="minisblack", rowsperstrip=len(rows)))
    for tag, value in ((256, levels.shape[1]), (258, 12)):
        at = next(
            start + 8
            for start in range(len(data))
            if data[start : start + 2] == struct.pack("<H", tag)
            and data[start + 4 : start + 8] == struct.pack("<I", 1)
        )
        struct.pack_into("<H", data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(packed(DEEP >> 4), id="12-bits"),
        pytest.param(tiff(DEEP, photometric="miniswhite"), id="0-is-white"),
        pytest.param(tiff(DEEP, byteorder=">"), id="big-endian"),
        pytest.param(tiff(np.dstack([DEEP] * 3), photometric="rgb"), id="rgb-16"),
        pytest.param(
            tiff(np.dstack([GREY, ALPHA]), planarconfig="contig", extrasamples=["unassalpha"]),
            id="grey-and-alpha",
        ),
        pytest.param(saved(raw("CMYK", RGBA), "TIFF"), id="cmyk-tiff"),
        pytest.param(saved(raw("CMYK", RGBA), "JPEG", quality=95), id="cmyk-jpeg"),
        pytest.param(saved(raw("L", GREY).convert("1"), "TIFF"), id="1-bit"),
        pytest.param(saved(raw("RGB", RGB), "AVIF"), id="avif"),
    ],
)
def test_an_opened_file_is_seen_as_the_file(file: bytes) -> None:
    limits = Limits()
    header = read_header(file, limits, limits.pixels, (*DEFAULT_FORMATS, "avif"))
    as_file = decode_photo(file, header).upright.astype(int)
    # Pillow and libjpeg round CMYK in different ways.
    assert np.abs(decoded(encode_photo(Image.open(io.BytesIO(file)))) - as_file).max() <= 2


@pytest.mark.parametrize("profile", [rgb_profile(), grey_profile()])
def test_a_profile_goes_with_the_colours_that_it_describes(profile: bytes) -> None:
    mode = "L" if profile[16:20] == b"GRAY" else "RGB"
    for kind in ("PNG", "JPEG", "TIFF"):
        image = Image.open(
            io.BytesIO(saved(raw(mode, GREY if mode == "L" else RGB), kind, icc_profile=profile))
        )
        sent = Image.open(io.BytesIO(encode_photo(image)))
        assert sent.info["icc_profile"] == profile


def test_a_profile_of_other_colours_is_left_out() -> None:
    image = Image.open(io.BytesIO(saved(raw("CMYK", RGBA), "JPEG", icc_profile=cmyk_profile())))
    assert "icc_profile" in image.info
    assert "icc_profile" not in Image.open(io.BytesIO(encode_photo(image))).info


def test_a_transparent_colour_of_16_bits_stays_transparent() -> None:
    colors = np.zeros((20, 30, 3), np.uint16)
    colors[:, 10:] = 40_000
    chunk = b"tRNS" + struct.pack(">3H", 40_000, 40_000, 40_000)
    # OpenCV writes PNGs of 16 bits and three channels, which Pillow does not.
    plain = cv2.imencode(".png", colors)[1].tobytes()
    at = plain.index(b"IDAT") - 4
    crc = struct.pack(">I", zlib.crc32(chunk))
    file = plain[:at] + struct.pack(">I", 6) + chunk + crc + plain[at:]
    as_file = decoded(file)
    assert as_file[0, 20].tolist() == [255, 255, 255]
    assert np.array_equal(decoded(encode_photo(Image.open(io.BytesIO(file)))), as_file)
