"""The network cut at its layer: as fast as may be, and the same as it came."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.testing import assert_close

from camserve.explain import hooks
from camserve.networks import acceleration, hardware, openvino_backend
from camserve.networks.acceleration import AccelerationResult
from camserve.networks.classifier import build
from camserve.networks.layers import last_spatial_layer
from camserve.networks.openvino_backend import OpenVINOModule
from camserve.pipeline import Pipeline
from tests.support.color_resnet import photo, png
from tests.support.contract import assert_alike
from tests.support.request_builders import answer, form, jsoned
from tests.support.small_networks import gradients_of

BATCH = 8
THREADS = 2
MISSING = "OpenVINO is not here: No module named 'openvino'"
NO_FASTER = "the processor multiplies bfloat16 no faster than float32"


class Small(nn.Module):
    """Two convolutions, the target layer, pooling and scores: long sums and a norm among them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 5, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.layer = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 3)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var)
        self.eval()

    def trunk(self, inputs: Tensor) -> Tensor:
        first = self.norm(self.first(inputs))
        return F.relu(self.second(F.relu(first)) + first)

    def head(self, activations: Tensor) -> Tensor:
        return self.fc(activations.mean((2, 3)))

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.layer(self.trunk(inputs)))


class Bearing(Small):
    """All of its trunk's convolutions bear bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()).eval()  # type: ignore[assignment]

    def trunk(self, inputs: Tensor) -> Tensor:
        first = F.relu(self.norm(self.first(inputs)))
        return F.relu(self.second(first) + first)


def noise(batch: int, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def accelerate(
    network: nn.Module,
    layer: str = "layer",
    precision: Any = "float32",
    compile: Any = "auto",
    side: int = 16,
) -> AccelerationResult:
    return acceleration.accelerate(
        network, layer, noise(1, side), BATCH, THREADS, precision, compile
    )


def cut(network: nn.Module, layer: str = "layer", **how: Any) -> acceleration.Cut:
    fast = accelerate(network, layer, **how)
    assert fast.cut is not None, fast.reason
    return fast.cut


def run(network: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output and the scores."""
    found: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, args, output: found.append(output.clone()))
    with hook, torch.no_grad():
        scores = network(inputs.clone())
    (activations,) = found
    return activations, scores


def apart(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).detach().norm() / expected.detach().norm())


# Networks of torchvision: by name, what they are built with, and the side of their input.
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


@pytest.fixture(scope="module")
def subject() -> Callable[[str], tuple[nn.Module, str, int]]:
    """A network whose norms have seen noise, its default layer, its side; made once."""
    made: dict[str, tuple[nn.Module, str, int]] = {}

    def subject(arch: str) -> tuple[nn.Module, str, int]:
        if arch not in made:
            kwargs, side = NETWORKS[arch]
            torch.manual_seed(0)
            network = build(arch, kwargs, 10)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            with torch.no_grad():
                network.train()(noise(4, side, seed=1))
            network.eval()
            made[arch] = network, last_spatial_layer(network, noise(1, side)), side
        return made[arch]

    return subject


@pytest.mark.parametrize("arch", NETWORKS)
def test_a_fast_network_is_the_network_as_it_came(arch: str, subject: Callable[..., Any]) -> None:
    network, layer, side = subject(arch)
    fast = cut(network, layer, side=side)
    inputs = noise(3, side, seed=2)
    activations, scores = run(network, network.get_submodule(layer), inputs)
    fast_activations, fast_scores = run(fast, fast.layer, inputs)
    assert apart(fast_activations, activations) < 1e-4
    assert apart(fast_scores, scores) < 1e-4


