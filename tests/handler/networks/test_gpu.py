"""On a GPU, where there is one: the same answers, from the device that the server gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from camserve.pipeline import Pipeline
from tests.support.color_resnet import photo, png
from tests.support.request_builders import answer, jsoned

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

DISCS = png(photo(("red", (90, 120), 40), ("blue", (230, 120), 30)))
ROWS = [
    jsoned(DISCS, target=["red", "blue", "top:2", "red-blue"], outputs=["map", "boxes"]),
    jsoned(DISCS, layer=["layer4.2", "layer3.5"], method="layercam", outputs=["map"]),
    jsoned(DISCS, explain=False),
    jsoned(b"no photo"),
]


@pytest.fixture(scope="module", params=["auto", "float32", "bfloat16"])
def on_gpu(
    make_archive: Callable[..., tuple[dict[str, Any], Path]], request: pytest.FixtureRequest
) -> Pipeline:
    config, directory = make_archive(layers=["layer3.5"], precision=request.param)
    model = {"name": "colours", "version": "1.0"}
    return Pipeline.load(config, directory, model, torch.device("cuda", 0))


def test_the_answers_are_those_of_a_processor(
    on_gpu: Pipeline, load: Callable[..., Pipeline]
) -> None:
    expected = answer(load(layers=["layer3.5"], precision="float32"), *ROWS)
    for got, want in zip(answer(on_gpu, *ROWS), expected, strict=True):
        assert got.get("error") == want.get("error")
        for one, other in zip(got.get("predictions", []), want.get("predictions", []), strict=True):
            assert one["class_id"] == other["class_id"]
            assert one["probability"] == pytest.approx(other["probability"], abs=0.02)
        for one, other in zip(
            got.get("explanations", []), want.get("explanations", []), strict=True
        ):
            assert one["map"]["values"] == pytest.approx(other["map"]["values"], abs=0.02)


def test_everything_lies_on_the_device_that_was_given(on_gpu: Pipeline) -> None:
    for way in on_gpu.forward_paths:
        assert {tensor.device.type for tensor in way.network.parameters()} == {"cuda"}
    inputs = on_gpu.network.example(224)
    scores = on_gpu.forward_paths[0].forward(inputs, ["layer4.2"])
    assert scores.logits.device == scores.activations["layer4.2"].device == torch.device("cuda", 0)
