"""Photos of every kind, hostile ones too: the pixels that come out, or the refusal."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.models import ResNet50_Weights

from camserve.errors import RequestError
from camserve.images import decode
from camserve.images.background import output_background, output_frame
from camserve.images.decode import DecodedPhoto
from camserve.images.geometry import (
    ORIENTATIONS,
    Box,
    InputFrame,
    apply_orientation,
    undo_orientation,
)
from camserve.images.preprocess import resize_and_crop
from camserve.settings import Limits, Preprocess
from tests.support.images import decode_full_size

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


def upright(data, limits=LIMITS):
    return decode_full_size(data, limits, limits.pixels).upright


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

    monkeypatch.setattr(decode.cv2, "imdecode", imdecode)


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
    assert np.array_equal(upright(data), RGB)


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
    assert difference(upright(data), by_pillow(data)) <= 1


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
def test_photo_is_upright(format, options, lost, orientation):
    data = save(image(), format, exif=oriented(orientation), **options)
    photo = decode_full_size(data, LIMITS, LIMITS.pixels)
    assert photo.orientation == orientation
    assert difference(photo.upright, by_pillow(data)) <= 1
    assert difference(undo_orientation(photo.upright, orientation), RGB) <= lost


def test_photo_without_orientation_is_as_stored():
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        assert decode_full_size(save(image(), format), LIMITS, LIMITS.pixels).orientation == 1


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
    assert difference(upright(data), by_pillow(data)) <= 1


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
    photo = decode_full_size(data, LIMITS, LIMITS.pixels)
    assert photo.orientation == orientation
    assert difference(photo.upright, by_pillow(data)) <= 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_photo_with_transparency_is_upright(orientation):
    deep = RGBA.astype(np.uint16) * 257
    plain = cv2.imencode(".png", deep[..., [2, 1, 0, 3]])[1].tobytes()
    data = with_chunk(
        plain, b"IDAT", b"eXIf", oriented(orientation).tobytes().removeprefix(b"Exif\0\0")
    )
    photo = decode_full_size(data, LIMITS, LIMITS.pixels)
    assert photo.orientation == orientation
    # Each value is 257 times one of 8 bits: nothing is lost on the way.
    alpha = RGBA[..., 3:] / 255
    white = np.rint(RGB * alpha + 255 * (1 - alpha))
    assert np.array_equal(photo.upright, apply_orientation(white.astype(np.uint8), orientation))


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_to_8(extension, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, channels), np.uint16)
    data = cv2.imencode(extension, deep)[1].tobytes()
    expected = np.broadcast_to(np.rint(deep[..., ::-1] / 257), (32, 48, 3))
    assert difference(upright(data), expected) <= 1


def test_16_bits_with_transparency_lie_on_white():
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, 4), np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    alpha = deep[..., 3:] / 65535
    expected = np.rint(deep[..., 2::-1] / 257 * alpha + 255 * (1 - alpha))
    assert difference(upright(data), expected) <= 1


def deep_tiff(pixels, extra):
    """(h, w, 4) of 16 bits -> a TIFF whose fourth channel is what ``extra`` says."""
    height, width = pixels.shape[:2]
    place = 8 + 2 + 12 * 10 + 4
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 4, place), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, place + 8), (277, 3, 1, 4), (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes), (338, 3, 1, extra),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return header + entries + bytes(4) + struct.pack("<4H", 16, 16, 16, 16) + pixels.tobytes()


@pytest.mark.parametrize(("extra", "multiplied"), [(1, True), (2, False)])
def test_16_bits_of_tiff_with_transparency_lie_on_white(extra, multiplied):
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, 4)).astype(np.uint16)
    alpha = deep[..., 3:] / 65535
    expected = np.rint(deep[..., :3] / 257 * alpha + 255 * (1 - alpha))
    if multiplied:
        deep[..., :3] = np.rint(deep[..., :3] * alpha)
    assert difference(upright(deep_tiff(deep, extra)), expected) <= 2


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
    assert difference(upright(data), by_pillow(data)) <= 1


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
        upright(data[: len(data) // 2])
    assert refusal.value.code == "invalid_image"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_with_damaged_data_is_refused(mode):
    data = bytearray(save(image(mode), "PNG"))
    place = data.index(b"IDAT") + 40
    data[place : place + 20] = bytes(20)
    with pytest.raises(RequestError) as refusal:
        upright(data)
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
        upright(data)
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
        upright(data)
    assert refusal.value.code == "image_too_large"


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
def test_each_limit_is_held_before_decoding(limits, message):
    with pytest.raises(RequestError, match=message) as refusal:
        upright(png_claiming(48, 32), limits)
    assert (refusal.value.code, refusal.value.status) == ("image_too_large", 413)


def test_opencv_has_limits_of_its_own():
    # For a file whose header tells it something else than it told Pillow. It reads them when it is
    # imported, which it was here before the handler.
    script = (
        "import sys, camserve.images.decode, cv2, numpy\n"
        "data = numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8)\n"
        "cv2.imdecode(data, cv2.IMREAD_COLOR)"
    )
    for size, limit in (((2**16 + 1, 1), "MAX_IMAGE_WIDTH"), ((2**15, 2**13), "MAX_IMAGE_PIXELS")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=png_claiming(*size),
            env={"PYTHONPATH": str(Path(decode.__file__).parents[2])},
            capture_output=True,
        )
        assert f"CV_IO_{limit}" in done.stderr.decode()


@pytest.mark.parametrize("side", [8_000, 30_000])
def test_refusal_of_a_large_photo_says_what_is_accepted(side):
    with pytest.raises(RequestError, match=f"{side} x {side}.*; accepted: "):
        upright(png_claiming(side, side))


@pytest.mark.usefixtures("no_decoding")
def test_png_chunk_longer_than_the_file_is_refused_undecoded():
    # OpenCV would allocate the claimed length, up to 4 GB, before it reads on.
    with pytest.raises(RequestError) as refusal:
        upright(png_claiming(48, 32, length=0xFF000000))
    assert refusal.value.code == "invalid_image"


@pytest.mark.parametrize("limits", [Limits(pixels=48 * 32), Limits(aspect_ratio=1.5)])
def test_photo_at_the_limit_is_decoded(limits):
    assert upright(save(image(), "PNG"), limits).shape == RGB.shape


@pytest.mark.parametrize("limits", [Limits(pixels=48 * 32 - 1), Limits(aspect_ratio=1.49)])
@pytest.mark.parametrize("picture", [image(), image().transpose(Image.Transpose.ROTATE_90)])
@pytest.mark.usefixtures("no_decoding")
def test_photo_above_the_limit_is_refused(limits, picture):
    with pytest.raises(RequestError, match="accepted: ") as refusal:
        upright(save(picture, "PNG"), limits)
    assert refusal.value.code == "image_too_large"


def test_photo_may_have_the_pixels_that_are_left():
    data = save(image(), "PNG")
    assert decode_full_size(data, LIMITS, 48 * 32).upright.shape == RGB.shape
    with pytest.raises(RequestError, match="up to 50000000 in all") as refusal:
        decode_full_size(data, LIMITS, 48 * 32 - 1)
    assert refusal.value.code == "image_too_large"


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
place = 8 + 2 + 12 * (len(tags) + COUNT) + 4
tags += [(1000 + n, 7, SIZE, place) for n in range(COUNT)]
data = b"II*\\0" + struct.pack("<IH", 8, len(tags))
data += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4 + SIZE)


def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


before = peak()
try:
    decode_photo(data, read_header(data, Limits(), Limits().pixels))
except RequestError:
    pass
print(peak() - before)
"""


