"""The default layer is found in the network that is packaged, which stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from camserve.errors import SettingsError
from camserve.settings import Settings
from camserve_cli.packaging.explained_layer import find_layer
from tests.support.color_resnet import colour_resnet50

SMALL = {"resize": 64, "crop": 64}


def small_network(scores: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, scores))


def test_weights_that_are_zero_stay_zero() -> None:
    network = small_network().eval()
    network.get_parameter("5.weight").data.zero_()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert find_layer(network, Settings(preprocess=SMALL), 3) == "2"
    assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_no_hook_is_left(task: str) -> None:
    network = small_network(1 if task == "binary" else 3).eval()
    settings = Settings.model_validate({"task": task, "preprocess": SMALL})
    assert find_layer(network, settings, 2 if task == "binary" else 3) == "2"
    hooks = [hook for module in network.modules() for hook in module._forward_hooks.values()]
    assert hooks == []


def test_weights_that_are_nearly_all_zero_have_the_usual_layer() -> None:
    assert find_layer(colour_resnet50().eval(), Settings(preprocess=SMALL), 3) == "layer4.2"


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Threshold(1e9, 0.0)])
def test_scores_that_no_layer_changes_are_the_reason(end: nn.Module) -> None:
    network = nn.Sequential(*small_network(1), end).eval()
    settings = Settings.model_validate({"task": "binary", "preprocess": SMALL})
    with pytest.raises(SettingsError, match=r"do not change with any layer .* as '2': .*acc"):
        find_layer(network, settings, 2)


def test_a_network_without_a_grid_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)).eval()
    with pytest.raises(SettingsError, match="no module of the network gives a grid"):
        find_layer(network, Settings(preprocess=SMALL), 3)
