"""The outputs of a reply: colours, the blend, the encoding, the order."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, cast, get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from camserve.images import (
    Background,
    Box,
    EncodedImage,
    Heatmap,
    InputFrame,
    Map,
    Pixels,
    RenderedOutput,
    render,
)
from camserve.options import Colormap, ImageFormat, Options, Output
from camserve.preprocess_settings import InputSize
from tests.support.image_files import noise
from tests.support.images import drawn

LOW, HIGH = (0, 0, 128), (128, 0, 0)  # JET's ends in RGB
SIDE = 224
SQUARE, ONE = InputSize(SIDE, SIDE), InputSize(1, 1)


def picture(output: RenderedOutput) -> EncodedImage:
    assert isinstance(output, EncodedImage)
    return output


def picture_pixels(output: RenderedOutput) -> Pixels:
    """A picture as its file has it: (h, w) where it is grey."""
    return np.asarray(Image.open(io.BytesIO(picture(output).data)))


def map_of(*rows: Sequence[float]) -> Map:
    return np.array(rows, np.float32)


def random_map(*shape: int) -> Map:
    return np.random.default_rng(shape).random(shape, np.float32)


@pytest.mark.parametrize(
    ("value", "level", "colour"),
    [
        pytest.param(0, 0, LOW, id="0"),
        pytest.param(1, 255, HIGH, id="1"),
        pytest.param(0.4 / 255, 0, LOW, id="rounded-down"),
        pytest.param(254.6 / 255, 255, HIGH, id="rounded-up"),
        pytest.param(0.5, 128, (130, 255, 126), id="half"),
    ],
)
def test_heatmap_of_jet_goes_from_blue_to_red(
    value: float, level: int, colour: tuple[int, int, int]
) -> None:
    background = Background(noise(1, 1, 3), InputFrame.full(1, 1))
    options = Options(outputs=("mask", "heatmap"))
    outputs = drawn(Heatmap([map_of([value])], ONE), background, background.frame, ONE, options)
    assert picture_pixels(outputs["mask"]).tolist() == [[level]]
    assert tuple(picture_pixels(outputs["heatmap"])[0, 0]) == colour


@pytest.mark.parametrize(
    ("colormap", "low", "high"),
    [
        pytest.param("spring", (255, 0, 255), (255, 255, 0), id="spring"),
        pytest.param("winter", (0, 0, 255), (0, 255, 128), id="winter"),
        pytest.param("bone", (0, 0, 0), (255, 255, 255), id="bone"),
    ],
)
def test_colours_are_those_of_the_colormap(
    colormap: Colormap, low: tuple[int, ...], high: tuple[int, ...]
) -> None:
    ends = np.array([[0, 255]], np.uint8)
    assert render.apply_colormap(ends, colormap).tolist() == [[list(low), list(high)]]


@pytest.mark.parametrize("colormap", get_args(Colormap))
def test_every_colormap_colours(colormap: Colormap) -> None:
    coloured = render.apply_colormap(np.arange(256, dtype=np.uint8)[None], colormap)
    assert len(np.unique(coloured[0], axis=0)) > 50


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9])
def test_overlay_is_the_weighted_sum(alpha: float) -> None:
    heatmap, photo = noise(2, 20, 30, 3)
    blend = render.overlay(heatmap, photo, alpha)
    exact = alpha * heatmap.astype(float) + (1 - alpha) * photo
    assert blend.dtype == np.uint8
    assert np.abs(blend - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("alpha", "shown"), [(0, 1), (1, 0)])
def test_overlay_of_alpha_0_or_1_is_one_of_both(alpha: float, shown: int) -> None:
    pictures = noise(2, 20, 30, 3)
    blend = render.overlay(pictures[0], pictures[1], alpha)
    assert np.array_equal(blend, pictures[shown])


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)], ids=["colour", "grey"])
def test_png_is_exact(shape: tuple[int, ...]) -> None:
    picture = noise(*shape)
    assert np.array_equal(picture_pixels(render.encode(picture, "png")), picture)


RAMP = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(48, axis=0)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
@pytest.mark.parametrize(
    "picture", [render.apply_colormap(RAMP, "jet"), RAMP], ids=["colour", "grey"]
)
def test_lossy_formats_come_close(image_format: ImageFormat, picture: Pixels) -> None:
    mode = "L" if picture.ndim == 2 else "RGB"
    file = Image.open(io.BytesIO(render.encode(picture, image_format).data))
    off = np.abs(np.asarray(file.convert(mode)).astype(int) - picture)
    assert off.mean() < 4


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_red_stays_red(image_format: ImageFormat) -> None:
    red = np.full((16, 16, 3), (250, 0, 0), np.uint8)
    r, g, b = picture_pixels(render.encode(red, image_format)).mean(axis=(0, 1))
    assert r > 240
    assert max(g, b) < 10


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)], ids=["colour", "grey"])
@pytest.mark.parametrize(
    ("image_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
def test_file_has_the_requested_format(
    image_format: ImageFormat, name: str, shape: tuple[int, ...]
) -> None:
    image = render.encode(noise(*shape), image_format)
    assert (image.media_type, image.width, image.height) == (f"image/{image_format}", 30, 20)
    file = Image.open(io.BytesIO(image.data))
    assert (file.format, file.size) == (name, (30, 20))
    # WebP has no grey.
    assert file.mode == ("L" if len(shape) == 2 and name != "WEBP" else "RGB")


MAP = map_of([0, 0.5], [0.5, 1])
PHOTO = InputFrame(60, 40, 1, Box(10, 0, 50, 40))


def backgrounds() -> Iterator[Background]:
    """Of a photo at the size of the network's input, at its own size and at two others."""
    for frame in (InputFrame.full(SIDE, SIDE), PHOTO, PHOTO.scaled(30, 20), PHOTO.scaled(97, 65)):
        yield Background(noise(frame.height, frame.width, 3), frame)


