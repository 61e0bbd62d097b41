"""What a file's header rules out before the file is decoded."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import pytest
from PIL import Image

from camserve.errors import RequestError
from camserve.images import Pixels
from camserve.settings import Limits
from tests.support.image_files import LIMITS, SAMPLE_RGB, png_with_size, sample_image, save_image
from tests.support.images import decode_full_size


def decode_upright(data: bytes | bytearray, limits: Limits = LIMITS) -> Pixels:
    return decode_full_size(data, limits, limits.pixels).upright


def jpeg_with_size(width: int, height: int) -> bytes:
    data = bytearray(save_image(sample_image(), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that calls the decoder, which would allocate what the header claims."""

    def imdecode(*args: Any) -> None:
        pytest.fail("the decoder was called")

    monkeypatch.setattr(cv2, "imdecode", imdecode)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="zero-bytes"),
        pytest.param(b"not a photo", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"%PDF-1.7", id="pdf"),
        pytest.param(save_image(sample_image(), "PPM"), id="ppm"),
        pytest.param(save_image(sample_image(), "JPEG2000"), id="jpeg-2000"),
        pytest.param(save_image(sample_image(), "ICO"), id="ico"),
    ],
)
@pytest.mark.usefixtures("no_decoding")
def test_other_than_the_six_formats_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="accepted: JPEG, PNG, WebP") as error:
        decode_upright(data)
    assert error.value.code == "unsupported_format"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_with_size(30_000, 30_000), id="png-65-bytes"),
        pytest.param(png_with_size(10_000, 10_000), id="png-that-pillow-warns-of"),
        pytest.param(png_with_size(7_072, 7_072), id="png-just-above"),
        pytest.param(jpeg_with_size(20_000, 20_000), id="jpeg"),
    ],
)
@pytest.mark.usefixtures("no_decoding")
def test_bomb_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(RequestError) as error:
        decode_upright(data)
    assert error.value.code == "image_too_large"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(side=47), "48 x 32; accepted: sides of up to 47 pixels"),
        (Limits(pixels=48 * 32 - 1), "48 x 32 pixels; accepted: up to 1535"),
        (Limits(aspect_ratio=1.4), "48 x 32; accepted: .* 1.4 times"),
        (Limits(photo_bytes=64), "file has 65 bytes; accepted: up to 64"),
    ],
)
@pytest.mark.usefixtures("no_decoding")
def test_each_limit_is_held_before_decoding(limits: Limits, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        decode_upright(png_with_size(48, 32), limits)
    assert (error.value.code, error.value.status) == ("image_too_large", 413)


@pytest.mark.parametrize("side", [8_000, 30_000])
def test_refusal_of_a_large_photo_says_what_is_accepted(side: int) -> None:
    with pytest.raises(RequestError, match=f"{side} x {side}.*; accepted: "):
        decode_upright(png_with_size(side, side))


@pytest.mark.usefixtures("no_decoding")
def test_png_chunk_longer_than_the_file_is_refused_undecoded() -> None:
    # OpenCV would allocate the claimed length, up to 4 GB, before it reads on.
    with pytest.raises(RequestError) as error:
        decode_upright(png_with_size(48, 32, length=0xFF000000))
    assert error.value.code == "invalid_image"


@pytest.mark.parametrize("limits", [Limits(pixels=48 * 32), Limits(aspect_ratio=1.5)])
def test_photo_at_the_limit_is_decoded(limits: Limits) -> None:
    assert decode_upright(save_image(sample_image(), "PNG"), limits).shape == SAMPLE_RGB.shape


@pytest.mark.parametrize("limits", [Limits(pixels=48 * 32 - 1), Limits(aspect_ratio=1.49)])
@pytest.mark.parametrize(
    "picture", [sample_image(), sample_image().transpose(Image.Transpose.ROTATE_90)]
)
@pytest.mark.usefixtures("no_decoding")
def test_photo_above_the_limit_is_refused(limits: Limits, picture: Image.Image) -> None:
    with pytest.raises(RequestError, match="accepted: ") as error:
        decode_upright(save_image(picture, "PNG"), limits)
    assert error.value.code == "image_too_large"


def test_photo_may_have_the_pixels_that_are_left() -> None:
    data = save_image(sample_image(), "PNG")
    assert decode_full_size(data, LIMITS, 48 * 32).upright.shape == SAMPLE_RGB.shape
    with pytest.raises(RequestError, match="up to 50000000 in all") as error:
        decode_full_size(data, LIMITS, 48 * 32 - 1)
    assert error.value.code == "image_too_large"
