"""Large JPEGs decoded at 1/2, 1/4 or 1/8 of their size: when, and that replies do not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camserve import photo_preparation
from camserve.errors import RequestError
from camserve.images import Pixels, background, decode, header
from camserve.images.geometry import ORIENTATIONS
from camserve.images.header import ImageHeader, read_header
from camserve.images.preprocess import downscale_factor, resize_and_crop
from camserve.options import Size
from camserve.pipeline import Pipeline
from camserve.settings import Limits, PhotoFormat, Preprocess
from camserve_cli.sample_photos import sample_photo
from tests.support import request_builders
from tests.support.contract import decoded
from tests.support.image_files import orientation_exif, save_image

PRESET = Preprocess()  # the shorter side to 232, 224 cut out: 696 pixels are kept at least
STRETCH = Preprocess(fit="stretch")  # 672
PAD = Preprocess(fit="pad")  # 672
FINE = Preprocess(resize=512, crop=448)  # 1536


# When


@pytest.mark.parametrize(
    ("preprocess", "width", "height", "size", "expected"),
    [
        # By the shorter side, on each side of each step.
        (PRESET, 696, 696, "model", 1),
        (PRESET, 1391, 1391, "model", 1),
        (PRESET, 1392, 1392, "model", 2),
        (PRESET, 2783, 2783, "model", 2),
        (PRESET, 2784, 2784, "model", 4),
        (PRESET, 5567, 5567, "model", 4),
        (PRESET, 5568, 5568, "model", 8),
        (PRESET, 9000, 9000, "model", 8),
        (PRESET, 9000, 1391, "model", 1),
        (PRESET, 1391, 9000, "model", 1),
        (PRESET, 9000, 1392, "model", 2),
        (PRESET, 1392, 9000, "model", 2),
        (PRESET, 4000, 3000, "model", 4),
        (STRETCH, 1343, 3000, "model", 1),
        (STRETCH, 1344, 1344, "model", 2),
        (STRETCH, 2688, 2688, "model", 4),
        (STRETCH, 5376, 5376, "model", 8),
        (STRETCH, 5375, 5376, "model", 4),
        (PAD, 1343, 1343, "model", 1),
        (PAD, 1344, 1344, "model", 2),
        (PAD, 5376, 5376, "model", 8),
        (FINE, 3071, 3071, "model", 1),
        (FINE, 3072, 3072, "model", 2),
        (FINE, 12288, 12288, "model", 8),
        (Preprocess(resize=4096, crop=4096), 24575, 24575, "model", 1),
        # Pictures as large as the photo need all of it.
        (PRESET, 9000, 9000, "original", 1),
        # Pictures of a size need that of the longer side too.
        (PRESET, 4000, 3000, 1, 4),
        (PRESET, 4000, 3000, 1000, 4),
        (PRESET, 4000, 3000, 1001, 2),
        (PRESET, 4000, 3000, 2000, 2),
        (PRESET, 4000, 3000, 2001, 1),
        (PRESET, 4000, 3000, 8192, 1),
        (PRESET, 3000, 4000, 1000, 4),
        (PRESET, 3000, 4000, 1001, 2),
        (PRESET, 5568, 5568, 696, 8),
        (PRESET, 5568, 5568, 697, 4),
        (PRESET, 5567, 5567, 1, 4),
        (PRESET, 8000, 1392, 8000, 1),
    ],
)
def test_a_jpeg_is_downscaled_to_no_less_than_three_times_what_is_needed(
    preprocess: Preprocess, width: int, height: int, size: Size, expected: int
) -> None:
    for orientation in ORIENTATIONS:
        header = ImageHeader("jpeg", width, height, orientation, False)
        assert downscale_factor(header, preprocess, size) == expected


FLAT = {"crop": [128, 256]}


@pytest.mark.parametrize(
    ("preprocess", "upright", "expected"),
    [
        # Three times 256 x 128, on each side of each step, along each axis.
        *(
            (Preprocess(**FLAT, **section), upright, expected)
            for section in ({"fit": "stretch"}, {"fit": "pad"}, {"resize": [128, 256]})
            for upright, expected in (
                ((1536, 768), 2),
                ((1535, 768), 1),
                ((1536, 767), 1),
                ((768, 1536), 1),
                ((3072, 1536), 4),
                ((3071, 9000), 2),
                ((9000, 1535), 2),
                ((6144, 3072), 8),
            )
        ),
        # A number is the shorter side, whichever that is.
        (Preprocess(**FLAT, resize=256), (1536, 1536), 2),
        (Preprocess(**FLAT, resize=256), (1535, 9000), 1),
        (Preprocess(**FLAT, resize=256), (9000, 1535), 1),
    ],
)
def test_each_side_of_the_upright_photo_is_three_times_what_is_needed(
    preprocess: Preprocess, upright: tuple[int, int], expected: int
) -> None:
    for orientation in ORIENTATIONS:
        width, height = upright if orientation < 5 else upright[::-1]
        header = ImageHeader("jpeg", width, height, orientation, False)
        assert downscale_factor(header, preprocess, "model") == expected


@pytest.mark.parametrize("format", ["png", "webp", "gif", "bmp", "tiff", "heic", "avif"])
def test_no_other_format_is_downscaled(format: PhotoFormat) -> None:
    assert downscale_factor(ImageHeader(format, 8000, 8000, 1, False), PRESET, "model") == 1


@pytest.mark.parametrize("preprocess", [PRESET, STRETCH, PAD, FINE, Preprocess(resize=1, crop=1)])
def test_the_largest_sufficient_denominator_is_used(preprocess: Preprocess) -> None:
    rng = np.random.default_rng(0)
    needed = 3 * (preprocess.resize if preprocess.fit == "crop" else preprocess.crop)
    for width, height, size in rng.integers(1, 14000, (3000, 3)).tolist():
        shorter, longer = sorted((width, height))
        enough = [n for n in (2, 4, 8) if shorter // n >= needed and longer // n >= size]
        header = ImageHeader("jpeg", width, height, 1, False)
        assert downscale_factor(header, preprocess, size) == max(enough, default=1)


# What comes of it


@cache
def scene(width: int, height: int) -> Pixels:
    """A photo of that size, (height, width, 3) RGB, with as fine a detail as a camera's."""
    coffee = cv2.imread(str(sample_photo("coffee.png")), cv2.IMREAD_COLOR_RGB)
    assert coffee is not None
    # No mirrored half is like the other, nor the upper like the lower.
    large = cv2.resize(coffee, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    return np.clip(large + grain, 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, orientation: int = 1, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.fromarray(pixels).convert(mode)
    exif = orientation_exif(orientation)
    return save_image(image, "JPEG", **{"quality": 90, "exif": exif, **options})


SMALL = Preprocess(resize=48, crop=44)  # 144 are kept: 288, 576 and 1152 for steps 2, 4 and 8
FITS = {
    "crop": SMALL,
    "stretch": Preprocess(fit="stretch", crop=48),
    "pad": Preprocess(fit="pad", crop=48),
    "bicubic": Preprocess(resize=48, crop=44, interpolation="bicubic"),
    "both sides": Preprocess(resize=[33, 48], crop=[30, 44]),
    "a strip": Preprocess(fit="stretch", crop=[24, 48]),
}
FILES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "of whole blocks": ((640, 480), {}),
    "a pixel over": ((641, 481), {}),
    "a pixel short": ((655, 495), {}),
    "odd": ((701, 309), {}),
    "tall": ((301, 635), {}),
    "by 4": ((1001, 581), {}),
    "by 8": ((1161, 1155), {}),
    "by 8, tall": ((1153, 1447), {}),
    "grey": ((645, 483), {"mode": "L"}),
    "CMYK": ((645, 483), {"mode": "CMYK"}),
    "progressive": ((645, 483), {"progressive": True}),
    "no subsampling": ((645, 483), {"subsampling": 0}),
    "coarse": ((645, 483), {"quality": 50}),
    **{f"turned, {n}": ((645, 487), {"orientation": n}) for n in sorted(ORIENTATIONS)},
    **{f"turned, {n}, by 8": ((1161, 1159), {"orientation": n}) for n in (3, 6, 8)},
}


@cache
def file(name: str) -> bytes:
    size, options = FILES[name]
    return jpeg(scene(*size), **options)


def prepare(
    data: bytes, preprocess: Preprocess, size: Size, denominator: int
) -> photo_preparation.PreparedPhoto:
    """A photo prepared for the network, decoded at 1/``denominator`` of its size."""
    header = read_header(data, Limits(), 10**8)
    photo = decode.decode_photo(data, header, denominator)
    crop, frame = resize_and_crop(photo, preprocess)
    shown = background.output_frame(frame, preprocess, size)
    view = background.output_background(photo, crop, shown, size)
    of_no_request: Any = None
    return photo_preparation.PreparedPhoto(
        crop, frame, view, of_no_request, of_no_request, of_no_request, 0, (), ""
    )


def differences(downscaled: Pixels, exact: Pixels) -> NDArray[np.int64]:
    assert downscaled.shape == exact.shape
    assert downscaled.dtype == np.uint8
    return cast(NDArray[np.int64], np.abs(downscaled.astype(np.int64) - exact))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", FILES)
def test_the_network_input_is_nearly_the_same(name: str, fit: str) -> None:
    denominator = downscale_factor(read_header(file(name), Limits(), 10**8), FITS[fit], "model")
    assert denominator > 1
    downscaled = prepare(file(name), FITS[fit], "model", denominator)
    exact = prepare(file(name), FITS[fit], "model", 1)
    difference = differences(downscaled.network_input, exact.network_input)
    # Two filters, one after the other, are not quite the one that both are to be: where an edge is
    # sharp, some levels. A shift by a fourth of the network's pixels would be a mean of 1 and more.
    assert difference.mean() < 0.8
    assert np.quantile(difference, 0.99) <= 6
    assert difference.max() <= 24
    assert downscaled.frame == exact.frame


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
@pytest.mark.parametrize("denominator", [2, 4, 8])
def test_the_crop_is_not_shifted(denominator: int, orientation: int) -> None:
    """On a ramp, a shift is a difference of so many levels everywhere."""
    # One pixel over a whole number of blocks: the last decoded pixel covers 1 of 8.
    width, height = 1153 + 8 * 6, 1153
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 0 * x], -1)
    data = jpeg(np.rint(ramp).astype(np.uint8), orientation, quality=98, subsampling=0)
    exact, downscaled = (
        prepare(data, SMALL, "model", step).network_input.astype(float) for step in (1, denominator)
    )
    # A pixel of the network's has 255 / 48 = 5.3 levels. The ramps are even, so their means say
    # where the crop lies: to a twentieth of a pixel.
    shift = (downscaled - exact)[..., :2].mean((0, 1)) / (255 / 48)
    assert np.abs(shift).max() < 0.05