# Inception's depth makes of noise what it will; of the others, these bear it.
@pytest.mark.parametrize("arch", ["resnet18", "googlenet", "vgg11"])
def test_in_bfloat16_it_is_nearly_so(arch: str, subject: Callable[..., Any]) -> None:
    network, layer, side = subject(arch)
    fast = accelerate(network, layer, precision="bfloat16", side=side)
    assert fast.cut is not None, fast.reason
    assert fast.precision == "bfloat16"
    inputs = noise(3, side, seed=2)
    activations, scores = run(network, network.get_submodule(layer), inputs)
    fast_activations, fast_scores = run(fast.cut, fast.cut.layer, inputs)
    # Noise in, and norms that have seen no more: of photos, a trained network makes far less of it.
    assert 1e-4 < apart(fast_activations, activations) < 0.25
    assert apart(fast_scores, scores) < 0.25


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
@pytest.mark.parametrize("arch", ["convnext_tiny", "mobilenet_v2", "densenet121"])
def test_where_not_all_of_it_bears_bfloat16_it_is_compiled_in_float32_and_says_so(
    arch: str, precision: str, subject: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    network, layer, side = subject(arch)
    fast = accelerate(network, layer, precision=precision, side=side)
    assert (fast.precision, fast.compiled) == ("float32", True)
    assert fast.reason == "not all of its convolutions bear bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_photo_has_the_same_scores_in_a_batch_of_any_size(
    arch: str, precision: str, subject: Callable[..., Any]
) -> None:
    network, layer, side = subject(arch)
    fast = cut(network, layer, precision=precision, side=side)
    inputs = noise(BATCH, side, seed=3)
    _, together = run(fast, fast.layer, inputs)
    for size in range(1, BATCH + 1):
        _, scores = run(fast, fast.layer, inputs[:size])
        assert apart(scores, together[:size]) < (1e-5 if precision == "float32" else 2e-2), size


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "densenet121", "squeezenet1_1"])
def test_gradients_at_the_layer_are_those_of_the_network(
    arch: str, subject: Callable[..., Any]
) -> None:
    network, layer, side = subject(arch)
    network = copy.deepcopy(network)
    fast = cut(network, layer, side=side)
    example, inputs, classes = noise(1, side), noise(3, side, seed=4), [5, 0, 9]
    ways = {
        "fast": hooks.HookedNetwork(fast, {layer: fast.layer}, example),
        "plain": hooks.HookedNetwork(network, [layer], example),
    }
    assert ways["fast"].shapes == ways["plain"].shapes
    assert ways["fast"].classes == ways["plain"].classes == 10
    scores = {name: way.forward(inputs, [layer]) for name, way in ways.items()}
    assert apart(scores["fast"].logits, scores["plain"].logits) < 1e-4
    gradients = {name: gradients_of(one, range(3), classes)[layer] for name, one in scores.items()}
    assert apart(gradients["fast"], gradients["plain"]) < 1e-4


@pytest.mark.parametrize(
    ("precision", "compile"),
    # What OpenVINO computes has no tape anyway; what PyTorch computes has one.
    [("float32", "auto"), ("bfloat16", "auto"), ("bfloat16", "off")],
)
def test_the_trunk_leaves_no_tape(precision: str, compile: str) -> None:
    network = Small()  # nothing in it is frozen
    fast = cut(network, precision=precision, compile=compile)
    inputs = noise(2).requires_grad_()
    with torch.enable_grad():
        logits = fast(inputs)
    logits.sum().backward()
    assert inputs.grad is None
    assert network.first.weight.grad is None
    # The head's tape leads to its activations alone.
    assert network.fc.weight.grad is None

    layers = hooks.HookedNetwork(fast, {"layer": fast.layer}, noise(1))
    scores = layers.forward(noise(2), ["layer"])
    assert scores.activations["layer"].is_leaf
    assert scores.activations["layer"].dtype == scores.logits.dtype == torch.float32
    assert scores.logits.requires_grad


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("arch", ["resnet18", "efficientnet_b0"])
def test_a_network_is_not_changed_by_being_made_fast(
    arch: str, precision: str, subject: Callable[..., Any]
) -> None:
    network, layer, side = subject(arch)
    before = copy.deepcopy(network)
    fast = cut(network, layer, precision=precision, side=side)
    run(fast, fast.layer, noise(2, side))
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


# Settings


RUNS: list[tuple[str, str, bool, bool, tuple[str | None, bool, str]]] = [
    ("auto", "auto", True, True, ("bfloat16", True, "")),
    ("auto", "auto", False, True, ("float32", True, NO_FASTER)),
    ("auto", "auto", True, False, ("bfloat16", False, MISSING)),
    ("auto", "auto", False, False, (None, False, f"{MISSING}; {NO_FASTER}")),
    ("auto", "off", True, True, (None, False, "compile is off")),
    ("auto", "off", False, False, (None, False, "compile is off")),
    ("float32", "auto", True, True, ("float32", True, "")),
    ("float32", "auto", False, True, ("float32", True, "")),
    ("float32", "auto", True, False, (None, False, MISSING)),
    ("float32", "off", True, True, (None, False, "compile is off")),
    ("bfloat16", "auto", True, True, ("bfloat16", True, "")),
    ("bfloat16", "auto", False, True, ("bfloat16", True, "")),
    ("bfloat16", "auto", False, False, ("bfloat16", False, MISSING)),
    ("bfloat16", "off", True, True, ("bfloat16", False, "compile is off")),
    ("bfloat16", "off", False, False, ("bfloat16", False, "compile is off")),
]


