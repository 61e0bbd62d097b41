"""Photos of every kind, hostile ones too: the pixels that come out, or the refusal."""

from __future__ import annotations

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.models import ResNet50_Weights

from camserve import pictures
from camserve.errors import RequestError
from camserve.pictures import decode, fit, open_picture
from camserve.settings import Limits, Preprocess

LIMITS = Limits()
ORIENTATION = 0x0112
PRESET = ResNet50_Weights.IMAGENET1K_V2.transforms()
BICUBIC = transforms.Compose(
    [
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
    ]
)


def gradient(width=48, height=32):
    """(height, width, 4) RGBA in which no two corners and no two channels are alike."""
    y, x = np.mgrid[:height, :width] / [[[height - 1]], [[width - 1]]]
    return np.rint(np.stack([x, y, (x + y) / 2, 1 - x], -1) * 255).astype(np.uint8)


RGBA = gradient()
RGB = np.ascontiguousarray(RGBA[..., :3])


def image(mode="RGB"):
    return Image.fromarray(RGBA if mode in ("LA", "RGBA") else RGB).convert(mode)


def save(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def oriented(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def by_pillow(data):
    """The upright photo on white, the first frame, as Pillow has it."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def difference(got, expected):
    assert got.shape == expected.shape
    assert got.dtype == np.uint8
    return np.abs(got.astype(int) - expected).max()


def chunk(kind, content, length=None):
    size = len(content) if length is None else length
    return struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width, height, length=None):
    """A PNG of 65 bytes: its header claims a size, its only data chunk a length."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b""), length)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def jpeg_claiming(width, height):
    data = bytearray(save(image(), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def with_chunk(png, before, kind, content):
    place = png.index(before) - 4
    return png[:place] + chunk(kind, content) + png[place:]


@pytest.fixture
def no_decoding(monkeypatch):
    """What must be refused by its header, before a decoder allocates what it claims."""

    def imdecode(*args):
        pytest.fail("the decoder was called")

    monkeypatch.setattr(pictures.cv2, "imdecode", imdecode)


# What a photo is


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save(image(), "PNG"), id="png"),
        pytest.param(save(image(), "BMP"), id="bmp"),
        pytest.param(save(image(), "TIFF"), id="tiff"),
        pytest.param(save(image(), "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        pytest.param(save(image(), "TIFF", compression="tiff_adobe_deflate"), id="tiff-deflate"),
        pytest.param(save(image(), "WEBP", lossless=True), id="webp"),
        pytest.param(bytearray(save(image(), "PNG")), id="bytearray"),
    ],
)
def test_lossless_file_gives_the_source_pixels(data):
    assert np.array_equal(decode(data, LIMITS), RGB)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save(image("L"), "PNG"), id="grey-png"),
        pytest.param(save(image("L"), "JPEG"), id="grey-jpeg"),
        pytest.param(save(image("L"), "TIFF"), id="grey-tiff"),
        pytest.param(save(image("1"), "PNG"), id="1-bit-png"),
        pytest.param(save(image("1"), "BMP"), id="1-bit-bmp"),
        pytest.param(save(image("1"), "TIFF"), id="1-bit-tiff"),
        pytest.param(save(image("P"), "PNG"), id="palette-png"),
        pytest.param(save(image("P"), "BMP"), id="palette-bmp"),
        pytest.param(save(image("P"), "GIF"), id="palette-gif"),
        pytest.param(save(image("P"), "TIFF"), id="palette-tiff"),
        pytest.param(save(image(), "JPEG", progressive=True), id="progressive-jpeg"),
        pytest.param(save(image("CMYK"), "JPEG"), id="cmyk-jpeg"),
        pytest.param(save(image("CMYK"), "TIFF"), id="cmyk-tiff"),
    ],
)
def test_every_kind_of_colour_becomes_rgb(data):
    assert difference(decode(data, LIMITS), by_pillow(data)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [
        pytest.param("JPEG", {"quality": 95}, id="jpeg"),
        pytest.param("PNG", {}, id="png"),
        pytest.param("WEBP", {"lossless": True}, id="webp"),
        pytest.param("TIFF", {}, id="tiff"),
    ],
)
def test_photo_is_upright(format, options, orientation):
    data = save(image(), format, exif=oriented(orientation), **options)
    assert difference(decode(data, LIMITS), by_pillow(data)) <= 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save(image("RGBA"), "PNG"), id="png"),
        pytest.param(save(image("RGBA"), "WEBP", lossless=True), id="webp"),
        pytest.param(save(image("RGBA"), "WEBP", lossless=True, exact=True), id="webp-exact"),
        pytest.param(save(image("RGBA"), "TIFF"), id="tiff"),
        pytest.param(save(image("RGBA"), "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        # OpenCV does not write down that the fourth channel is alpha.
        pytest.param(cv2.imencode(".tiff", RGBA[..., [2, 1, 0, 3]])[1].tobytes(), id="tiff-opencv"),
        pytest.param(save(image("LA"), "PNG"), id="grey-png"),
        pytest.param(save(image("P"), "PNG", transparency=bytes(range(256))), id="palette-png"),
        pytest.param(save(image("P"), "PNG", transparency=30), id="palette-png-one-colour"),
        pytest.param(save(image("P"), "GIF", transparency=30), id="gif-one-colour"),
        pytest.param(save(image(), "PNG", transparency=(27, 25, 26)), id="png-one-colour"),
    ],
)
def test_transparency_lies_on_white(data):
    assert difference(decode(data, LIMITS), by_pillow(data)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [
        pytest.param("PNG", {}, id="png"),
        pytest.param("WEBP", {"lossless": True}, id="webp"),
        pytest.param("TIFF", {}, id="tiff"),
    ],
)
def test_photo_with_transparency_is_upright(format, options, orientation):
    data = save(image("RGBA"), format, exif=oriented(orientation), **options)
    assert difference(decode(data, LIMITS), by_pillow(data)) <= 1


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_to_8(extension, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, channels), np.uint16)
    data = cv2.imencode(extension, deep)[1].tobytes()
    expected = np.broadcast_to(np.rint(deep[..., ::-1] / 257), (32, 48, 3))
    assert difference(decode(data, LIMITS), expected) <= 1


