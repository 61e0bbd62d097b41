"""Maps made visible: where the heat lies, colours, the blend, the encoding, boxes."""

from __future__ import annotations

import io
from itertools import product
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camserve.images import render
from camserve.images.geometry import Background, Box, InputFrame, undo_orientation
from camserve.images.heatmap import Heatmap, upsample_to_frame
from camserve.images.regions import HotRegion, find_hot_regions
from camserve.options import Colormap, Options
from tests.support.images import drawn

LOW, HIGH = (0, 0, 128), (128, 0, 0)  # JET's ends in RGB
SIDE = 224


def decoded(image):
    """A picture as its file has it: (h, w) where it is grey."""
    return np.asarray(Image.open(io.BytesIO(image.data)))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def a_map(*rows):
    return np.array(rows, np.float32)


def random_map(*shape):
    return np.random.default_rng(shape).random(shape, np.float32)


# Spread over a photo


def weights(cells, length, start, end):
    """(length, cells): how much of each cell a pixel gets that lies at its centre between
    ``start`` and ``end``; none where it lies outside.
    """
    centres = np.arange(length) + 0.5
    places = np.clip((centres - start) * cells / (end - start) - 0.5, 0, cells - 1)
    shares = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    shares[(centres < start) | (centres >= end)] = 0
    return shares


def reference(map, frame):
    """Bilinear, border cells going on to the window's edge, in float64: one matrix each way."""
    width, height = frame.upright_size
    x0, y0, x1, y1 = frame.input_box
    rows = weights(map.shape[0], height, y0, y1)
    columns = weights(map.shape[1], width, x0, x1)
    return undo_orientation(rows @ map.astype(np.float64) @ columns.T, frame.orientation)


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
def test_spread_is_bilinear(map, width, height, expected):
    np.testing.assert_allclose(
        upsample_to_frame(map, InputFrame.full(width, height)), expected, atol=1e-6
    )


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        pytest.param((1, 0, 5, 1), [[0, 0, 0.25, 0.75, 1, 0]], id="within"),
        pytest.param((2, 0, 6, 1), [[0, 0, 0, 0.25, 0.75, 1]], id="to-the-edge"),
        pytest.param((-1, 0, 3, 1), [[0.25, 0.75, 1, 0, 0, 0]], id="beyond-the-left"),
        pytest.param((3, 0, 7, 1), [[0, 0, 0, 0, 0.25, 0.75]], id="beyond-the-right"),
        pytest.param((1.6, 0, 5.6, 1), [[0, 0, 0, 0.45, 0.95, 1]], id="fractions"),
    ],
)
def test_spread_over_a_window_by_hand(window, expected):
    spread = upsample_to_frame(a_map([0, 1]), InputFrame(6, 1, 1, Box(*window)))
    np.testing.assert_allclose(spread, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "seen"),
    [
        (1.4, 4.4, [0, 1, 1, 1, 0, 0]),
        (1.5, 4.5, [0, 1, 1, 1, 0, 0]),
        (1.6, 4.6, [0, 0, 1, 1, 1, 0]),
        (-0.5, 0.4, [0, 0, 0, 0, 0, 0]),
        (-9, 0.6, [1, 0, 0, 0, 0, 0]),
        (5.5, 9, [0, 0, 0, 0, 0, 1]),
    ],
)
def test_pixel_was_seen_where_its_centre_was(start, end, seen):
    ones = a_map([1, 1], [1, 1])
    assert upsample_to_frame(ones, InputFrame(6, 1, 1, Box(start, 0, end, 1))).tolist() == [seen]
    down = upsample_to_frame(ones, InputFrame(1, 6, 1, Box(0, start, 1, end)))
    assert down.ravel().tolist() == seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(224, 224), (451, 300), (33, 97), (1, 1)])
