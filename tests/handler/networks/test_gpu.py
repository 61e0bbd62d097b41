"""On a GPU, where there is one: the same replies as on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from camserve.pipeline import Pipeline
from camserve.preprocess_settings import InputSize
from camserve.protocols import ModelBody
from tests.support.color_resnet import photo, png
from tests.support.request_builders import json_request, single_reply

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

DISCS = png(photo(("red", (90, 120), 40), ("blue", (230, 120), 30)))
REQUESTS = [
    json_request(DISCS, target=["red", "blue", "top:2", "red-blue"], outputs=["map", "boxes"]),
    json_request(DISCS, layer=["layer4.2", "layer3.5"], method="layercam", outputs=["map"]),
    json_request(DISCS, explain=False),
    json_request(b"no photo"),
]


@pytest.fixture(scope="module", params=["auto", "float32", "bfloat16"])
def on_gpu(
    make_archive: Callable[..., tuple[dict[str, Any], Path]], request: pytest.FixtureRequest
) -> Pipeline:
    config, directory = make_archive(arch_kwargs={}, layers=["layer3.5"], precision=request.param)
    model: ModelBody = {"name": "colours", "version": "1.0"}
    return Pipeline.load(config, directory, model, torch.device("cuda", 0))


def test_replies_are_those_of_a_cpu(on_gpu: Pipeline, load: Callable[..., Pipeline]) -> None:
    expected = single_reply(load(layers=["layer3.5"], precision="float32"), *REQUESTS)
    for reply, cpu_reply in zip(single_reply(on_gpu, *REQUESTS), expected, strict=True):
        assert reply.get("error") == cpu_reply.get("error")
        for prediction, on_cpu in zip(
            reply.get("predictions", []), cpu_reply.get("predictions", []), strict=True
        ):
            assert prediction["class_id"] == on_cpu["class_id"]
            assert prediction["probability"] == pytest.approx(on_cpu["probability"], abs=0.02)
        for explanation, on_cpu in zip(
            reply.get("explanations", []), cpu_reply.get("explanations", []), strict=True
        ):
            assert explanation["map"]["values"] == pytest.approx(on_cpu["map"]["values"], abs=0.02)


def test_parameters_and_outputs_are_on_the_servers_device(on_gpu: Pipeline) -> None:
    for path in on_gpu.forward_paths:
        assert {tensor.device.type for tensor in path.network.parameters()} == {"cuda"}
    inputs = on_gpu.network.example(InputSize(224, 224))
    scores = on_gpu.forward_paths[0].forward(inputs, ["layer4.2"])
    assert scores.logits.device == scores.activations["layer4.2"].device == torch.device("cuda", 0)
