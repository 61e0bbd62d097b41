"""Maps made visible: values, colours, the blend and the encoding."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from camserve import render
from camserve.options import Options

LOW, HIGH = (0, 0, 128), (128, 0, 0)  # JET's ends in RGB


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def a_map(*rows):
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("map", "width", "height", "expected"),
    [
        pytest.param(a_map([0, 1]), 4, 1, a_map([0, 0.25, 0.75, 1]), id="across"),
        pytest.param(a_map([0], [1]), 1, 4, a_map([0], [0.25], [0.75], [1]), id="down"),
        pytest.param(
            a_map([0, 1], [1, 0]),
            4,
            4,
            a_map(
                [0, 0.25, 0.75, 1],
                [0.25, 0.375, 0.625, 0.75],
                [0.75, 0.625, 0.375, 0.25],
                [1, 0.75, 0.25, 0],
            ),
            id="both",
        ),
        pytest.param(a_map([0.5]), 3, 2, np.full((2, 3), 0.5), id="one-value"),
        pytest.param(a_map([0, 1], [1, 0]), 2, 2, a_map([0, 1], [1, 0]), id="same-size"),
    ],
)
def test_upsample_is_bilinear(map, width, height, expected):
    np.testing.assert_allclose(render.upsample(map, width, height), expected, atol=1e-6)


def test_upsample_stays_between_0_and_1():
    map = np.random.default_rng(0).random((7, 7), np.float32).round()
    larger = render.upsample(map, 224, 224)
    assert (larger.min(), larger.max()) == (0, 1)


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        pytest.param(0, LOW, id="0"),
        pytest.param(1, HIGH, id="1"),
        pytest.param(0.4 / 255, LOW, id="rounded-down"),
        pytest.param(254.6 / 255, HIGH, id="rounded-up"),
    ],
)
def test_heatmap_of_jet_goes_from_blue_to_red(value, colour):
    assert tuple(render.heatmap(a_map([value]), "jet")[0, 0]) == colour


@pytest.mark.parametrize(
    ("colormap", "low", "high"),
    [
        pytest.param("spring", (255, 0, 255), (255, 255, 0), id="spring"),
        pytest.param("winter", (0, 0, 255), (0, 255, 128), id="winter"),
        pytest.param("bone", (0, 0, 0), (255, 255, 255), id="bone"),
    ],
)
def test_heatmap_uses_the_colormap_that_is_named(colormap, low, high):
    assert render.heatmap(a_map([0, 1]), colormap).tolist() == [[list(low), list(high)]]


@pytest.mark.parametrize("colormap", sorted(render.COLORMAPS))
def test_every_colormap_colours(colormap):
    coloured = render.heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None], colormap)
    assert len(np.unique(coloured[0], axis=0)) > 50


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9])
def test_overlay_is_the_weighted_sum(alpha):
    heatmap, photo = noise(2, 20, 30, 3)
    blend = render.overlay(heatmap, photo, alpha)
    exact = alpha * heatmap.astype(float) + (1 - alpha) * photo
    assert blend.dtype == np.uint8
    assert np.abs(blend - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("alpha", "alone"), [(0, 1), (1, 0)])
def test_overlay_of_alpha_0_or_1_is_one_of_both(alpha, alone):
    pictures = noise(2, 20, 30, 3)
    assert np.array_equal(render.overlay(*pictures, alpha), pictures[alone])


def test_png_is_exact():
    picture = noise(20, 30, 3)
    assert np.array_equal(decoded(render.encode(picture, "png")), picture)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_lossy_formats_come_close(image_format):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(48, axis=0)
    picture = render.heatmap(ramp, "jet")
    off = np.abs(decoded(render.encode(picture, image_format)).astype(int) - picture)
    assert off.mean() < 4


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_red_stays_red(image_format):
    red = np.full((16, 16, 3), (250, 0, 0), np.uint8)
    r, g, b = decoded(render.encode(red, image_format)).mean(axis=(0, 1))
    assert r > 240
    assert max(g, b) < 10


@pytest.mark.parametrize(
    ("image_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
def test_file_is_of_the_format_asked_for(image_format, name):
    image = Image.open(io.BytesIO(render.encode(noise(20, 30, 3), image_format)))
    assert (image.format, image.size) == (name, (30, 20))


MAP = a_map([0, 0.5], [0.5, 1])
PHOTO = noise(40, 60, 3)


@pytest.mark.parametrize(
    "outputs",
    [("heatmap", "overlay"), ("overlay", "heatmap"), ("heatmap",), ("overlay",)],
    ids=", ".join,
)
def test_draw_gives_the_outputs_asked_for_in_their_order(outputs):
    assert tuple(render.draw(MAP, PHOTO, Options(outputs=outputs))) == outputs


def test_draw_gives_an_output_asked_for_twice_once():
    assert list(render.draw(MAP, PHOTO, Options(outputs=("overlay", "overlay")))) == ["overlay"]


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_drawings_say_what_they_are(image_format):
    options = Options(image_format=image_format, outputs=("heatmap",))
    drawing = render.draw(MAP, PHOTO, options)["heatmap"]
    assert (drawing.media_type, drawing.width, drawing.height) == (f"image/{image_format}", 60, 40)
    assert decoded(drawing.data).shape == PHOTO.shape


def test_drawings_by_the_options():
    drawings = render.draw(MAP, PHOTO, Options(colormap="bone", alpha=0.8))
    coloured = render.heatmap(render.upsample(MAP, 60, 40), "bone")
    assert np.array_equal(decoded(drawings["heatmap"].data), coloured)
    assert np.array_equal(decoded(drawings["overlay"].data), render.overlay(coloured, PHOTO, 0.8))