def test_16_bits_with_transparency_lie_on_white():
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, 4), np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    alpha = deep[..., 3:] / 65535
    expected = np.rint(deep[..., 2::-1] / 257 * alpha + 255 * (1 - alpha))
    assert difference(decode(data, LIMITS), expected) <= 1


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
def test_animation_is_its_first_frame(format, mode, options):
    first = image(mode)
    second = first.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    data = save(first, format, save_all=True, append_images=[second], **options)
    assert difference(decode(data, LIMITS), by_pillow(data)) <= 1


# What is refused


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
def test_truncated_file_is_refused(format, options):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    data = save(Image.fromarray(noise), format, **options)
    with pytest.raises(RequestError) as refusal:
        decode(data[: len(data) // 2], LIMITS)
    assert refusal.value.code == "invalid_image"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_with_damaged_data_is_refused(mode):
    data = bytearray(save(image(mode), "PNG"))
    place = data.index(b"IDAT") + 40
    data[place : place + 20] = bytes(20)
    with pytest.raises(RequestError) as refusal:
        decode(data, LIMITS)
    assert refusal.value.code == "invalid_image"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="zero-bytes"),
        pytest.param(b"not a photo", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"%PDF-1.7", id="pdf"),
        pytest.param(save(image(), "PPM"), id="ppm"),
        pytest.param(save(image(), "JPEG2000"), id="jpeg-2000"),
        pytest.param(save(image(), "ICO"), id="ico"),
    ],
)
@pytest.mark.usefixtures("no_decoding")
def test_other_than_the_six_formats_is_refused(data):
    with pytest.raises(RequestError, match="accepted: JPEG, PNG, WebP") as refusal:
        decode(data, LIMITS)
    assert refusal.value.code == "unsupported_format"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_claiming(30_000, 30_000), id="png-65-bytes"),
        pytest.param(png_claiming(10_000, 10_000), id="png-that-pillow-warns-of"),
        pytest.param(png_claiming(7_072, 7_072), id="png-just-above"),
        pytest.param(jpeg_claiming(20_000, 20_000), id="jpeg"),
    ],
)
@pytest.mark.usefixtures("no_decoding")
def test_bomb_is_refused_by_its_header(data):
    with pytest.raises(RequestError) as refusal:
        decode(data, LIMITS)
    assert refusal.value.code == "image_too_large"


