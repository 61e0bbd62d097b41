"""torchvision's networks, accelerated: their outputs and gradients are the original's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from camserve.explain import hooks
from camserve.networks import hardware
from camserve.networks.architectures import build
from camserve.networks.layers import default_layer
from camserve.networks.partition import PartitionedNetwork
from tests.support.accelerated_networks import (
    BATCH,
    accelerate,
    accelerated_network,
    needs_compiled_bf16,
    noise,
    relative_error,
    run,
)
from tests.support.small_networks import gradients_of

#: Of a batch, where its size does not matter.
PHOTOS = 3

# torchvision networks: the arguments of their constructors and the side of their input.
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 64),
    "vgg11": ({"init_weights": False}, 64),
    "mobilenet_v2": ({}, 64),
    "mobilenet_v3_small": ({}, 64),
    "densenet121": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "squeezenet1_1": ({}, 64),
    "shufflenet_v2_x0_5": ({}, 64),
    "regnet_y_400mf": ({}, 64),
    "mnasnet0_5": ({}, 64),
    "convnext_tiny": ({}, 64),
    "googlenet": ({"init_weights": False, "aux_logits": False}, 64),
    "inception_v3": ({"init_weights": False, "aux_logits": False}, 128),
}
#: Others are compiled in seconds each.
QUICK = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "convnext_tiny")


@pytest.fixture(scope="module")
def network_under_test() -> Callable[[str], tuple[nn.Module, str, int]]:
    """A network with batch norm statistics of noise, its default layer and its input's side."""

    @cache
    def network_under_test(arch: str) -> tuple[nn.Module, str, int]:
        kwargs, side = NETWORKS[arch]
        torch.manual_seed(0)
        network = build(arch, kwargs, 10)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(noise(4, side, seed=1))
        network.eval()
        return network, default_layer(network, noise(1, side), noise(1, side, seed=5)), side

    return network_under_test


@pytest.fixture(scope="module")
def accelerated_in_float32(
    network_under_test: Callable[..., Any],
) -> Callable[[str], PartitionedNetwork]:
    """The same network, accelerated in float32 for batches of PHOTOS; compiled once."""

    @cache
    def accelerated_in_float32(arch: str) -> PartitionedNetwork:
        network, layer, side = network_under_test(arch)
        return accelerated_network(network, layer, side=side, batch_size=PHOTOS)

    return accelerated_in_float32


@pytest.mark.parametrize(
    "arch",
    [arch if arch in QUICK else pytest.param(arch, marks=pytest.mark.slow) for arch in NETWORKS],
)
def test_accelerated_outputs_are_the_original_networks(
    arch: str, network_under_test: Callable[..., Any], accelerated_in_float32: Callable[..., Any]
) -> None:
    network, layer, side = network_under_test(arch)
    fast = accelerated_in_float32(arch)
    inputs = noise(PHOTOS, side, seed=2)
    activations, scores = run(network, network.get_submodule(layer), inputs)
    fast_activations, fast_scores = run(fast, fast.layer, inputs)
    assert relative_error(fast_activations, activations) < 1e-4
    assert relative_error(fast_scores, scores) < 1e-4


# These are safe in bfloat16; Inception, too, but it is so deep that it amplifies noise.
@needs_compiled_bf16
@pytest.mark.parametrize(
    "arch",
    ["resnet18", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("googlenet", "vgg11"))],
)
def test_bfloat16_outputs_are_close_to_the_original_networks(
    arch: str, network_under_test: Callable[..., Any]
) -> None:
    network, layer, side = network_under_test(arch)
    fast = accelerate(network, layer, precision="bfloat16", side=side, batch_size=PHOTOS)
    assert fast.network is not None, fast.fallback_reason
    assert fast.precision == "bfloat16"
    inputs = noise(PHOTOS, side, seed=2)
    activations, scores = run(network, network.get_submodule(layer), inputs)
    fast_activations, fast_scores = run(fast.network, fast.network.layer, inputs)
    # The error is that large for noise and untrained weights; for photos and a trained network it
    # is far smaller.
    assert 1e-4 < relative_error(fast_activations, activations) < 0.25
    assert relative_error(fast_scores, scores) < 0.25


@pytest.mark.parametrize(
    ("arch", "precision"),
    [
        pytest.param("convnext_tiny", "auto", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "bfloat16", marks=pytest.mark.slow),
        pytest.param("densenet121", "auto", marks=pytest.mark.slow),
        pytest.param("densenet121", "bfloat16", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", "auto", marks=pytest.mark.slow),
        ("mobilenet_v2", "bfloat16"),
    ],
)
def test_a_trunk_that_is_not_safe_in_bfloat16_is_compiled_in_float32(
    arch: str,
    precision: str,
    network_under_test: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    network, layer, side = network_under_test(arch)
    fast = accelerate(network, layer, precision=precision, side=side, batch_size=PHOTOS)
    assert (fast.precision, fast.compiled) == ("float32", True)
    assert fast.fallback_reason == "not all of the trunk's convolutions are safe in bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_photo_has_the_same_scores_in_a_batch_of_any_size(
    arch: str, precision: str, network_under_test: Callable[..., Any]
) -> None:
    network, layer, side = network_under_test(arch)
    fast = accelerated_network(network, layer, precision=precision, side=side)
    inputs = noise(BATCH, side, seed=3)
    _, together = run(fast, fast.layer, inputs)
    for size in range(1, BATCH + 1):
        _, scores = run(fast, fast.layer, inputs[:size])
        assert relative_error(scores, together[:size]) < (
            1e-5 if precision == "float32" else 2e-2
        ), size


@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
        "squeezenet1_1",
    ],
)
def test_gradients_at_the_layer_are_those_of_the_network(
    arch: str, network_under_test: Callable[..., Any], accelerated_in_float32: Callable[..., Any]
) -> None:
    network, layer, side = network_under_test(arch)
    network = copy.deepcopy(network)
    fast = accelerated_in_float32(arch)
    example, inputs, classes = noise(1, side), noise(PHOTOS, side, seed=4), [5, 0, 9]
    paths = {
        "fast": hooks.HookedNetwork(fast, {layer: fast.layer}, example),
        "plain": hooks.HookedNetwork(network, [layer], example),
    }
    assert paths["fast"].layouts == paths["plain"].layouts
    scores = {name: path.forward(inputs, [layer]) for name, path in paths.items()}
    assert relative_error(scores["fast"].logits, scores["plain"].logits) < 1e-4
    gradients = {
        name: gradients_of(output, range(3), classes)[layer] for name, output in scores.items()
    }
    assert relative_error(gradients["fast"], gradients["plain"]) < 1e-4


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        "mobilenet_v3_small",
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_acceleration_does_not_change_the_original_network(
    arch: str, precision: str, network_under_test: Callable[..., Any]
) -> None:
    network, layer, side = network_under_test(arch)
    before = copy.deepcopy(network)
    fast = accelerated_network(network, layer, precision=precision, side=side, batch_size=PHOTOS)
    run(fast, fast.layer, noise(PHOTOS, side))
    assert not network.training
    state, expected = network.state_dict(), before.state_dict()
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name
    with torch.no_grad():
        assert torch.equal(network(noise(2, side)), before(noise(2, side)))
    for module in [*network.modules(), *fast.modules()]:
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