def test_spread_over_a_photo_that_was_seen_whole_is_opencvs_resize(width, height, orientation):
    map = random_map(7, 7)
    frame = InputFrame.from_upright_size(width, height, orientation, Box(0, 0, width, height))
    resized = cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(upsample_to_frame(map, frame), undo_orientation(resized, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("window", [(80, 5, 371, 295), (0, 0, 300, 300), (151, 0, 451, 299)])
def test_what_was_seen_gets_what_a_crop_of_it_would_get(window, orientation):
    map = random_map(7, 9)
    x0, y0, x1, y1 = window
    expected = np.zeros((300, 451), np.float32)
    expected[y0:y1, x0:x1] = cv2.resize(map, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    spread = upsample_to_frame(
        map, InputFrame.from_upright_size(451, 300, orientation, Box(*window))
    )
    np.testing.assert_allclose(spread, undo_orientation(expected, orientation), rtol=0, atol=1e-5)
    assert not spread[undo_orientation(expected, orientation) == 0].any()


@st.composite
def frames(draw):
    """A photo and a window that is fitted to it in some way, within it or beyond it."""
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    edges = []
    for length in (width, height):
        start = draw(st.floats(-length / 2, length * 0.7))
        edges.append((start, start + draw(st.floats(length * 0.5, length * 2))))
    (x0, x1), (y0, y1) = edges
    return InputFrame.from_upright_size(width, height, draw(st.integers(1, 8)), Box(x0, y0, x1, y1))


@given(frames(), st.integers(1, 14), st.integers(1, 14))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_spread_is_bilinear_over_any_window(frame, rows, columns):
    map = random_map(rows, columns)
    spread = upsample_to_frame(map, frame)
    assert spread.shape == (frame.height, frame.width)
    assert spread.dtype == np.float32
    expected = reference(map, frame)
    np.testing.assert_allclose(spread, expected, rtol=0, atol=1e-5)
    # Not nearly: nothing.
    assert not spread[reference(np.ones_like(map), frame) == 0].any()


@pytest.mark.parametrize(
    "frame",
    [
        InputFrame(8192, 410, 1, Box(3891, 0, 4301, 410)),
        InputFrame(410, 8192, 6, Box(0.25, -3890.5, 410, 4300.75)),
        InputFrame(3000, 2000, 8, Box(4.5, 505.25, 1996, 2495.5)),
        InputFrame(3, 2, 1, Box(-2.5, 0, 4.5, 2)),
    ],
    ids=["wide", "tall", "large", "tiny"],
)
def test_spread_is_bilinear_over_extreme_photos(frame):
    map = random_map(7, 7)
    expected = reference(map, frame)
    np.testing.assert_allclose(upsample_to_frame(map, frame), expected, rtol=0, atol=1e-5)


# Heat


def test_heat_stays_between_0_and_1():
    heat = Heatmap([random_map(7, 7).round()], SIDE)
    larger = heat.resample(InputFrame.full(SIDE, SIDE))
    assert (larger.min(), larger.max()) == (0, 1)
    assert larger.dtype == np.float32


def test_heat_of_one_layer_is_its_map():
    map = random_map(7, 9) / 2
    heat = Heatmap([map], SIDE)
    assert heat.peak == 1
    assert np.array_equal(heat.map, map)
    frame = InputFrame(451, 300, 6, Box(10, 20, 290, 400))
    assert np.array_equal(heat.resample(frame), upsample_to_frame(map, frame))


SOME_FRAMES = [
    InputFrame.full(SIDE, SIDE),
    InputFrame.full(50, 50),
    InputFrame.full(1000, 1000),
    InputFrame(451, 300, 1, Box(80, 5, 371, 295)),
    InputFrame(451, 300, 6, Box(5, 80, 295, 371)),
    InputFrame(451, 300, 3, Box(0, -75.5, 451, 375.5)),
]


@pytest.mark.parametrize("frame", SOME_FRAMES)
def test_heat_of_several_layers_is_their_mean_normalised_once(frame):
    maps = [random_map(7, 7), random_map(14, 14), random_map(3, 5)]
    heat = Heatmap(maps, SIDE)
    at_side = np.mean([reference(map, InputFrame.full(SIDE, SIDE)) for map in maps], axis=0)
    low, high = at_side.min(), at_side.max()
    assert heat.peak == pytest.approx(high, abs=1e-6)
    mean = np.mean([reference(map, frame) for map in maps], axis=0)
    # By the same two numbers at every size, or sizes would not be comparable.
    expected = np.clip((mean - low) / (high - low), 0, 1)
    np.testing.assert_allclose(heat.resample(frame), expected, rtol=0, atol=1e-4)
    seen = np.mean([reference(np.ones_like(map), frame) for map in maps], axis=0) > 0
    assert not heat.resample(frame)[~seen].any()


def test_heat_of_several_layers_reaches_from_0_to_1_in_the_networks_input():
    heat = Heatmap([random_map(7, 7), random_map(14, 14)], SIDE).resample(
        InputFrame.full(SIDE, SIDE)
    )
    assert (heat.min(), heat.max()) == (0, 1)


def test_map_of_several_layers_is_at_the_finest_grid():
    maps = [random_map(4, 4), random_map(8, 6), random_map(2, 9)]
    heat = Heatmap(maps, SIDE)
    assert heat.map.shape == (8, 6)
    assert np.array_equal(heat.map, heat.resample(InputFrame.full(6, 8)))


def test_layers_that_agree_make_no_other_heat():
    map = a_map([0, 0.5], [0.25, 1])
    one, several = Heatmap([map], SIDE), Heatmap([map, map, map], SIDE)
    for frame in SOME_FRAMES:
        np.testing.assert_allclose(several.resample(frame), one.resample(frame), atol=1e-6)


def test_a_layer_without_evidence_halves_the_mean_but_not_the_heat():
    map, nothing = a_map([0, 0.5], [0.25, 1]), np.zeros((4, 4), np.float32)
    heat = Heatmap([map, nothing], SIDE)
    assert heat.peak == pytest.approx(0.5)
    frame = InputFrame.full(30, 20)
    np.testing.assert_allclose(heat.resample(frame), upsample_to_frame(map, frame), atol=1e-6)


def test_layers_that_cancel_make_no_heat_of_what_rounding_left():
    map = random_map(7, 7)
    heat = Heatmap([map, 1 - map], SIDE)
    assert heat.is_constant
    assert not heat.map.any()
    assert not heat.resample(InputFrame.full(SIDE, SIDE)).any()
    assert not Heatmap([map, map], SIDE).is_constant


def test_layers_without_evidence_make_no_heat():
    heat = Heatmap([np.zeros((7, 7), np.float32), np.zeros((14, 14), np.float32)], SIDE)
    assert heat.peak == 0
    assert not heat.map.any()
    assert not heat.resample(InputFrame(60, 40, 1, Box(10, 0, 50, 40))).any()


# Colours


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
def test_heatmap_of_jet_goes_from_blue_to_red(value, level, colour):
    view = Background(noise(1, 1, 3), InputFrame.full(1, 1))
    options = Options(outputs=("mask", "heatmap"))
    drawings = drawn(Heatmap([a_map([value])], 1), view, view.frame, 1, options)
    assert decoded(drawings["mask"]).tolist() == [[level]]
    assert tuple(decoded(drawings["heatmap"])[0, 0]) == colour


@pytest.mark.parametrize(
    ("colormap", "low", "high"),
    [
        pytest.param("spring", (255, 0, 255), (255, 255, 0), id="spring"),
        pytest.param("winter", (0, 0, 255), (0, 255, 128), id="winter"),
        pytest.param("bone", (0, 0, 0), (255, 255, 255), id="bone"),
    ],
)
def test_colours_are_of_the_colormap_that_is_named(colormap, low, high):
    ends = np.array([[0, 255]], np.uint8)
    assert render.apply_colormap(ends, colormap).tolist() == [[list(low), list(high)]]


@pytest.mark.parametrize("colormap", get_args(Colormap))
def test_every_colormap_colours(colormap):
    coloured = render.apply_colormap(np.arange(256, dtype=np.uint8)[None], colormap)
    assert len(np.unique(coloured[0], axis=0)) > 50


# The blend


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


# The file


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)], ids=["colour", "grey"])
def test_png_is_exact(shape):
    picture = noise(*shape)
    assert np.array_equal(decoded(render.encode(picture, "png")), picture)


