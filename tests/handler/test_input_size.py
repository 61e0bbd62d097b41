"""An input that is no square: discs known by construction, wherever a photo's file has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn
from torchvision.transforms import v2

from camserve.images import Box, Map
from camserve.pipeline import Pipeline
from camserve.preprocess_settings import Preprocess
from tests.support.color_resnet import LABELS, MEAN, NARROW, STD, colour_resnet50, photo
from tests.support.contract import assert_replies_close, decoded
from tests.support.image_files import orientation_exif, save_image
from tests.support.request_builders import json_request, single_reply

HEIGHT, WIDTH = 128, 256
#: The finest layer, whose cells are 4 x 4 pixels of the input.
LAYER = "layer1.2"
Floats = NDArray[np.float64]
#: A point of a file of w x h pixels, by EXIF orientation, in the upright photo.
UPRIGHT: dict[int, Callable[[Any, Any, int, int], tuple[Any, Any]]] = {
    1: lambda x, y, w, h: (x, y),
    2: lambda x, y, w, h: (w - x, y),
    3: lambda x, y, w, h: (w - x, h - y),
    4: lambda x, y, w, h: (x, h - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}
INVERSE = {**{n: n for n in UPRIGHT}, 6: 8, 8: 6}


def to_file(orientation: int, x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """A point of the upright photo, which is ``width`` x ``height``, in its file."""
    return UPRIGHT[INVERSE[orientation]](x, y, width, height)


# The input and its place in the upright photo, as torchvision makes it.


def cut_out(image: Image.Image, size: Any) -> tuple[Image.Image, Box]:
    resized = v2.Resize(size)(image)
    scale_x, scale_y = image.width / resized.width, image.height / resized.height
    left, top = round((resized.width - WIDTH) / 2), round((resized.height - HEIGHT) / 2)
    right, bottom = left + WIDTH, top + HEIGHT
    box = Box(left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    return v2.CenterCrop((HEIGHT, WIDTH))(resized), box


def stretched(image: Image.Image) -> tuple[Image.Image, Box]:
    return v2.Resize((HEIGHT, WIDTH))(image), Box(0, 0, *image.size)


def padded(image: Image.Image) -> tuple[Image.Image, Box]:
    scale = min(WIDTH / image.width, HEIGHT / image.height)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = -round((width - WIDTH) / 2), -round((height - HEIGHT) / 2)
    bars = [left, top, WIDTH - width - left, HEIGHT - height - top]
    fill = [round(255 * value) for value in MEAN.tolist()]
    resized = v2.functional.pad(v2.Resize((height, width))(image), bars, fill)
    scale_x, scale_y = image.width / width, image.height / height
    right, bottom = (WIDTH - left) * scale_x, (HEIGHT - top) * scale_y
    return resized, Box(-left * scale_x, -top * scale_y, right, bottom)


CASES: dict[str, tuple[dict[str, Any], Callable[[Image.Image], tuple[Image.Image, Box]]]] = {
    "both sides": ({"resize": [144, 288]}, lambda image: cut_out(image, (144, 288))),
    "shorter side": ({"resize": 256}, lambda image: cut_out(image, 256)),
    "stretch": ({"fit": "stretch"}, stretched),
    "pad": ({"fit": "pad"}, padded),
}


@pytest.fixture(scope="module")
def pipelines(load: Callable[..., Pipeline]) -> dict[str, Pipeline]:
    """One network, by how a photo becomes its input."""
    sections = {name: {"crop": [HEIGHT, WIDTH], **section} for name, (section, _) in CASES.items()}
    network = load(preprocess=sections["pad"], layers=[LAYER], precision="float32", compile="off")

    def preprocessed(section: dict[str, Any]) -> Pipeline:
        update = {"preprocess": Preprocess(**section)}
        changed = network.settings.model_copy(update=update)
        return Pipeline(network.model, replace(network.loaded, settings=changed))

    return {name: preprocessed(section) for name, section in sections.items()}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return colour_resnet50(**NARROW)


@dataclass(frozen=True)
class Disc:
    """A photo's file of ``width`` x ``height``, with a red disc.

    The disc's centre and radius are shares of what the network sees, in the upright photo.
    """

    width: int
    height: int
    orientation: int
    x: float
    y: float
    radius: float


SIDES = st.integers(90, 270)
DISCS = st.builds(
    Disc,
    SIDES,
    SIDES,
    st.sampled_from([6, 8, 1, 2, 3, 4, 5, 7]),
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
    st.floats(0.25, 0.4),
)


def reference_map(network: nn.Module, image: Image.Image) -> Map:
    """The map of red at :data:`LAYER`: where its channel is positive, min-max normalised."""
    pixels = v2.functional.to_dtype(v2.functional.pil_to_tensor(image), torch.float32, scale=True)
    inputs = v2.functional.normalize(pixels, MEAN.tolist(), STD.tolist())
    with captured(network.get_submodule(LAYER)) as outputs, torch.no_grad():
        network(inputs[None])
    red = outputs[0][0, LABELS.index("red")].relu().numpy()
    return cast(Map, (red - red.min()) / (red.max() - red.min()))


@contextmanager
def captured(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    outputs: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda module, args, output: outputs.append(output.clone()))
    try:
        yield outputs
    finally:
        hook.remove()


def sampled(map: Map, x: Floats, y: Floats) -> Floats:
    """A map at points of its input, from 0 to 1, bilinearly; its edge goes on beyond it."""
    rows, columns = map.shape
    row, column = np.clip(y * rows - 0.5, 0, rows - 1), np.clip(x * columns - 0.5, 0, columns - 1)
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    bottom, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, columns - 1)
    down, across = row - top, column - left
    upper = map[top, left] * (1 - across) + map[top, right] * across
    lower = map[bottom, left] * (1 - across) + map[bottom, right] * across
    return cast(Floats, upper * (1 - down) + lower * down)


def hot_box(map: Map, box: Box, width: int, height: int) -> Box:
    """Around all that is above 0.5 in the input, without its bars, in upright pixels."""
    scale_x, scale_y = (box.x1 - box.x0) / WIDTH, (box.y1 - box.y0) / HEIGHT
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, (np.arange(HEIGHT) + 0.5) / HEIGHT)
    hot = sampled(map, x, y) > 0.5
    seen_x, seen_y = box.x0 + x * WIDTH * scale_x, box.y0 + y * HEIGHT * scale_y
    hot &= (seen_x > 0) & (seen_x < width) & (seen_y > 0) & (seen_y < height)
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))
    return Box(
        box.x0 + columns[0] * scale_x,
        box.y0 + rows[0] * scale_y,
        box.x0 + (columns[-1] + 1) * scale_x,
        box.y0 + (rows[-1] + 1) * scale_y,
    )


def file_box(orientation: int, box: Box, width: int, height: int) -> tuple[float, ...]:
    """A box of the upright photo, which is ``width`` x ``height``, clipped, in the file."""
    xs, ys = np.clip([box.x0, box.x1], 0, width), np.clip([box.y0, box.y1], 0, height)
    corners = [to_file(orientation, x, y, width, height) for x, y in zip(xs, ys, strict=True)]
    (left, right), (top, bottom) = (sorted(values) for values in zip(*corners, strict=True))
    return left, top, right, bottom


@pytest.mark.parametrize("case", CASES)
@settings(
    deadline=None,
    derandomize=True,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(disc=DISCS)
@example(Disc(200, 100, 6, 0.3, 0.7, 0.3))
@example(Disc(200, 100, 8, 0.3, 0.7, 0.3))
def test_a_disc_is_found_where_the_file_has_it(
    pipelines: dict[str, Pipeline], network: nn.Module, case: str, disc: Disc
) -> None:
    turned = disc.orientation > 4
    width, height = (disc.height, disc.width) if turned else (disc.width, disc.height)
    _, make_input = CASES[case]
    _, box = make_input(Image.new("RGB", (width, height)))
    x0, y0, x1, y1 = (max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))
    radius = int(disc.radius * min(x1 - x0, y1 - y0))
    middle = x0 + disc.x * (x1 - x0), y0 + disc.y * (y1 - y0)
    x, y = (int(value) for value in to_file(disc.orientation, *middle, width, height))
    stored = photo(("red", (x, y), radius), width=disc.width, height=disc.height)
    file = save_image(Image.fromarray(stored), "PNG", exif=orientation_exif(disc.orientation))

    outputs = ["map", "mask", "boxes", "overlay"]
    options = {"outputs": outputs, "image_format": "png", "alpha": 0, "target": "red"}
    row = json_request(file, layer=LAYER, size="original", **options)
    (reply,) = single_reply(pipelines[case], row)
    (explanation,) = reply["explanations"]

    seen = file_box(disc.orientation, box, width, height)
    assert reply["image"]["seen"] == pytest.approx(seen, abs=2e-3)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(file)))
    expected = reference_map(network, make_input(upright)[0])
    assert explanation["map"]["shape"] == [HEIGHT // 4, WIDTH // 4]
    map = np.array(explanation["map"]["values"], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(map, expected, rtol=0, atol=2e-4)

    (region,) = explanation["boxes"]
    hot = file_box(disc.orientation, hot_box(map, box, width, height), width, height)
    assert region["box"] == pytest.approx(hot, abs=2e-3)
    left, top, right, bottom = region["box"]
    assert left < x < right
    assert top < y < bottom

    assert np.array_equal(decoded(explanation["overlay"]), stored)
    mask = decoded(explanation["mask"])[..., 0]
    assert mask.shape == (disc.height, disc.width)
    assert mask[y, x] > 127
    xs, ys = np.meshgrid(np.arange(disc.width) + 0.5, np.arange(disc.height) + 0.5)
    across, down = UPRIGHT[disc.orientation](xs, ys, disc.width, disc.height)
    across, down = (across - box.x0) / (box.x1 - box.x0), (down - box.y0) / (box.y1 - box.y0)
    inside = (across >= 0) & (across < 1) & (down >= 0) & (down < 1)
    levels = np.where(inside, sampled(map, across, down), 0) * 255
    assert np.abs(mask - levels).max() < 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_at_the_models_size_pictures_show_the_input(
    pipelines: dict[str, Pipeline], case: str, orientation: int
) -> None:
    stored = photo(("red", (150, 100), 30), ("blue", (220, 150), 20), width=301, height=203)
    file = save_image(Image.fromarray(stored), "PNG", exif=orientation_exif(orientation))
    options = {"alpha": 0, "image_format": "png", "target": ["red", "blue"]}
    layers = ["layer4.2", LAYER]
    (reply,) = single_reply(pipelines[case], json_request(file, layer=layers, **options))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(file)))
    shown = np.asarray(CASES[case][1](upright)[0])
    for explanation in reply["explanations"]:
        assert np.array_equal(decoded(explanation["overlay"]), shown)
        heatmap = explanation["heatmap"]
        assert (heatmap["width"], heatmap["height"]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 255)])
def test_a_range_with_its_own_mean_and_std_changes_no_answer(
    load: Callable[..., Pipeline], pipelines: dict[str, Pipeline], low: int, high: int
) -> None:
    mean = (low + (high - low) * MEAN.double()).tolist()
    std = ((high - low) * STD.double()).tolist()
    section = {"fit": "pad", "crop": [HEIGHT, WIDTH], "range": [low, high]}
    ranged = load(
        preprocess={**section, "mean": mean, "std": std},
        layers=[LAYER],
        precision="float32",
        compile="off",
    )
    file = save_image(Image.fromarray(photo(("red", (150, 100), 30))), "PNG")
    row = json_request(file, target="red", layer=LAYER, outputs=["map", "boxes", "mask"])
    (got,), (expected,) = (single_reply(one, row) for one in (ranged, pipelines["pad"]))
    assert_replies_close(got, expected)


def test_the_default_layer_has_a_map_of_the_inputs_shape(pipelines: dict[str, Pipeline]) -> None:
    file = cv2.imencode(".png", photo(("red", (260, 60), 40))[..., ::-1])[1].tobytes()
    row = json_request(file, outputs=["map"], target="red")
    (reply,) = single_reply(pipelines["stretch"], row)
    map = reply["explanations"][0]["map"]
    assert map["shape"] == [4, 8]
    row_of_peak, column_of_peak = divmod(int(np.argmax(map["values"])), 8)
    # 260 of 320 and 60 of 240; a cell has the value of its first pixel.
    assert column_of_peak in (6, 7)
    assert row_of_peak in (1, 2)
