"""Colour profiles: named, converted where the operator says so, and carried by pictures."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from camserve.images import DecodedPhoto, decode_photo, read_header
from camserve.images.background import output_background
from camserve.images.color_profile import MAX_PROFILE_BYTES, read_profile
from camserve.images.preprocess import resize_and_crop
from camserve.images.render import encode
from camserve.settings import Preprocess
from tests.support.icc_profiles import cmyk_profile, grey_profile, lab_profile, rgb_profile
from tests.support.image_files import (
    LIMITS,
    SAMPLE_RGB,
    insert_png_chunk,
    max_difference,
    noise,
    sample_image,
    save_image,
)

RGB, GREY, CMYK = rgb_profile(), grey_profile(), cmyk_profile()
SRGB = ImageCms.createProfile("sRGB")


def decode(data: bytes, **options: Any) -> DecodedPhoto:
    return decode_photo(data, read_header(data, LIMITS, LIMITS.pixels), **options)


def converted_by_pillow(image: Image.Image, profile: bytes) -> NDArray[Any]:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    result = ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB")
    assert result is not None
    return np.asarray(result)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_profile_is_ignored_by_default_and_converted_from_on_demand(
    format: str, options: dict[str, Any]
) -> None:
    plain = save_image(sample_image(), format, **options)
    data = save_image(sample_image(), format, icc_profile=RGB, **options)
    ignored = decode(data)
    assert np.array_equal(ignored.upright, decode(plain).upright)
    assert ignored.profile is not None
    assert (ignored.profile.name, ignored.profile.data) == ("Swapped", RGB)
    photo = decode(data, icc="srgb")
    assert (photo.profile, photo.warnings) == (None, ())
    assert (
        max_difference(photo.upright, converted_by_pillow(Image.fromarray(ignored.upright), RGB))
        <= 1
    )
    # By construction: red and green are exchanged, and gamma 2.2 is nearly sRGB's curve.
    exchanged = ignored.upright[..., [1, 0, 2]].astype(int)
    assert np.abs(photo.upright - exchanged).mean() < 4


def test_a_photo_without_a_profile_is_as_it_is() -> None:
    photo = decode(save_image(sample_image(), "PNG"), icc="srgb")
    assert np.array_equal(photo.upright, SAMPLE_RGB)
    assert (photo.profile, photo.warnings) == (None, ())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_a_profile_of_grey_is_converted_from(format: str) -> None:
    image = sample_image("L")
    photo = decode(save_image(image, format, icc_profile=GREY), icc="srgb")
    levels = np.asarray(Image.fromarray(decode(save_image(image, format)).upright).convert("L"))
    assert max_difference(photo.upright, converted_by_pillow(Image.fromarray(levels), GREY)) <= 1
    # Proportional to light: the middle is much brighter as sRGB writes it.
    middle = photo.upright[np.isin(levels, range(120, 136))]
    assert 180 < middle.mean() < 196


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_profile_of_cmyk_is_converted_from(format: str) -> None:
    colors = np.zeros((32, 48, 4), np.uint8)
    colors[:, :16, 0] = 255
    colors[:, 32:, 3] = 255
    image = Image.frombytes("CMYK", (48, 32), colors.tobytes())
    data = save_image(
        image, format, icc_profile=CMYK, **({} if format == "TIFF" else {"quality": 100})
    )
    pixels = decode(data, icc="srgb").upright
    assert np.abs(pixels[8, 8].astype(int) - (255, 0, 0)).max() < 40
    assert pixels[8, 24].min() > 245
    assert pixels[8, 40].max() < 10
    # Without the profile, cyan is cyan.
    assert np.abs(decode(data).upright[8, 8].astype(int) - (0, 255, 255)).max() < 8


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", GREY), ("RGB", CMYK), ("L", CMYK), ("RGB", lab_profile()[:64]), ("RGB", b"junk")],
    ids=["grey-for-colour", "cmyk-for-colour", "cmyk-for-grey", "cut", "junk"],
)
def test_a_profile_that_does_not_fit_is_told(mode: str, profile: bytes) -> None:
    data = save_image(sample_image(mode), "PNG", icc_profile=profile)
    plain = decode(save_image(sample_image(mode), "PNG"))
    photo = decode(data, icc="srgb")
    assert np.array_equal(photo.upright, plain.upright)
    assert photo.warnings == ("profile_not_applied",)
    assert decode(data).warnings == ()


def test_what_is_no_profile_of_a_photo_has_no_name() -> None:
    assert read_profile(b"") is None
    assert read_profile(None) is None
    assert read_profile(b"junk") is None
    assert read_profile(lab_profile()) is None
    assert read_profile(RGB + bytes(MAX_PROFILE_BYTES)) is None


def test_a_name_is_one_short_line() -> None:
    profile = read_profile(rgb_profile("a\n[METRICS]b\x1b[31m" + "x" * 1000))
    assert profile is not None
    assert profile.name == "a[METRICS]b[31m" + "x" * 85


def test_a_profile_that_unpacks_to_a_bomb_is_left_out() -> None:
    bomb = b"bomb\0\0" + zlib.compress(bytes(50_000_000))
    data = insert_png_chunk(save_image(sample_image(), "PNG"), b"IDAT", b"iCCP", bomb)
    photo = decode(data)
    assert np.array_equal(photo.upright, SAMPLE_RGB)
    assert photo.profile is None


# Pictures


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("size", "icc", "carried"),
    [("original", "ignore", True), ("original", "srgb", False), ("model", "ignore", False)],
)
def test_a_picture_at_the_photos_size_carries_its_profile(
    size: Any, icc: Any, carried: bool, format: str
) -> None:
    data = save_image(Image.fromarray(noise(240, 300, 3)), format, icc_profile=RGB)
    photo = decode(data, icc=icc)
    crop, frame = resize_and_crop(photo, Preprocess())
    assert output_background(photo, crop, frame, size).profile == (RGB if carried else b"")


@pytest.mark.parametrize("profile", [GREY, CMYK])
def test_a_profile_of_other_colours_is_not_carried(profile: bytes) -> None:
    data = save_image(sample_image("L"), "PNG", icc_profile=profile)
    photo = decode(data)
    crop, frame = resize_and_crop(photo, Preprocess())
    assert output_background(photo, crop, frame, "original").profile == b""


@pytest.mark.parametrize("profile", [RGB, RGB + b"\0", RGB + noise(200_000).tobytes()])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_any_reader_finds_the_profile_in_a_picture(image_format: Any, profile: bytes) -> None:
    picture = noise(33, 47, 3)
    plain, data = encode(picture, image_format), encode(picture, image_format, profile=profile)
    with Image.open(io.BytesIO(data.data)) as image, Image.open(io.BytesIO(plain.data)) as other:
        assert image.info["icc_profile"] == profile
        assert image.size == (47, 33)
        assert np.array_equal(np.asarray(image), np.asarray(other))
    assert (data.width, data.height, data.media_type) == (47, 33, plain.media_type)


def test_a_profile_that_a_jpeg_cannot_hold_is_left_out() -> None:
    picture, profile = noise(8, 8, 3), bytes(17_000_000)
    assert encode(picture, "jpeg", profile=profile).data == encode(picture, "jpeg").data