@pytest.mark.parametrize("side", [8_000, 30_000])
def test_refusal_of_a_large_photo_says_what_is_accepted(side):
    with pytest.raises(RequestError, match=f"{side} x {side} pixels; accepted: .*50000000"):
        decode(png_claiming(side, side), LIMITS)


@pytest.mark.usefixtures("no_decoding")
def test_png_chunk_longer_than_the_file_is_refused_undecoded():
    # OpenCV would allocate the claimed length, up to 4 GB, before it reads on.
    with pytest.raises(RequestError) as refusal:
        decode(png_claiming(48, 32, length=0xFF000000), LIMITS)
    assert refusal.value.code == "invalid_image"


@pytest.mark.parametrize("limits", [Limits(pixels=48 * 32), Limits(aspect_ratio=1.5)])
def test_photo_at_the_limit_is_decoded(limits):
    assert decode(save(image(), "PNG"), limits).shape == RGB.shape


@pytest.mark.parametrize("limits", [Limits(pixels=48 * 32 - 1), Limits(aspect_ratio=1.49)])
@pytest.mark.parametrize("picture", [image(), image().transpose(Image.Transpose.ROTATE_90)])
@pytest.mark.usefixtures("no_decoding")
def test_photo_above_the_limit_is_refused(limits, picture):
    with pytest.raises(RequestError, match="accepted: ") as refusal:
        decode(save(picture, "PNG"), limits)
    assert refusal.value.code == "image_too_large"