def test_tiff_whose_tags_share_their_data_takes_no_more_memory_than_it_holds():
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

    photos = [decode_full_size(data(mode), LIMITS, LIMITS.pixels) for mode in ("RGBA", "RGB")]
    assert photos[0].orientation == photos[1].orientation
    assert photos[0].upright.shape == photos[1].upright.shape


def test_text_bomb_after_the_pixels_is_not_unpacked():
    bomb = b"Comment\0\0" + zlib.compress(bytes(10_000_000))
    data = with_chunk(save(image("RGBA"), "PNG"), b"IEND", b"zTXt", bomb)
    assert difference(upright(data), by_pillow(save(image("RGBA"), "PNG"))) <= 1


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
    crop, _ = resize_and_crop(DecodedPhoto(photo, 1), Preprocess())
    expected = PRESET(Image.fromarray(photo))
    torch.testing.assert_close(normalised(crop), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_input_is_a_grey_level_from_the_preset_on_a_tensor(width, height):
    photo = noise(width, height)
    crop, _ = resize_and_crop(DecodedPhoto(photo, 1), Preprocess())
    off = (normalised(crop) - PRESET(torch.from_numpy(photo).permute(2, 0, 1))).abs()
    level = 1 / 255 / torch.tensor(PRESET.std).view(3, 1, 1)
    assert (off <= level + 1e-5).all()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_bicubic_equals_torchvisions(width, height):
    photo = noise(width, height)
    crop, _ = resize_and_crop(
        DecodedPhoto(photo, 1), Preprocess(resize=256, interpolation="bicubic")
    )
    assert np.array_equal(crop, np.asarray(BICUBIC(Image.fromarray(photo))))


def test_seen_by_hand():
    # 451 x 300 becomes 348 x 232; the square of 224 starts at (62, 4).
    _, frame = resize_and_crop(DecodedPhoto(noise(451, 300), 1), Preprocess())
    assert (frame.width, frame.height) == (451, 300)
    across, down = 451 / 348, 300 / 232
    assert frame.visible_box == pytest.approx((62 * across, 4 * down, 286 * across, 228 * down))


def test_seen_of_a_square_is_all_where_nothing_is_cut():
    _, frame = resize_and_crop(DecodedPhoto(noise(500, 500), 1), Preprocess(resize=224))
    assert frame.visible_box == pytest.approx((0, 0, 500, 500))


FITS = ("crop", "stretch", "pad")
EXTREME = [*SIZES, pytest.param(400, 20, id="20-to-1"), pytest.param(20, 400, id="1-to-20")]


@pytest.mark.parametrize("orientation", [1, 7])
@pytest.mark.parametrize("fit_", FITS)
@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_seen_lies_within_the_photo(width, height, fit_, orientation):
    crop, frame = resize_and_crop(
        DecodedPhoto(noise(width, height), orientation), Preprocess(fit=fit_)
    )
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8
    assert frame.orientation == orientation
    assert frame.upright_size == (width, height)
    x0, y0, x1, y1 = frame.visible_box
    assert 0 <= x0 < x1 <= frame.width + 1e-9
    assert 0 <= y0 < y1 <= frame.height + 1e-9


@pytest.mark.parametrize("orientation", [1, 7])
@pytest.mark.parametrize("fit_", ["stretch", "pad"])
@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_all_is_seen_where_nothing_is_cropped(width, height, fit_, orientation):
    photo = DecodedPhoto(noise(width, height), orientation)
    _, frame = resize_and_crop(photo, Preprocess(fit=fit_))
    assert frame.visible_box == pytest.approx((0, 0, frame.width, frame.height))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_stretch_is_the_whole_photo_resized(width, height, interpolation):
    photo = noise(width, height)
    preprocess = Preprocess(fit="stretch", interpolation=interpolation)
    crop, frame = resize_and_crop(DecodedPhoto(photo, 1), preprocess)
    resample = Image.Resampling[interpolation.upper()]
    assert np.array_equal(crop, Image.fromarray(photo).resize((224, 224), resample))
    assert frame.input_box == pytest.approx((0, 0, width, height))


@pytest.mark.parametrize("fit_", ["stretch", "pad"])
def test_resize_is_of_no_account_where_nothing_is_cropped(fit_):
    photo = DecodedPhoto(noise(97, 61), 1)
    (one, frame), (other, same) = (
        resize_and_crop(photo, Preprocess(fit=fit_, resize=resize)) for resize in (100, 400)
    )
    assert np.array_equal(one, other)
    assert frame == same


def padded(width, height, **options):
    """A white photo in bars, and which pixels of the square are the bars'."""
    white = np.full((height, width, 3), 255, np.uint8)
    square, frame = resize_and_crop(DecodedPhoto(white, 1), Preprocess(fit="pad", **options))
    x0, y0, x1, y1 = frame.input_box
    side = len(square)
    across = x0 + (np.arange(side) + 0.5) * (x1 - x0) / side
    down = y0 + (np.arange(side) + 0.5) * (y1 - y0) / side
    outside = ((across < 0) | (across > width)) | ((down < 0) | (down > height))[:, None]
    return square, outside


@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_pad_keeps_the_whole_photo_and_its_shape(width, height):
    square, outside = padded(width, height)
    rows, columns = np.flatnonzero(~outside.all(1)), np.flatnonzero(~outside.all(0))
    # Pixels that the frame says are photo are, and the bars are bars, to the last pixel.
    assert (square[~outside] == 255).all()
    assert len(np.unique(square[outside], axis=0)) == (width != height)
    assert not (square[outside] == 255).any()
    scale = 224 / max(width, height)
    assert (len(columns), len(rows)) == (
        max(1, round(width * scale)),
        max(1, round(height * scale)),
    )
    # In the middle, to a pixel.
    for within in (rows, columns):
        assert abs(within[0] - (223 - within[-1])) <= 1


@pytest.mark.parametrize(
    ("mean", "std"),
    [(PRESET.mean, PRESET.std), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0, 0, 0), (1, 1, 1))],
)
@pytest.mark.parametrize("width", [451, 100])
def test_bars_are_zero_to_the_network(width, mean, std):
    square, outside = padded(width, 300, mean=mean, std=std)
    bars = normalised(square, mean, std)[:, torch.from_numpy(outside)]
    # Nearer than half a grey level they cannot be.
    half = 0.5 / 255 / torch.tensor(std)[:, None]
    assert bars.numel() > 1000
    assert (bars.abs() <= half + 1e-6).all()


