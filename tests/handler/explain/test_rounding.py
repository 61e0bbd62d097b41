"""A map that only rounding errors make is no evidence, in float32 and in bfloat16."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from camserve.explain import ExplanationRequest, HookedNetwork, LayerMap, explain_batch
from camserve.explain.rounding import RoundingErrors
from camserve.explain.targets import Target
from camserve.networks import accelerate
from camserve.options import Method
from tests.support.small_networks import pictures, with_batchnorm_statistics

SIDE = 96
LAYERS = {"resnet18": "layer4.1", "mobilenet_v3_small": "features.12"}
LEVELS = [(1.0, 0.0, 0.0), (0.04, 0.08, 0.12), (0.5, 0.5, 0.5), (0.8, 0.7, 0.08)]


def without_borders(arch: str) -> nn.Module:
    """A seeded network whose padding repeats the photo: of a plain photo all cells are the same."""
    network = with_batchnorm_statistics(arch, 5)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = "circular"
        if isinstance(module, nn.MaxPool2d):
            module.padding = 0
    return network


@pytest.fixture(scope="module", params=LAYERS)
def paths(request: pytest.FixtureRequest) -> dict[str, HookedNetwork]:
    """The network as it is, and compiled."""
    network, layer = without_borders(request.param), LAYERS[request.param]
    example = pictures(SIDE)[0]
    accelerated = accelerate(
        without_borders(request.param), layer, example,
        batch_size=1, threads=2, precision="float32", compile="auto",
    ).network  # fmt: skip
    assert accelerated is not None
    return {
        "eager": HookedNetwork(network, {"last": network.get_submodule(layer)}, example),
        "compiled": HookedNetwork(accelerated, {"last": accelerated.layer}, example),
    }


def explain(path: HookedNetwork, photo: Tensor, method: Any) -> LayerMap:
    output = path.forward(photo, ["last"])
    request = ExplanationRequest((Target(0),), ("last",), method)
    ((explanation,),) = explain_batch(output, [request]).explained
    return explanation.maps[0]


@pytest.mark.parametrize("method", get_args(Method))
def test_a_plain_photo_gives_no_evidence(paths: dict[str, HookedNetwork], method: Method) -> None:
    plain = [
        ((torch.tensor(level) - 0.5) / 0.25).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE).contiguous()
        for level in LEVELS
    ]
    maps = [explain(path, photo, method) for path in paths.values() for photo in plain]
    assert [map.evidence for map in maps] == [False] * len(maps)
    assert [map.values.any() for map in maps] == [False] * len(maps)


@pytest.mark.parametrize("method", get_args(Method))
def test_faint_detail_is_evidence(paths: dict[str, HookedNetwork], method: Method) -> None:
    """A twentieth of the contrast is enough."""
    faint = 0.05 * pictures(SIDE)[1]
    maps = [explain(path, faint, method) for path in paths.values()]
    assert [map.peak > 0 for map in maps] == [map.evidence for map in maps]


def test_errors_are_relative_to_the_value_and_to_what_the_channel_usually_has() -> None:
    grid = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    activations = torch.zeros(2, 2, 5, 5)
    activations[1] = 100
    for bfloat16, size in ((False, 2.0**-17), (True, 2.0**-8)):
        errors = RoundingErrors.of(grid, bfloat16).apply(activations) - activations
        torch.testing.assert_close(errors[0].abs(), size * grid[0])
        torch.testing.assert_close(errors[1].abs(), size * (grid[0] + 100), rtol=0.1, atol=0)
        assert (errors > 0).any()
        assert (errors < 0).any()