@pytest.mark.parametrize("size", [100, 240, "original"])
@pytest.mark.parametrize("name", ["a pixel over", "tall", "grey", "turned, 3", "turned, 6", "by 8"])
def test_pictures_have_the_size_asked_for_and_show_the_same(name: str, size: Size) -> None:
    header = read_header(file(name), Limits(), 10**8)
    denominator = downscale_factor(header, SMALL, size)
    assert (denominator > 1) is (size != "original")
    downscaled = prepare(file(name), SMALL, size, denominator)
    exact = prepare(file(name), SMALL, size, 1)
    assert downscaled.background.frame == exact.background.frame
    height, width = downscaled.background.pixels.shape[:2]
    assert (width, height) == (
        downscaled.background.frame.width,
        downscaled.background.frame.height,
    )
    assert max(width, height) == (max(header.width, header.height) if size == "original" else size)
    difference = differences(downscaled.background.pixels, exact.background.pixels)
    # A picture may show the downscaled pixels themselves, where the exact one is averaged over
    # others: grain and edges differ. That nothing is shifted is the next test's.
    assert difference.mean() < 5
    assert np.quantile(difference, 0.99) <= 32


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_pictures_are_not_shifted(orientation: int) -> None:
    width, height = 1153 + 8 * 6, 1153
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 0 * x], -1)
    data = jpeg(np.rint(ramp).astype(np.uint8), orientation, quality=98, subsampling=0)
    exact, downscaled = (
        prepare(data, SMALL, 150, step).background.pixels.astype(float) for step in (1, 8)
    )
    # 255 / 150 levels a pixel.
    shift = np.abs((downscaled - exact)[..., :2].mean((0, 1)) / (255 / 150))
    assert shift.max() < 0.1