def test_pad_shows_the_photo_as_resized():
    photo = noise(451, 300)
    square, _ = resize_and_crop(
        DecodedPhoto(photo, 1), Preprocess(fit="pad", interpolation="bicubic")
    )
    resized = Image.fromarray(photo).resize((224, 149), Image.Resampling.BICUBIC)
    # 75 rows of bars, of which the odd one is below: (149 - 224) / 2 is -37.5, rounded -38.
    assert np.array_equal(square[38:187], resized)


def test_window_reaches_over_the_bars():
    # 451 x 300 becomes 224 x 149, with 38 rows above and 37 below.
    _, frame = resize_and_crop(DecodedPhoto(noise(451, 300), 1), Preprocess(fit="pad"))
    down = 300 / 149
    assert frame.input_box == pytest.approx((0, -38 * down, 451, 186 * down))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit_", FITS)
@pytest.mark.parametrize(
    ("width", "height", "marker"),
    [
        pytest.param(451, 300, (131, 59, 152, 77), id="landscape"),
        pytest.param(301, 452, (190, 290, 215, 311), id="portrait"),
        pytest.param(97, 83, (20, 55, 27, 62), id="small"),
        pytest.param(1200, 1000, (701, 203, 760, 251), id="large"),
        pytest.param(20, 400, (3, 196, 9, 201), id="narrow"),
        pytest.param(400, 20, (203, 8, 209, 17), id="flat"),
    ],
)
def test_marker_lies_in_the_input_where_the_frame_says(width, height, marker, fit_, orientation):
    stored = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = marker
    stored[y0:y1, x0:x1] = 255
    square, frame = resize_and_crop(
        DecodedPhoto(apply_orientation(stored, orientation), orientation),
        Preprocess(fit=fit_, mean=(0, 0, 0)),
    )
    assert (frame.width, frame.height) == (width, height)
    grey = square[..., 0].astype(float)
    left, top, right, bottom = frame.input_box
    side = len(square)
    # The middle of its light, and as much light as it has room in the square.
    y, x = (float((np.arange(side) + 0.5) @ grey.sum(axis) / grey.sum()) for axis in (1, 0))
    across, down = (right - left) / side, (bottom - top) / side
    middle = Box(left + x * across, top + y * down, left + x * across, top + y * down)
    assert frame.to_file_box(middle)[:2] == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.5)
    room = grey.sum() / 255 * across * down
    assert room == pytest.approx((x1 - x0) * (y1 - y0), rel=0.05)