@pytest.mark.parametrize(("precision", "compile", "bfloat16", "openvino", "expected"), RUNS)
def test_settings_and_machine_say_how_the_trunk_runs(
    precision: str,
    compile: str,
    bfloat16: bool,
    openvino: bool,
    expected: tuple[str | None, bool, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(openvino_backend, "unavailable_reason", lambda: "" if openvino else MISSING)
    fast = accelerate(Bearing(), precision=precision, compile=compile)
    numbers, compiles, reason = expected
    assert (fast.precision, fast.compiled, fast.reason) == (numbers or "float32", compiles, reason)
    assert (fast.cut is None) is (numbers is None)


@pytest.mark.parametrize(
    ("precision", "compile", "bfloat16", "openvino", "numbers", "compiles"),
    [(*settings, numbers, compiles) for *settings, (numbers, compiles, _) in RUNS if numbers],
)
def test_a_trunk_runs_as_it_is_said_to(
    precision: str,
    compile: str,
    bfloat16: bool,
    openvino: bool,
    numbers: str,
    compiles: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(openvino_backend, "unavailable_reason", lambda: "" if openvino else MISSING)
    network = Bearing()
    fast = cut(network, precision=precision, compile=compile)
    _, scores = run(network, network.layer, noise(2))
    _, found = run(fast, fast.layer, noise(2))
    assert apart(found, scores) < (1e-5 if numbers == "float32" else 0.05)
    assert (apart(found, scores) > 1e-4) is (numbers == "bfloat16")
    assert any(isinstance(part, OpenVINOModule) for part in fast.trunk.modules()) is compiles


# Networks that cannot be cut, or only in a way


class Branch(Small):
    """What is before the layer reaches the scores beside it."""

    def forward(self, inputs: Tensor) -> Tensor:
        before = self.trunk(inputs)
        return self.head(self.layer(before) + before[:, :6])


class FromThePhoto(Small):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + inputs.mean((2, 3))


class Twice(Small):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + super().forward(-inputs)


class Never(Small):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.trunk(inputs)[:, :6])


class Undecided(Small):
    """Which way it goes depends on the photo."""

    def trunk(self, inputs: Tensor) -> Tensor:
        return super().trunk(inputs if inputs.mean() > 0 else -inputs)


class Untraceable(Small):
    """Python that cannot be followed, in the head."""

    def head(self, activations: Tensor) -> Tensor:
        return torch.stack([super(Untraceable, self).head(one[None])[0] for one in activations])


class Pair(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(inputs), inputs


class Tuples(Small):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Pair(self.layer)  # type: ignore[assignment]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layer(self.trunk(inputs))[0])


class LyingTrunk(Small):
    """Another when it is traced."""

    def trunk(self, inputs: Tensor) -> Tensor:
        return super().trunk(inputs * (2 if isinstance(inputs, fx.Proxy) else 1))


class LyingHead(Small):
    def head(self, activations: Tensor) -> Tensor:
        return super().head(activations) * (2 if isinstance(activations, fx.Proxy) else 1)


class OtherShape(Small):
    def trunk(self, inputs: Tensor) -> Tensor:
        trunk = super().trunk(inputs)
        return trunk[:, :, ::2] if isinstance(inputs, fx.Proxy) else trunk


class Hooked(Small):
    """A hook that the network itself has put on one of its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.second.register_forward_hook(lambda module, args, output: output * 3)


class Alias(Small):
    """A value changed in place under its other name."""

    def trunk(self, inputs: Tensor) -> Tensor:
        value = same = self.first(inputs)
        value.add_(self.second(value))
        return F.relu(same)


IS_UNFIT = {
    Branch: "more than layer 'layer' leads from the photo to the scores",
    FromThePhoto: "more than layer 'layer' leads from the photo to the scores",
    Twice: "layer 'layer' runs 2 times",
    Never: "layer 'layer' runs 0 times",
    Undecided: "control flow",
    Untraceable: "cannot be iterated|control flow",
    Tuples: "layer 'layer' gives no tensor",
    LyingTrunk: "its trace differs from the network as it came by",
    LyingHead: "its trace",
    OtherShape: "its trace gives",
    Hooked: "its trace differs from the network as it came by",
    Alias: "its trace differs from the network as it came by",
}


@pytest.mark.parametrize("kind", IS_UNFIT, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_cannot_be_cut_stays_as_it_came_and_says_why(
    precision: str, kind: type[Small]
) -> None:
    fast = accelerate(kind(), precision=precision)
    assert fast.cut is None
    assert (fast.precision, fast.compiled) == ("float32", False)
    assert fast.reason.startswith("it cannot be cut at 'layer': ")
    assert "\n" not in fast.reason
    assert any(reason in fast.reason for reason in IS_UNFIT[kind].split("|")), fast.reason


def test_no_hook_is_left_on_a_network_that_cannot_be_cut() -> None:
    for kind in (Branch, Twice, Never, Undecided, LyingTrunk, Tuples):
        network = kind()
        accelerate(network, precision="auto")
        assert not any(module._forward_hooks for module in network.modules()), kind


# In the trunk or the head: steps whose result is used by way of what they have changed.
class ChangesItsInput(Small):
    def trunk(self, inputs: Tensor) -> Tensor:
        inputs.sub_(0.5)
        return super().trunk(inputs)


class ChangesAValue(Small):
    def trunk(self, inputs: Tensor) -> Tensor:
        value = self.first(inputs)
        value.clamp_(0, 0.2)
        return self.second(value)


class ChangesTheHead(Small):
    def head(self, activations: Tensor) -> Tensor:
        pooled = activations.mean((2, 3))
        pooled.mul_(5)
        return self.fc(pooled)


class ChangesTheLayers(Small):
    def head(self, activations: Tensor) -> Tensor:
        F.relu_(activations)
        return super().head(activations)


class CountsSamples(Small):
    """The head asks an early value how many samples there are."""

    def forward(self, inputs: Tensor) -> Tensor:
        pooled = self.layer(self.trunk(inputs)).mean((2, 3), keepdim=True)
        return self.fc(pooled.view(inputs.size(0), -1))


class CountsByShape(Small):
    def forward(self, inputs: Tensor) -> Tensor:
        count = inputs.shape[0]
        pooled = self.layer(self.trunk(inputs)).mean((2, 3), keepdim=True)
        return self.fc(pooled.reshape(count, 6))


class CountsOtherThings(Small):
    """The head reads the first side of what is no batch."""

    def head(self, activations: Tensor) -> Tensor:
        rows = activations.flatten(2).transpose(1, 2).reshape(-1, 6)
        scores = F.linear(rows, self.fc.weight, self.fc.bias)
        return scores.view(rows.size(0) // 256, 256, self.fc.weight.shape[0]).mean(1)


class Parameters(Small):
    """The head uses a parameter of the trunk's."""

    def head(self, activations: Tensor) -> Tensor:
        return super().head(activations) * self.norm.weight.mean()


class Functional(Small):
    """Parameters that no module uses."""

    def trunk(self, inputs: Tensor) -> Tensor:
        value = F.relu(super().trunk(inputs))
        weight = self.second.weight
        value = F.conv2d(value, (weight - weight.mean()) / weight.std(), padding=1)
        return F.linear(value.movedim(1, 3), self.layer.weight[0, :, 0, 0].diag()).movedim(3, 1)


class Position(Small):
    """A parameter as large as a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(noise(1, 16, seed=5)[:, :1].repeat(1, 8, 1, 1))

    def trunk(self, inputs: Tensor) -> Tensor:
        return F.relu(self.norm(self.first(inputs)) + self.location)


class Spread(Small):
    """A block that adds to every place what it made of their mean."""

    def trunk(self, inputs: Tensor) -> Tensor:
        value = super().trunk(inputs)
        return value + self.second(value.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    "kind",
    [
        ChangesItsInput, ChangesAValue, ChangesTheHead, ChangesTheLayers, CountsSamples,
        CountsByShape, CountsOtherThings, Parameters, Functional, Position, Spread,
    ],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_whatever_a_network_does_it_is_served_as_it_came(precision: str, kind: type[Small]) -> None:
    network = kind()
    expected = [run(network, network.layer, noise(size))[1] for size in (1, 2, BATCH)]
    fast = accelerate(network, precision=precision)
    served, layer = (network, network.layer) if fast.cut is None else (fast.cut, fast.cut.layer)
    for scores in expected:
        _, found = run(served, layer, noise(len(scores)))
        assert apart(found, scores) < (1e-5 if precision == "float32" else 0.05), fast


@pytest.mark.parametrize("kind", [CountsSamples, CountsByShape, Parameters, Position, Spread])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_what_can_be_cut_is_cut(
    precision: str, kind: type[Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    fast = accelerate(kind(), precision=precision)
    assert fast.cut is not None, fast.reason
    assert fast.compiled


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_what_openvino_does_not_know_is_served_as_it_came_and_says_so(precision: str) -> None:
    fast = accelerate(Functional(), precision=precision)
    assert (fast.cut, fast.precision, fast.compiled) == (None, "float32", False)
    unknown = "OpenVINO cannot compile it: No conversion rule found for operations: aten::diag"
    assert unknown in fast.reason


class Chaotic(Bearing):
    """It multiplies rounding errors: those of bfloat16 to all there is, those of float32 not."""

    def trunk(self, inputs: Tensor) -> Tensor:
        return torch.sin(200 * super().trunk(inputs))


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_a_network_that_does_not_bear_bfloat16_has_it_only_where_told(
    compile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    network = Chaotic()
    told = accelerate(network, precision="bfloat16", compile=compile)
    assert (told.cut is None, told.precision) == (False, "bfloat16")
    left = accelerate(network, precision="auto", compile=compile)
    assert left.precision == "float32"
    assert told.cut is not None
    activations, _ = run(network, network.layer, noise(2))
    assert apart(run(told.cut, told.cut.layer, noise(2))[0], activations) > 0.1


def test_a_network_that_does_not_bear_bfloat16_is_compiled_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    network = Chaotic()
    left = accelerate(network, precision="auto")
    assert left.cut is not None
    assert left.compiled
    assert left.reason.startswith("in bfloat16 it differs from the network as it came by ")
    _, scores = run(network, network.layer, noise(2))
    assert apart(run(left.cut, left.cut.layer, noise(2))[1], scores) < 1e-3


# A pipeline on top of it

SIDE = 16
PHOTO = png(photo(("red", (60, 40), 30), ("blue", (20, 70), 15), width=120, height=100))


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """An archive of a network of this module; keywords are its ``handler:`` section."""

    def serve(kind: type[nn.Module], **section: Any) -> Pipeline:
        directory = tmp_path_factory.mktemp("archive")
        save_file(kind().state_dict(), directory / "weights.safetensors")
        (directory / "labels.json").write_text('["a", "b", "c"]')
        section = {
            "arch": f"test_trunk:{kind.__name__}",
            "layer": "layer",
            "preprocess": {"resize": SIDE, "crop": SIDE},
            **section,
        }
        model = {"name": "small", "version": "1.0"}
        config = {"batchSize": BATCH, "handler": section}
        return Pipeline.load(config, directory, model, torch.device("cpu"))

    return serve


def scores_of(reply: dict[str, Any]) -> list[float]:
    by_class = sorted(reply["predictions"], key=lambda one: one["class_id"])
    return [one["score"] for one in by_class]


@pytest.mark.parametrize(
    "kind", [Branch, FromThePhoto, Undecided, Untraceable, LyingTrunk, LyingHead, ChangesTheHead,
             ChangesItsInput, CountsOtherThings, Hooked, Position, Spread, Small]
)  # fmt: skip
def test_a_pipeline_serves_every_network_as_it_came(
    kind: type[Small], serve: Callable[..., Pipeline]
) -> None:
    reference = serve(kind, precision="float32", compile="off")
    assert reference.loaded.fast.cut is None
    for precision in ("float32", "bfloat16"):
        pipeline = serve(kind, precision=precision)
        asked = [form(PHOTO, target="b", outputs="map")] * 3
        for found, expected in zip(
            answer(pipeline, *asked), answer(reference, *asked), strict=True
        ):
            assert scores_of(found) == pytest.approx(scores_of(expected), abs=0.01)
            one, other = (reply["explanations"][0] for reply in (found, expected))
            assert one["peak"] == pytest.approx(other["peak"], rel=0.05, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "section", "described", "logged"),
    [
        (Small, {"precision": "float32"}, ("float32", True, ""), "float32, compiled, "),
        (
            Small, {"precision": "bfloat16", "compile": "off"},
            ("bfloat16", False, "compile is off"), "bfloat16, eager (compile is off), ",
        ),
        (
            Small, {"precision": "float32", "compile": "off"},
            ("float32", False, "compile is off"), "float32, eager (compile is off), ",
        ),
        (
            Branch, {"precision": "float32"},
            ("float32", False, "it cannot be cut at 'layer': more than layer 'layer' leads from "
             "the photo to the scores"),
            "float32, eager (it cannot be cut at 'layer': more than layer",
        ),
    ],
)  # fmt: skip
def test_log_and_description_say_how_the_trunk_runs(
    kind: type[Small],
    section: dict[str, str],
    described: tuple[str, bool, str],
    logged: str,
    serve: Callable[..., Pipeline],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "camserve"):
        pipeline = serve(kind, **section)
    model = json.loads(pipeline.describe().body)["model"]
    keys = ("precision", "compiled", "not_faster_because")
    assert tuple(model[key] for key in keys) == described
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("cams")]
    assert line.startswith("test_trunk:")
    assert logged in line


class NormLast(Small):
    """The layer is no part of a kernel: the fast trunk runs the very same module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.BatchNorm2d(8).eval()
        self.fc = nn.Linear(8, 3)


class PooledLast(Small):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 3)


@pytest.mark.parametrize("kind", [Small, NormLast, PooledLast])
@pytest.mark.parametrize("layers", [[], ["second"], ["first", "second"]])
def test_any_layer_may_be_served_beside_others(
    layers: list[str], kind: type[Small], serve: Callable[..., Pipeline]
) -> None:
    pipeline = serve(kind, layers=layers, precision="float32")
    assert pipeline.loaded.fast.cut is not None
    reference = serve(kind, layers=layers, precision="float32", compile="off")
    for layer in ["layer", *layers, ["layer", *layers]]:
        asked = jsoned(PHOTO, target="b", layer=layer, outputs=["map"])
        (found,), (expected,) = answer(pipeline, asked), answer(reference, asked)
        assert_alike(found, expected)


@pytest.fixture
def both(serve: Callable[..., Pipeline]) -> tuple[Pipeline, list[tuple[int, int]]]:
    """A fast network with a second layer to ask for, and its passes: which way, how many photos."""
    pipeline = serve(Small, layers=["second"], precision="float32")
    passes: list[tuple[int, int]] = []
    for n, way in enumerate(pipeline.forward_paths):
        way.network.register_forward_hook(
            lambda module, args, output, n=n: passes.append((n, len(output)))
        )
    return pipeline, passes


ASKED = {
    "default": jsoned(PHOTO, target="a", outputs=["map"]),
    "unexplained": jsoned(PHOTO, explain=False),
    "unexplained, other": jsoned(PHOTO, explain=False, layer="second"),
    "other": jsoned(PHOTO, layer="second", target="b", outputs=["map"]),
    "both": jsoned(PHOTO, layer=["layer", "second"], target=["a", "b"], outputs=["map"]),
    "failing": form(b"no photo"),
}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["default"], [(0, 1)]),
        (["other"], [(1, 1)]),
        (["both"], [(1, 1)]),
        (["unexplained", "unexplained, other"], [(0, 2)]),
        (["other", "default", "failing", "both", "unexplained"], [(0, 2), (1, 2)]),
        (["default"] * 9 + ["other"] * 10, [(0, 8), (0, 1), (1, 8), (1, 2)]),
        (["failing"], []),
    ],
)
def test_photos_explained_elsewhere_go_another_way_and_no_answer_depends_on_it(
    names: list[str],
    expected: list[tuple[int, int]],
    both: tuple[Pipeline, list[tuple[int, int]]],
) -> None:
    pipeline, passes = both
    found = answer(pipeline, *(ASKED[name] for name in names))
    assert passes == expected
    alone = {name: answer(pipeline, ASKED[name])[0] for name in set(names)}
    for name, one in zip(names, found, strict=True):
        assert_alike(one, alone[name], name)


def test_only_a_network_with_other_layers_to_explain_is_kept_beside_its_fast_one(
    serve: Callable[..., Pipeline],
) -> None:
    alone, beside = serve(Small, precision="float32"), serve(Small, layers=["second"])
    assert [list(way.shapes) for way in alone.forward_paths] == [["layer"]]
    assert alone.network.module is alone.forward_paths[0].network
    assert [list(way.shapes) for way in beside.forward_paths] == [["layer"], ["layer", "second"]]
    eager = serve(Small, layers=["second"], precision="float32", compile="off")
    assert [list(way.shapes) for way in eager.forward_paths] == [["layer", "second"]]
    assert_close(
        torch.tensor(scores_of(answer(alone, form(PHOTO))[0])),
        torch.tensor(scores_of(answer(eager, form(PHOTO))[0])),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