# Metadata must not stand in the way of the photo


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"no TIFF header", id="junk"),
        pytest.param(b"II*\0\x08\0\0\0\xff\xff", id="cut"),
        pytest.param(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06\0\0\0\0", id="long"),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_odd_exif_turns_a_photo_the_same_with_and_without_transparency(format, exif):
    def data(mode):
        picture = image(mode)
        if format == "PNG":
            return with_chunk(save(picture, "PNG"), b"IDAT", b"eXIf", exif)
        return save(picture, "WEBP", lossless=True, exif=b"Exif\0\0" + exif)

    assert decode(data("RGBA"), LIMITS).shape == decode(data("RGB"), LIMITS).shape


def test_text_bomb_after_the_pixels_is_not_unpacked():
    bomb = b"Comment\0\0" + zlib.compress(bytes(10_000_000))
    data = with_chunk(save(image("RGBA"), "PNG"), b"IEND", b"zTXt", bomb)
    assert difference(decode(data, LIMITS), by_pillow(save(image("RGBA"), "PNG"))) <= 1


# What the network sees


SIZES = [
    pytest.param(451, 300, id="landscape-odd"),
    pytest.param(300, 451, id="portrait-odd"),
    pytest.param(97, 61, id="smaller-than-the-crop"),
    pytest.param(1, 20, id="one-column"),
    pytest.param(232, 232, id="no-resize"),
    pytest.param(1611, 1207, id="large"),
]


def noise(width, height):
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def normalised(crop, mean=PRESET.mean, std=PRESET.std):
    pixels = torch.from_numpy(crop.copy()).permute(2, 0, 1).float()
    return (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_input_equals_torchvisions_preset(width, height):
    photo = noise(width, height)
    crop, _ = fit(photo, Preprocess())
    expected = PRESET(Image.fromarray(photo))
    torch.testing.assert_close(normalised(crop), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_input_is_a_grey_level_from_the_preset_on_a_tensor(width, height):
    photo = noise(width, height)
    crop, _ = fit(photo, Preprocess())
    off = (normalised(crop) - PRESET(torch.from_numpy(photo).permute(2, 0, 1))).abs()
    level = 1 / 255 / torch.tensor(PRESET.std).view(3, 1, 1)
    assert (off <= level + 1e-5).all()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_bicubic_equals_torchvisions(width, height):
    photo = noise(width, height)
    crop, _ = fit(photo, Preprocess(resize=256, interpolation="bicubic"))
    assert np.array_equal(crop, np.asarray(BICUBIC(Image.fromarray(photo))))


def test_seen_by_hand():
    # 451 x 300 becomes 348 x 232; the square of 224 starts at (62, 4).
    _, frame = fit(noise(451, 300), Preprocess())
    assert (frame.width, frame.height) == (451, 300)
    across, down = 451 / 348, 300 / 232
    assert frame.seen == pytest.approx((62 * across, 4 * down, 286 * across, 228 * down))


def test_seen_of_a_square_is_all_where_nothing_is_cut():
    _, frame = fit(noise(500, 500), Preprocess(resize=224))
    assert frame.seen == pytest.approx((0, 0, 500, 500))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_seen_lies_within_the_photo(width, height):
    _, frame = fit(noise(width, height), Preprocess())
    x0, y0, x1, y1 = frame.seen
    assert 0 <= x0 < x1 <= width + 1e-9
    assert 0 <= y0 < y1 <= height + 1e-9


def test_open_picture_cuts_the_upright_photo():
    data = save(image(), "PNG", exif=oriented(6))
    picture = open_picture(data, Preprocess(), LIMITS)
    crop, frame = fit(np.rot90(RGB, -1), Preprocess())
    assert np.array_equal(picture.crop, crop)
    assert picture.frame == frame


# Hostile files

FILES = {
    "jpeg": save(image(), "JPEG", exif=oriented(6)),
    "mpo": save(image(), "MPO", save_all=True, append_images=[image()]),
    "png": save(image("RGBA"), "PNG"),
    "png-exif": save(image("RGBA"), "PNG", exif=oriented(6)),
    "png-palette": save(image("P"), "PNG", transparency=3),
    "apng": save(image("RGBA"), "PNG", save_all=True, append_images=[image("LA")]),
    "webp": save(image(), "WEBP"),
    "webp-exif": save(image("RGBA"), "WEBP", lossless=True, exif=oriented(6)),
    "gif": save(image("RGBA"), "GIF", save_all=True, append_images=[image()]),
    "bmp": save(image(), "BMP"),
    "tiff": save(image("RGBA"), "TIFF", exif=oriented(6)),
    "tiff-lzw": save(image(), "TIFF", compression="tiff_lzw"),
}


def mutations(data, count):
    """Cut short, or with a few bytes changed; half of these in the header."""
    rng = random.Random(0)
    for _ in range(count):
        mutated = bytearray(data)
        if rng.random() < 0.15:
            yield data[: rng.randrange(len(data))]
            continue
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            place = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 120))
            mutated[place] = rng.choice((0, 255, rng.randrange(256)))
        yield bytes(mutated)


@pytest.mark.parametrize("name", FILES)
def test_mutated_file_gives_pixels_or_a_request_error(name):
    limits = Limits(pixels=1_000_000)
    for data in mutations(FILES[name], 60):
        try:
            crop = open_picture(data, Preprocess(), limits).crop
        except RequestError:
            continue
        assert crop.shape == (224, 224, 3)
        assert crop.dtype == np.uint8
