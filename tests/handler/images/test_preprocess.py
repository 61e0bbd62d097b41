"""The network's input: equal to torchvision's, and where it lies in the photo."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.models import ResNet50_Weights
from torchvision.transforms import InterpolationMode, v2

from camserve.images import Box, DecodedPhoto, Pixels, to_channels
from camserve.images.geometry import apply_orientation
from camserve.images.preprocess import resize_and_crop
from camserve.settings import Preprocess
from tests.support.image_files import (
    LIMITS,
    SAMPLE_RGB,
    noise,
    orientation_exif,
    sample_image,
    save_image,
)
from tests.support.images import decode_full_size

PRESET = ResNet50_Weights.IMAGENET1K_V2.transforms()
BICUBIC = transforms.Compose(
    [
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
    ]
)


def random_photo(width: int, height: int) -> Pixels:
    return noise(height, width, 3, seed=width)


SIZES = [
    pytest.param(451, 300, id="landscape-odd"),
    pytest.param(300, 451, id="portrait-odd"),
    pytest.param(97, 61, id="smaller-than-the-crop"),
    pytest.param(1, 20, id="one-column"),
    pytest.param(232, 232, id="no-resize"),
    pytest.param(1611, 1207, id="large"),
]


def normalised(
    crop: Pixels, mean: tuple[float, ...] = PRESET.mean, std: tuple[float, ...] = PRESET.std
) -> torch.Tensor:
    pixels = torch.from_numpy(crop.copy()).permute(2, 0, 1).float()
    return (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_input_equals_torchvisions_preset(width: int, height: int) -> None:
    photo = random_photo(width, height)
    crop, _ = resize_and_crop(DecodedPhoto(photo, 1), Preprocess())
    expected = PRESET(Image.fromarray(photo))
    torch.testing.assert_close(normalised(crop), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_input_is_a_grey_level_from_the_preset_on_a_tensor(width: int, height: int) -> None:
    photo = random_photo(width, height)
    crop, _ = resize_and_crop(DecodedPhoto(photo, 1), Preprocess())
    off = (normalised(crop) - PRESET(torch.from_numpy(photo).permute(2, 0, 1))).abs()
    level = 1 / 255 / torch.tensor(PRESET.std).view(3, 1, 1)
    assert (off <= level + 1e-5).all()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_bicubic_equals_torchvisions(width: int, height: int) -> None:
    photo = random_photo(width, height)
    crop, _ = resize_and_crop(
        DecodedPhoto(photo, 1), Preprocess(resize=256, interpolation="bicubic")
    )
    assert np.array_equal(crop, np.asarray(BICUBIC(Image.fromarray(photo))))


#: Settings, and what torchvision calls the same.
OBLONG: dict[str, tuple[dict[str, Any], Any]] = {
    "shorter side": (
        {"resize": 256, "crop": [128, 256]},
        v2.Compose([v2.Resize(256), v2.CenterCrop((128, 256))]),
    ),
    "shorter side, tall": (
        {"resize": 300, "crop": [255, 101]},
        v2.Compose([v2.Resize(300), v2.CenterCrop((255, 101))]),
    ),
    "both sides": (
        {"resize": [150, 301], "crop": [128, 256]},
        v2.Compose([v2.Resize((150, 301)), v2.CenterCrop((128, 256))]),
    ),
    "both sides, tall": (
        {"resize": [256, 128], "crop": [256, 128], "interpolation": "bicubic"},
        v2.Resize((256, 128), InterpolationMode.BICUBIC),
    ),
    "both sides of a square": (
        {"resize": [232, 300], "crop": 224},
        v2.Compose([v2.Resize((232, 300)), v2.CenterCrop(224)]),
    ),
    "stretch": ({"fit": "stretch", "crop": [128, 256]}, v2.Resize((128, 256))),
    "stretch, bicubic": (
        {"fit": "stretch", "crop": [301, 99], "interpolation": "bicubic"},
        v2.Resize((301, 99), InterpolationMode.BICUBIC),
    ),
}


@pytest.mark.parametrize("name", OBLONG)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_input_that_is_no_square_equals_torchvisions(width: int, height: int, name: str) -> None:
    photo = random_photo(width, height)
    section, transform = OBLONG[name]
    crop, _ = resize_and_crop(DecodedPhoto(photo, 1), Preprocess(**section))
    assert np.array_equal(crop, np.asarray(transform(Image.fromarray(photo))))


@pytest.mark.parametrize("name", OBLONG)
def test_grey_input_equals_torchvisions(name: str) -> None:
    photo = random_photo(451, 300)
    section, transform = OBLONG[name]
    crop, _ = resize_and_crop(DecodedPhoto(photo, 1), Preprocess(**section))
    expected = v2.Compose([transform, v2.Grayscale(1)])(Image.fromarray(photo))
    assert np.array_equal(to_channels(crop, 1)[..., 0], np.asarray(expected))


@pytest.mark.parametrize(
    ("width", "height", "resized", "left", "top"),
    [
        # By hand: the photo fits inside of 256 x 128.
        (400, 100, (256, 64), 0, 32),
        (100, 400, (32, 128), 112, 0),
        (512, 256, (256, 128), 0, 0),
        (300, 300, (128, 128), 64, 0),
        (64, 32, (256, 128), 0, 0),
        (20, 400, (6, 128), 125, 0),
        (400, 20, (256, 13), 0, 58),
    ],
)
def test_pad_fits_the_photo_inside(
    width: int, height: int, resized: tuple[int, int], left: int, top: int
) -> None:
    photo = random_photo(width, height)
    section: dict[str, Any] = {"range": [-1, 1], "mean": [0, -1, 0.5], "std": [1, 1, 1]}
    preprocess = Preprocess(fit="pad", crop=(128, 256), **section)
    crop, frame = resize_and_crop(DecodedPhoto(photo, 1), preprocess)
    # The mean's colour: halfway, the lowest, and three quarters of 0 to 255.
    expected = np.full((128, 256, 3), (128, 0, 191), np.uint8)
    inner = np.asarray(Image.fromarray(photo).resize(resized, Image.Resampling.BILINEAR))
    expected[top : top + resized[1], left : left + resized[0]] = inner
    assert np.array_equal(crop, expected)
    scale_x, scale_y = width / resized[0], height / resized[1]
    box = (-left * scale_x, -top * scale_y, (256 - left) * scale_x, (128 - top) * scale_y)
    assert frame.input_box == pytest.approx(box)


def test_visible_box_by_hand_where_both_sides_are_given() -> None:
    # 451 x 300 becomes 300 x 150; 256 x 128 starts at (22, 11).
    preprocess = Preprocess(resize=(150, 300), crop=(128, 256))
    _, frame = resize_and_crop(DecodedPhoto(random_photo(451, 300), 1), preprocess)
    scale_x, scale_y = 451 / 300, 300 / 150
    box = (22 * scale_x, 11 * scale_y, 278 * scale_x, 139 * scale_y)
    assert frame.visible_box == pytest.approx(box)


def test_visible_box_by_hand() -> None:
    # 451 x 300 becomes 348 x 232; the square of 224 starts at (62, 4).
    _, frame = resize_and_crop(DecodedPhoto(random_photo(451, 300), 1), Preprocess())
    assert (frame.width, frame.height) == (451, 300)
    scale_x, scale_y = 451 / 348, 300 / 232
    assert frame.visible_box == pytest.approx(
        (62 * scale_x, 4 * scale_y, 286 * scale_x, 228 * scale_y)
    )


def test_visible_box_of_a_square_is_all_of_it() -> None:
    _, frame = resize_and_crop(DecodedPhoto(random_photo(500, 500), 1), Preprocess(resize=224))
    assert frame.visible_box == pytest.approx((0, 0, 500, 500))


FITS = ("crop", "stretch", "pad")
EXTREME = [*SIZES, pytest.param(400, 20, id="20-to-1"), pytest.param(20, 400, id="1-to-20")]


@pytest.mark.parametrize("orientation", [1, 7])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_visible_box_lies_within_the_photo(
    width: int, height: int, fit: str, orientation: int
) -> None:
    crop, frame = resize_and_crop(
        DecodedPhoto(random_photo(width, height), orientation), Preprocess(fit=fit)
    )
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8
    assert frame.orientation == orientation
    assert frame.upright_size == (width, height)
    x0, y0, x1, y1 = frame.visible_box
    assert 0 <= x0 < x1 <= frame.width + 1e-9
    assert 0 <= y0 < y1 <= frame.height + 1e-9


@pytest.mark.parametrize("orientation", [1, 7])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_visible_box_is_the_photo_where_nothing_is_cropped(
    width: int, height: int, fit: str, orientation: int
) -> None:
    photo = DecodedPhoto(random_photo(width, height), orientation)
    _, frame = resize_and_crop(photo, Preprocess(fit=fit))
    assert frame.visible_box == pytest.approx((0, 0, frame.width, frame.height))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_stretch_is_the_whole_photo_resized(width: int, height: int, interpolation: str) -> None:
    photo = random_photo(width, height)
    preprocess = Preprocess(fit="stretch", interpolation=interpolation)
    crop, frame = resize_and_crop(DecodedPhoto(photo, 1), preprocess)
    resample = Image.Resampling[interpolation.upper()]
    assert np.array_equal(crop, np.asarray(Image.fromarray(photo).resize((224, 224), resample)))
    assert frame.input_box == pytest.approx((0, 0, width, height))


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_resize_setting_has_no_effect_where_nothing_is_cropped(fit: str) -> None:
    photo = DecodedPhoto(random_photo(97, 61), 1)
    (first, first_frame), (second, second_frame) = (
        resize_and_crop(photo, Preprocess(fit=fit, resize=resize)) for resize in (100, 400)
    )
    assert np.array_equal(first, second)
    assert first_frame == second_frame


def padded(width: int, height: int, **options: Any) -> tuple[Pixels, NDArray[np.bool_]]:
    """The input of a white photo that is padded, and a mask of its padding."""
    white = np.full((height, width, 3), 255, np.uint8)
    square, frame = resize_and_crop(DecodedPhoto(white, 1), Preprocess(fit="pad", **options))
    x0, y0, x1, y1 = frame.input_box
    side = len(square)
    centres_x = x0 + (np.arange(side) + 0.5) * (x1 - x0) / side
    centres_y = y0 + (np.arange(side) + 0.5) * (y1 - y0) / side
    outside = ((centres_x < 0) | (centres_x > width)) | ((centres_y < 0) | (centres_y > height))[
        :, None
    ]
    return square, outside


@pytest.mark.parametrize(("width", "height"), EXTREME)
def test_pad_keeps_the_whole_photo_and_its_shape(width: int, height: int) -> None:
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
    for indices in (rows, columns):
        assert abs(indices[0] - (223 - indices[-1])) <= 1


@pytest.mark.parametrize(
    ("mean", "std"),
    [(PRESET.mean, PRESET.std), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0, 0, 0), (1, 1, 1))],
)
@pytest.mark.parametrize("width", [451, 100])
def test_bars_are_zero_to_the_network(
    width: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    square, outside = padded(width, 300, mean=mean, std=std)
    bars = normalised(square, mean, std)[:, torch.from_numpy(outside)]
    # Nearer than half a grey level they cannot be.
    half = 0.5 / 255 / torch.tensor(std)[:, None]
    assert bars.numel() > 1000
    assert (bars.abs() <= half + 1e-6).all()


def test_pad_shows_the_photo_as_resized() -> None:
    photo = random_photo(451, 300)
    square, _ = resize_and_crop(
        DecodedPhoto(photo, 1), Preprocess(fit="pad", interpolation="bicubic")
    )
    resized = Image.fromarray(photo).resize((224, 149), Image.Resampling.BICUBIC)
    # 75 rows of bars, of which the odd one is below: (149 - 224) / 2 is -37.5, rounded -38.
    assert np.array_equal(square[38:187], np.asarray(resized))


def test_input_box_includes_the_bars() -> None:
    # 451 x 300 becomes 224 x 149, with 38 rows above and 37 below.
    _, frame = resize_and_crop(DecodedPhoto(random_photo(451, 300), 1), Preprocess(fit="pad"))
    scale_y = 300 / 149
    assert frame.input_box == pytest.approx((0, -38 * scale_y, 451, 186 * scale_y))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
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
def test_marker_lies_in_the_input_where_the_frame_says(
    width: int, height: int, marker: tuple[int, int, int, int], fit: str, orientation: int
) -> None:
    stored = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = marker
    stored[y0:y1, x0:x1] = 255
    square, frame = resize_and_crop(
        DecodedPhoto(apply_orientation(stored, orientation), orientation),
        Preprocess(fit=fit, mean=(0, 0, 0)),
    )
    assert (frame.width, frame.height) == (width, height)
    grey = square[..., 0].astype(float)
    left, top, right, bottom = frame.input_box
    side = len(square)
    # The centre of the white pixels, and their area.
    y, x = (float((np.arange(side) + 0.5) @ grey.sum(axis) / grey.sum()) for axis in (1, 0))
    scale_x, scale_y = (right - left) / side, (bottom - top) / side
    middle = Box(left + x * scale_x, top + y * scale_y, left + x * scale_x, top + y * scale_y)
    assert frame.to_file_box(middle)[:2] == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.5)
    room = grey.sum() / 255 * scale_x * scale_y
    assert room == pytest.approx((x1 - x0) * (y1 - y0), rel=0.05)


def test_fit_takes_the_upright_photo_and_keeps_the_files_frame() -> None:
    photo = decode_full_size(
        save_image(sample_image(), "PNG", exif=orientation_exif(6)), LIMITS, LIMITS.pixels
    )
    crop, frame = resize_and_crop(photo, Preprocess())
    expected, upright_frame = resize_and_crop(
        DecodedPhoto(np.rot90(SAMPLE_RGB, -1), 1), Preprocess()
    )
    assert np.array_equal(crop, expected)
    assert (frame.width, frame.height, frame.orientation) == (48, 32, 6)
    assert frame.input_box == upright_frame.input_box


@pytest.mark.parametrize(("rounding", "left"), [("nearest", 2), ("down", 1)])
def test_an_odd_crop_begins_where_the_rounding_says(
    rounding: Literal["nearest", "down"], left: int
) -> None:
    columns = np.arange(11, dtype=np.uint8).reshape(1, 11, 1)
    photo = DecodedPhoto(np.broadcast_to(columns, (8, 11, 3)).copy(), 1)
    preprocess = Preprocess(resize=8, crop=8, crop_rounding=rounding)
    pixels, frame = resize_and_crop(photo, preprocess)
    assert pixels[0, 0, 0] == left
    assert frame.input_box == Box(left, 0, left + 8, 8)
