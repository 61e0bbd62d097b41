"""A network of grey photos: its input is their luma, and pictures stay in colour."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from camserve.description import describe
from camserve.images import Pixels, to_channels
from camserve.networks import GridLayout
from camserve.pipeline import Pipeline
from tests.handler.conftest import CONFIG
from tests.support import grey_network
from tests.support.contract import decoded
from tests.support.image_files import noise, orientation_exif, save_image
from tests.support.request_builders import json_request, single_reply

HEIGHT, WIDTH = 48, 64
PREPROCESS = {
    "fit": "stretch",
    "crop": [HEIGHT, WIDTH],
    "channels": 1,
    "mean": grey_network.MEAN,
    "std": [grey_network.STD],
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    directory = tmp_path_factory.mktemp("grey")
    save_file(grey_network.build().state_dict(), directory / "weights.safetensors")
    (directory / "labels.json").write_text(json.dumps(grey_network.LABELS))
    config = yaml.safe_load(CONFIG.read_text())
    config["handler"] |= {
        "arch": "tests.support.grey_network:build",
        "layer": "cells",
        "preprocess": PREPROCESS,
        "precision": "float32",
    }
    model: Any = {"name": "grey", "version": "1.0"}
    return Pipeline.load(config, directory, model, torch.device("cpu"))


def colored_photo() -> Pixels:
    """Yellow, which is bright, beside blue, which is dark; red and green below."""
    photo = np.zeros((96, 128, 3), np.uint8)
    photo[:48, :64], photo[:48, 64:] = (255, 255, 0), (0, 0, 255)
    photo[48:, :64], photo[48:, 64:] = (255, 0, 0), (0, 255, 0)
    return photo


@pytest.mark.parametrize(
    ("color", "luma"),
    # 0.299 R + 0.587 G + 0.114 B, rounded.
    [
        ((255, 0, 0), 76),
        ((0, 255, 0), 150),
        ((0, 0, 255), 29),
        ((255, 255, 0), 226),
        ((10, 200, 90), 131),
        ((255, 255, 255), 255),
        ((0, 0, 0), 0),
        *(((level,) * 3, level) for level in (1, 127, 128, 254)),
    ],
)
def test_grey_is_the_luma_of_itu_r_601(color: tuple[int, int, int], luma: int) -> None:
    pixels = np.full((2, 3, 3), color, np.uint8)
    assert np.array_equal(to_channels(pixels, 1), np.full((2, 3, 1), luma, np.uint8))


def test_grey_equals_torchvisions_and_colour_is_as_it_was() -> None:
    pixels = noise(60, 70, 3)
    grey = v2.Grayscale(1)(Image.fromarray(pixels))
    assert np.array_equal(to_channels(pixels, 1)[..., 0], np.asarray(grey))
    assert to_channels(pixels, 3) is pixels


def expected_map(photo: Pixels, target: str) -> Any:
    """By hand: the means of 8 x 8 pixels of the luma, on the target's side of medium grey."""
    resized = Image.fromarray(photo).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    values = (np.asarray(resized.convert("L")) / 255 - 0.5) / 0.25
    cells = values.reshape(HEIGHT // 8, 8, WIDTH // 8, 8).mean((1, 3))
    map = np.maximum(cells if target == "bright" else -cells, 0)
    return (map - map.min()) / (map.max() - map.min())


@pytest.mark.parametrize("target", grey_network.LABELS)
def test_maps_are_those_of_the_grey_photo(pipeline: Pipeline, target: str) -> None:
    photo = colored_photo()
    file = save_image(Image.fromarray(photo), "PNG")
    (reply,) = single_reply(pipeline, json_request(file, target=target, outputs=["map", "boxes"]))
    (explanation,) = reply["explanations"]
    expected = expected_map(photo, target)
    assert explanation["map"]["shape"] == [HEIGHT // 8, WIDTH // 8] == list(expected.shape)
    values = np.array(explanation["map"]["values"]).reshape(expected.shape)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("orientation", [1, 6])
def test_overlays_are_on_the_photo_in_colour(pipeline: Pipeline, orientation: int) -> None:
    stored = colored_photo()
    file = save_image(Image.fromarray(stored), "PNG", exif=orientation_exif(orientation))
    options = {"outputs": ["overlay"], "alpha": 0, "image_format": "png"}
    original, model = single_reply(
        pipeline,
        json_request(file, size="original", **options),
        json_request(file, size="model", **options),
    )
    assert np.array_equal(decoded(original["explanations"][0]["overlay"]), stored)
    upright = Image.fromarray(stored if orientation == 1 else np.rot90(stored, -1))
    shown = upright.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    assert np.array_equal(decoded(model["explanations"][0]["overlay"]), np.asarray(shown))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_photos_of_every_mode_are_answered(pipeline: Pipeline, mode: str) -> None:
    pixels = colored_photo()
    pixels[48:] = 255
    image = Image.fromarray(pixels).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    (reply,) = single_reply(pipeline, json_request(file.getvalue()))
    assert [one["label"] for one in reply["predictions"]] == ["bright", "dark"]


def test_the_description_has_channels_and_the_inputs_size(pipeline: Pipeline) -> None:
    found = describe(pipeline.model, pipeline.loaded)["preprocess"]
    assert (found["channels"], found["input_size"]) == (1, [HEIGHT, WIDTH])
    assert (found["mean"], found["std"], found["range"]) == ([0.5], [0.25], [0, 1])


def test_the_trunk_is_compiled_as_for_colour(pipeline: Pipeline) -> None:
    assert pipeline.loaded.acceleration.compiled
    layout = GridLayout("grid", 2, HEIGHT // 8, WIDTH // 8)
    assert pipeline.loaded.layouts == {"cells": layout}