@pytest.mark.parametrize("denominator", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_a_downscaled_photo_has_its_full_size(denominator: int, orientation: int) -> None:
    width, height = 645, 487
    data = file(f"turned, {orientation}")
    photo = decode.decode_photo(data, header.read_header(data, Limits(), 10**8), denominator)
    transposed = orientation >= 5
    assert photo.full_size == ((height, width) if transposed else (width, height))
    # Of what is left over at the edges, a pixel too.
    wide, high = -(-width // denominator), -(-height // denominator)
    assert photo.upright.shape == ((wide, high, 3) if transposed else (high, wide, 3))


@pytest.mark.parametrize("end", [200, 5000, -2000, -3])
def test_a_file_that_is_cut_off_is_refused_at_any_size(end: int) -> None:
    header = read_header(file("by 8"), Limits(), 10**8)
    for denominator in (1, 2, 8):
        with pytest.raises(RequestError) as caught:
            decode.decode_photo(file("by 8")[:end], header, denominator)
        assert caught.value.code == "invalid_image"


# A reply


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    return load(preprocess={"resize": 48, "crop": 44}, precision="float32")


@pytest.fixture
def denominators(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The denominator that each photo is decoded with."""
    factors: list[int] = []

    def note(*arguments: Any) -> int:
        factors.append(downscale_factor(*arguments))
        return factors[-1]

    monkeypatch.setattr(photo_preparation, "downscale_factor", note)
    return factors


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, 4),
        ({"outputs": "heatmap,mask"}, 4),
        ({"size": "160"}, 4),
        ({"size": "161"}, 2),
        ({"size": "323"}, 1),
        ({"size": "original"}, 1),
        # Without a picture, what size it would have is all the same.
        ({"size": "original", "outputs": "map,boxes"}, 4),
        ({"size": "original", "explain": "false"}, 4),
        ({"size": "8000", "outputs": "boxes"}, 4),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reply_does_not_depend_on_the_downscaling(
    orientation: int,
    options: dict[str, str],
    step: int,
    pipeline: Pipeline,
    denominators: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = jpeg(scene(641, 579), orientation)
    (downscaled,) = request_builders.single_reply(pipeline, request_builders.form(data, **options))
    assert denominators == [step]
    monkeypatch.setattr(photo_preparation, "downscale_factor", lambda *arguments: 1)
    (exact,) = request_builders.single_reply(pipeline, request_builders.form(data, **options))

    assert downscaled["image"] == exact["image"]
    assert (downscaled["image"]["width"], downscaled["image"]["height"]) == (641, 579)
    assert downscaled["image"]["orientation"] == orientation
    scores = [
        [prediction["score"] for prediction in reply["predictions"]]
        for reply in (downscaled, exact)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)
    for explanation, expected in zip(
        downscaled["explanations"], exact["explanations"], strict=True
    ):
        assert explanation.keys() == expected.keys()
        for name in explanation.keys() & {"heatmap", "overlay", "mask"}:
            picture, other = explanation[name], expected[name]
            assert (picture["width"], picture["height"]) == (other["width"], other["height"])
            assert decoded(picture).shape == decoded(other).shape
    assert json.dumps(downscaled)