def test_fit_takes_the_upright_photo_and_keeps_the_files_frame():
    photo = decode_full_size(save(image(), "PNG", exif=oriented(6)), LIMITS, LIMITS.pixels)
    crop, frame = resize_and_crop(photo, Preprocess())
    expected, upright_frame = resize_and_crop(DecodedPhoto(np.rot90(RGB, -1), 1), Preprocess())
    assert np.array_equal(crop, expected)
    assert (frame.width, frame.height, frame.orientation) == (48, 32, 6)
    assert frame.input_box == upright_frame.input_box


# What a reply shows


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (451, 300, "original", (451, 300)),
        (451, 300, 451, (451, 300)),
        (451, 300, 100, (100, 67)),
        (300, 451, 100, (67, 100)),
        (451, 300, 902, (902, 600)),
        (451, 300, 1, (1, 1)),
        (400, 20, 10, (10, 1)),
        (20, 400, 8192, (410, 8192)),
        (1, 1, 8192, (8192, 8192)),
        (451, 300, "model", (224, 224)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_size_is_of_the_file(width, height, size, expected, orientation):
    frame = InputFrame(width, height, orientation, Box(1, 2, 15, 16))
    got = output_frame(frame, Preprocess(), size)
    assert (got.width, got.height) == expected
    assert got == (InputFrame.full(224, 224) if size == "model" else frame.scaled(*expected))


def seen_as(stored, orientation, size):
    preprocess = Preprocess()
    photo = DecodedPhoto(apply_orientation(stored, orientation), orientation)
    crop, frame = resize_and_crop(photo, preprocess)
    return crop, output_background(photo, crop, output_frame(frame, preprocess, size), size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_original_is_the_files_raster(orientation):
    stored = noise(45, 30)
    _, got = seen_as(stored, orientation, "original")
    assert np.array_equal(got.pixels, stored)
    assert (got.frame.width, got.frame.height) == (45, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [20, 45, 90, 101])
def test_other_sizes_are_the_files_raster_resized(orientation, size):
    stored = noise(45, 30)
    _, got = seen_as(stored, orientation, size)
    sides = (size, round(30 * size / 45))
    interpolation = cv2.INTER_AREA if size < 45 else cv2.INTER_LINEAR
    assert difference(got.pixels, cv2.resize(stored, sides, interpolation=interpolation)) <= 1
    assert (got.frame.width, got.frame.height) == sides


@pytest.mark.parametrize("orientation", range(1, 9))
def test_at_the_models_size_the_input_is_shown(orientation):
    crop, got = seen_as(noise(45, 30), orientation, "model")
    assert np.array_equal(got.pixels, crop)
    assert got.frame == InputFrame.full(224, 224)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20), (20, 1), (400, 20)])
@pytest.mark.parametrize("size", [1, 2, 399, 1000])
def test_no_photo_is_too_odd_to_be_shown(width, height, size):
    for orientation in (1, 8):
        _, got = seen_as(noise(width, height), orientation, size)
        assert got.pixels.shape == (got.frame.height, got.frame.width, 3)
        assert max(got.pixels.shape[:2]) == size


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
            photo = decode_full_size(data, limits, limits.pixels)
        except RequestError:
            continue
        assert type(photo.orientation) is int
        assert photo.orientation in ORIENTATIONS
        crop, frame = resize_and_crop(photo, Preprocess())
        assert crop.shape == (224, 224, 3)
        assert crop.dtype == np.uint8
        pixels = output_background(photo, crop, frame, "original").pixels
        assert pixels.shape == (frame.height, frame.width, 3)