RAMP = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(48, axis=0)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
@pytest.mark.parametrize(
    "picture", [render.apply_colormap(RAMP, "jet"), RAMP], ids=["colour", "grey"]
)
def test_lossy_formats_come_close(image_format, picture):
    mode = "L" if picture.ndim == 2 else "RGB"
    file = Image.open(io.BytesIO(render.encode(picture, image_format).data))
    off = np.abs(np.asarray(file.convert(mode)).astype(int) - picture)
    assert off.mean() < 4


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_red_stays_red(image_format):
    red = np.full((16, 16, 3), (250, 0, 0), np.uint8)
    r, g, b = decoded(render.encode(red, image_format)).mean(axis=(0, 1))
    assert r > 240
    assert max(g, b) < 10


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)], ids=["colour", "grey"])
@pytest.mark.parametrize(
    ("image_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
def test_file_is_of_the_format_asked_for(image_format, name, shape):
    image = render.encode(noise(*shape), image_format)
    assert (image.media_type, image.width, image.height) == (f"image/{image_format}", 30, 20)
    file = Image.open(io.BytesIO(image.data))
    assert (file.format, file.size) == (name, (30, 20))
    # WebP has no grey.
    assert file.mode == ("L" if len(shape) == 2 and name != "WEBP" else "RGB")


# What a request asks for

MAP = a_map([0, 0.5], [0.5, 1])
PHOTO = InputFrame(60, 40, 1, Box(10, 0, 50, 40))


def views():
    """A photo's at the network's input, at its own size and at two others."""
    whole = InputFrame.full(SIDE, SIDE)
    for frame in (whole, PHOTO, PHOTO.scaled(30, 20), PHOTO.scaled(97, 65)):
        yield Background(noise(frame.height, frame.width, 3), frame)


VIEWS = list(views())
SIZES = ["model", "original", "smaller", "larger"]


def draw(view=VIEWS[1], heat=None, **options):
    return drawn(heat or Heatmap([MAP], SIDE), view, PHOTO, SIDE, Options(**options))


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
def test_draw_gives_the_outputs_asked_for_in_their_order(outputs):
    assert tuple(draw(outputs=outputs)) == outputs


def test_draw_gives_an_output_asked_for_twice_once():
    assert list(draw(outputs=("overlay", "overlay"))) == ["overlay"]


@pytest.mark.parametrize("output", ["heatmap", "overlay", "mask"])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_drawings_say_what_they_are(image_format, output):
    drawing = draw(image_format=image_format, outputs=(output,))[output]
    assert (drawing.media_type, drawing.width, drawing.height) == (f"image/{image_format}", 60, 40)
    assert decoded(drawing).shape[:2] == (40, 60)


def test_each_picture_is_of_the_format_that_suits_it_where_none_is_named():
    # As smooth as photos are: noise is the worst that a JPEG can be asked for.
    view = Background(cv2.GaussianBlur(VIEWS[1].pixels, (0, 0), 2), VIEWS[1].frame)
    drawings = draw(view, outputs=("heatmap", "overlay", "mask"))
    kinds = {output: drawing.media_type for output, drawing in drawings.items()}
    assert kinds == {"heatmap": "image/png", "overlay": "image/jpeg", "mask": "image/png"}
    heatmap, overlay = (decoded(drawings[output]).astype(int) for output in ("heatmap", "overlay"))
    exact = draw(view, outputs=("heatmap", "overlay"), image_format="png")
    assert np.array_equal(decoded(exact["heatmap"]), heatmap)
    off = np.abs(overlay - decoded(exact["overlay"]))
    assert off.mean() < 3
    assert np.percentile(off, 99) < 20


@pytest.mark.parametrize("view", VIEWS, ids=SIZES)
@pytest.mark.parametrize("maps", [[MAP], [MAP, random_map(7, 7)]], ids=["one-layer", "two-layers"])
@pytest.mark.parametrize(("colormap", "alpha"), [("jet", 0.3), ("bone", 0.8)])
def test_pictures_agree_with_each_other_at_every_size(view, maps, colormap, alpha):
    heat = Heatmap(maps, SIDE)
    outputs = ("mask", "heatmap", "overlay")
    drawings = draw(view, heat, outputs=outputs, colormap=colormap, alpha=alpha, image_format="png")
    mask, heatmap, overlay = (decoded(drawings[output]) for output in outputs)
    assert mask.shape == (view.frame.height, view.frame.width)
    assert np.abs(mask / 255 - heat.resample(view.frame)).max() <= 0.5 / 255 + 1e-6
    code = {"jet": cv2.COLORMAP_JET, "bone": cv2.COLORMAP_BONE}[colormap]
    assert np.array_equal(heatmap, cv2.applyColorMap(mask, code)[..., ::-1])
    assert np.array_equal(overlay, cv2.addWeighted(heatmap, alpha, view.pixels, 1 - alpha, 0))


@pytest.mark.parametrize("view", VIEWS, ids=SIZES)
def test_map_and_boxes_are_the_same_at_every_size(view):
    drawings = draw(view, outputs=("map", "boxes"))
    assert np.array_equal(drawings["map"], MAP)
    assert drawings["boxes"] == draw(outputs=("boxes",))["boxes"]
    assert drawings["boxes"]


# Boxes, in a network's input of 8 x 8 whose map has a value for each pixel


def eight(**values):
    """Zeros, but at places named ``yx``, or ``yx_yx`` for all between two places."""
    map = np.zeros((8, 8), np.float32)
    for place, value in values.items():
        (top, left), *last = (map_place(corner) for corner in place[1:].split("_"))
        bottom, right = last[0] if last else (top, left)
        map[top : bottom + 1, left : right + 1] = value
    return map


def map_place(corner):
    return int(corner[0]), int(corner[1])


WHOLE = InputFrame.full(8, 8)


def regions(map, frame=WHOLE, threshold=0.5):
    return find_hot_regions(Heatmap([map], 8), frame, 8, threshold)


def rounded(found):
    return [(tuple(round(edge, 6) for edge in one.box), round(one.share, 6)) for one in found]


@pytest.mark.parametrize(
    ("map", "expected"),
    [
        pytest.param(eight(p11_22=1.0), [((1, 1, 3, 3), 1)], id="one"),
        pytest.param(
            eight(p11_22=1.0, p55_66=0.75),
            [((1, 1, 3, 3), 4 / 7), ((5, 5, 7, 7), 3 / 7)],
            id="two",
        ),
        pytest.param(
            eight(p00=1.0, p07=0.9, p70_77=0.8),
            [((0, 7, 8, 8), 6.4 / 8.3), ((0, 0, 1, 1), 1 / 8.3), ((7, 0, 8, 1), 0.9 / 8.3)],
            id="three-at-the-edges",
        ),
        pytest.param(eight(p11=1.0, p22=1.0, p33=1.0), [((1, 1, 4, 4), 1)], id="corner-to-corner"),
        pytest.param(
            eight(p11=1.0, p31=1.0),
            [((1, 1, 2, 2), 0.5), ((1, 3, 2, 4), 0.5)],
            id="a-gap-between",
        ),
        pytest.param(
            # What is not above the threshold joins nothing, but has its share of the heat.
            eight(p11=1.0, p12=0.5, p13=0.75),
            [((1, 1, 2, 2), 1 / 2.25), ((3, 1, 4, 2), 0.75 / 2.25)],
            id="threshold-exclusive",
        ),
        pytest.param(
            eight(p11=1.0, p44_47=0.6),
            [((4, 4, 8, 5), 2.4 / 3.4), ((1, 1, 2, 2), 1 / 3.4)],
            id="much-before-hot",
        ),
        pytest.param(
            eight(p11_12=1.0, p44_46=0.6),
            [((1, 1, 3, 2), 2 / 3.8), ((4, 4, 7, 5), 1.8 / 3.8)],
            id="much-before-large",
        ),
        pytest.param(
            eight(p11_12=1.0, p51_57=0.25),
            [((1, 1, 3, 2), 2 / 3.75)],
            id="all-heat-counts-not-only-the-hot",
        ),
        pytest.param(
            # A ring and what lies in it, touching nothing.
            eight(p11_55=0.6, p22_44=0, p33=1.0),
            [((1, 1, 6, 6), 9.6 / 10.6), ((3, 3, 4, 4), 1 / 10.6)],
            id="one-within-the-other",
        ),
        pytest.param(np.ones((8, 8), np.float32), [((0, 0, 8, 8), 1)], id="all"),
        pytest.param(np.full((8, 8), 0.5, np.float32), [], id="all-at-the-threshold"),
        pytest.param(np.zeros((8, 8), np.float32), [], id="none"),
    ],
)
def test_boxes_by_hand(map, expected):
    assert rounded(regions(map)) == [(box, round(share, 6)) for box, share in expected]


@pytest.mark.parametrize(
    ("threshold", "edges"), [(0.0, (0, 1, 5, 2)), (0.3, (1, 1, 4, 2)), (0.7, (1, 1, 2, 2))]
)
def test_boxes_are_above_the_threshold(threshold, edges):
    map = eight(p10=0.2, p11=1.0, p12=0.4, p13=0.6, p14=0.3)
    found = regions(map, threshold=threshold)
    assert found[0].box == edges


def test_no_heat_at_a_threshold_of_zero_has_no_box():
    assert regions(np.zeros((8, 8), np.float32), threshold=0) == ()


def test_boxes_are_in_the_photos_pixels():
    # The input's 8 pixels are 16 of the photo across and 24 down, from (10, 20) on.
    frame = InputFrame(100, 90, 1, Box(10, 20, 26, 44))
    map = eight(p00=1.0, p35_46=0.8)
    assert rounded(regions(map, frame)) == [
        ((20, 29, 24, 35), round(3.2 / 4.2, 6)),
        ((10, 20, 12, 23), round(1 / 4.2, 6)),
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_in_the_files_pixels(orientation):
    frame = InputFrame.from_upright_size(24, 10, orientation, Box(6, 1, 22, 9))
    map = eight(p01_12=1.0, p66=0.9)
    upright = np.zeros((2, 10, 24), np.uint8)
    upright[0, 1:3, 8:12] = 1
    upright[1, 7:8, 18:20] = 1
    found = regions(map, frame)
    assert len(found) == 2
    for region, painted in zip(found, upright, strict=True):
        stored = undo_orientation(painted, orientation)
        x0, y0, x1, y1 = (int(edge) for edge in region.box)
        assert region.box == (x0, y0, x1, y1)
        assert stored[y0:y1, x0:x1].all()
        assert stored.sum() == (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        # Bars of two pixels left and right, then above and below, which are no part of the photo.
        pytest.param(InputFrame(4, 8, 1, Box(-2, 0, 6, 8)), (0, 3, 4, 5), id="across"),
        pytest.param(InputFrame(8, 4, 1, Box(0, -2, 8, 6)), (0, 1, 8, 3), id="down"),
        pytest.param(InputFrame(12, 6, 3, Box(0, -3, 12, 9)), (0, 1.5, 12, 4.5), id="upside-down"),
        pytest.param(InputFrame(8, 4, 6, Box(-2, 0, 6, 8)), (3, 0, 5, 4), id="on-its-side"),
    ],
)
def test_bars_have_no_part_in_boxes_and_shares(frame, expected):
    # A hot row through the middle, and a hot spot in each corner, in the bars.
    map = eight(p30_47=1.0, p00=1.0, p07=1.0, p70=1.0, p77=1.0)
    assert regions(map, frame) == (HotRegion(Box(*expected), 1.0),)


def test_heat_in_the_bars_alone_has_no_box():
    assert regions(eight(p00_07=1.0), InputFrame(8, 4, 1, Box(0, -2, 8, 6))) == ()


def flooded(seen, threshold):
    """Connected regions by hand: of each, its places."""
    left = {tuple(place) for place in np.argwhere(seen > threshold)}
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            for place in product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if place in left:
                    left.remove(place)
                    edge.append(place)
        yield region


VALUES = st.sampled_from([0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


@given(
    st.lists(VALUES, min_size=64, max_size=64),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.3, 0.4, 0.7]),
)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_boxes_are_those_of_the_regions(values, orientation, threshold):
    map = np.array(values, np.float32).reshape(8, 8)
    # Two rows of bars, six of photo; a pixel of the input is two of the photo.
    frame = InputFrame.from_upright_size(16, 12, orientation, Box(0, -2, 16, 14))
    seen = map[1:7]
    expected = []
    for region in flooded(seen, np.float32(threshold)):
        rows, columns = zip(*region, strict=True)
        upright = Box(2 * min(columns), 2 * min(rows), 2 * max(columns) + 2, 2 * max(rows) + 2)
        heat = sum(float(seen[place]) for place in region) / float(seen.sum(dtype=np.float64))
        expected.append((tuple(frame.to_file_box(upright)), round(heat, 6)))
    found = regions(map, frame, threshold)
    assert sorted(rounded(found)) == sorted(expected)
    shares = [region.share for region in found]
    assert shares == sorted(shares, reverse=True)
    # Above zero, all the heat that there is lies in a box.
    least = 1 - 1e-6 if threshold == 0 and found else 0
    assert least <= sum(shares) <= 1 + 1e-9


def test_boxes_of_several_layers_are_those_of_their_mean():
    maps = [eight(p11=1.0, p66=0.6), eight(p11=0.2, p66=1.0), eight(p11=1.0)]
    mean = np.mean(maps, axis=0)
    found = find_hot_regions(Heatmap(maps, 8), WHOLE, 8, 0.5)
    assert rounded(found) == rounded(regions((mean / mean.max()).astype(np.float32)))
    assert [region.box for region in found] == [(1, 1, 2, 2), (6, 6, 7, 7)]


def test_boxes_of_a_layers_grid_follow_its_heat_at_the_networks_input():
    # One hot cell of 7: its heat falls to a half halfway to the next cell.
    map = np.zeros((7, 7), np.float32)
    map[2, 4] = 1
    (region,) = find_hot_regions(
        Heatmap([map], SIDE), InputFrame(448, 448, 1, Box(0, 0, 448, 448)), SIDE, 0.5
    )
    x0, y0, x1, y1 = region.box
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (4.5 * 64, 2.5 * 64)
    assert 56 <= x1 - x0 <= 66
    assert 56 <= y1 - y0 <= 66