BACKGROUNDS = list(backgrounds())
SIZES = ["model", "original", "smaller", "larger"]


def render_outputs(
    background: Background = BACKGROUNDS[1], heatmap: Heatmap | None = None, **options: Any
) -> dict[Output, RenderedOutput]:
    return drawn(heatmap or Heatmap([MAP], SQUARE), background, PHOTO, SQUARE, Options(**options))


@pytest.mark.parametrize(
    "outputs",
    [
        ("heatmap", "overlay"),
        ("overlay", "heatmap"),
        ("heatmap",),
        ("boxes", "map", "mask", "overlay", "heatmap"),
    ],
    ids=", ".join,
)
def test_outputs_are_in_the_order_of_the_options(outputs: tuple[Output, ...]) -> None:
    assert tuple(render_outputs(outputs=outputs)) == outputs


def test_an_output_named_twice_is_rendered_once() -> None:
    assert list(render_outputs(outputs=("overlay", "overlay"))) == ["overlay"]


@pytest.mark.parametrize("output", ["heatmap", "overlay", "mask"])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_pictures_have_media_type_and_size(image_format: ImageFormat, output: Output) -> None:
    encoded = picture(render_outputs(image_format=image_format, outputs=(output,))[output])
    assert (encoded.media_type, encoded.width, encoded.height) == (f"image/{image_format}", 60, 40)
    assert picture_pixels(encoded).shape[:2] == (40, 60)


def test_auto_is_jpeg_for_the_overlay_and_png_for_the_rest() -> None:
    # As smooth as a photo: noise is the worst case for JPEG.
    smooth = cv2.GaussianBlur(BACKGROUNDS[1].pixels, (0, 0), 2)
    background = Background(cast(Pixels, smooth), BACKGROUNDS[1].frame)
    outputs = render_outputs(background, outputs=("heatmap", "overlay", "mask"))
    media_types = {output: picture(encoded).media_type for output, encoded in outputs.items()}
    assert media_types == {"heatmap": "image/png", "overlay": "image/jpeg", "mask": "image/png"}
    heatmap = picture_pixels(outputs["heatmap"])
    overlay = picture_pixels(outputs["overlay"]).astype(int)
    exact = render_outputs(background, outputs=("heatmap", "overlay"), image_format="png")
    assert np.array_equal(picture_pixels(exact["heatmap"]), heatmap)
    off = np.abs(overlay - picture_pixels(exact["overlay"]))
    assert off.mean() < 3
    assert np.percentile(off, 99) < 20


@pytest.mark.parametrize("background", BACKGROUNDS, ids=SIZES)
@pytest.mark.parametrize("maps", [[MAP], [MAP, random_map(7, 7)]], ids=["one-layer", "two-layers"])
@pytest.mark.parametrize(("colormap", "alpha"), [("jet", 0.3), ("bone", 0.8)])
def test_pictures_agree_with_each_other_at_every_size(
    background: Background, maps: list[Map], colormap: Colormap, alpha: float
) -> None:
    heatmap = Heatmap(maps, SQUARE)
    names = ("mask", "heatmap", "overlay")
    outputs = render_outputs(
        background, heatmap, outputs=names, colormap=colormap, alpha=alpha, image_format="png"
    )
    mask, colored, overlay = (picture_pixels(output) for output in outputs.values())
    assert mask.shape == (background.frame.height, background.frame.width)
    assert np.abs(mask / 255 - heatmap.resample(background.frame)).max() <= 0.5 / 255 + 1e-6
    code = {"jet": cv2.COLORMAP_JET, "bone": cv2.COLORMAP_BONE}[colormap]
    assert np.array_equal(colored, cv2.applyColorMap(mask, code)[..., ::-1])
    blend = cv2.addWeighted(colored, alpha, background.pixels, 1 - alpha, 0)
    assert np.array_equal(overlay, blend)


@pytest.mark.parametrize("background", BACKGROUNDS, ids=SIZES)
def test_map_and_boxes_are_the_same_at_every_size(background: Background) -> None:
    outputs = render_outputs(background, outputs=("map", "boxes"))
    map, boxes = outputs["map"], outputs["boxes"]
    assert isinstance(map, np.ndarray)
    assert np.array_equal(map, MAP)
    assert boxes == render_outputs(outputs=("boxes",))["boxes"]
    assert boxes
