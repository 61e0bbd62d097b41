"""The accelerated network: its outputs are the original's, in every mode, or it is rejected."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.testing import assert_close

from camserve.explain import hooks
from camserve.networks import hardware, openvino_backend
from camserve.networks.openvino_backend import OpenVINOModule
from camserve.pipeline import Pipeline
from camserve.protocols import ModelBody
from tests.support.accelerated_networks import (
    BATCH,
    accelerate,
    accelerated_network,
    needs_compiled_bf16,
    noise,
    relative_error,
    run,
)
from tests.support.color_resnet import photo, png
from tests.support.contract import assert_replies_close
from tests.support.request_builders import form, json_request, single_reply

MISSING = "OpenVINO is not installed: No module named 'openvino'"
NO_FASTER = "this device computes bfloat16 no faster than float32"


class Small(nn.Module):
    """Two convolutions, the target layer, pooling and scores: long sums and a norm among them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 5, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.layer: nn.Module = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 3)
        nn.init.uniform_(cast(Tensor, self.norm.running_mean))
        nn.init.uniform_(cast(Tensor, self.norm.running_var))
        self.eval()

    def trunk(self, inputs: Tensor) -> Tensor:
        first = self.norm(self.first(inputs))
        return F.relu(self.second(F.relu(first)) + first)

    def head(self, activations: Tensor) -> Any:
        return self.fc(activations.mean((2, 3)))

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.layer(self.trunk(inputs)))


class Bf16Safe(Small):
    """All convolutions of its trunk are safe in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()).eval()

    def trunk(self, inputs: Tensor) -> Tensor:
        first = F.relu(self.norm(self.first(inputs)))
        return F.relu(self.second(first) + first)


@pytest.mark.parametrize(
    ("precision", "compile"),
    # Autograd never records OpenVINO, but it does record what runs in PyTorch.
    [("float32", "auto"), ("bfloat16", "auto"), ("bfloat16", "off")],
)
def test_autograd_does_not_record_the_trunk(precision: str, compile: str) -> None:
    network = Small()  # all its parameters require grad
    fast = accelerated_network(network, precision=precision, compile=compile)
    inputs = noise(2).requires_grad_()
    with torch.enable_grad():
        logits = fast(inputs)
    logits.sum().backward()
    assert inputs.grad is None
    assert network.first.weight.grad is None
    # In the head, gradients reach its activations alone.
    assert network.fc.weight.grad is None

    layers = hooks.HookedNetwork(fast, {"layer": fast.layer}, noise(1))
    scores = layers.forward(noise(2), ["layer"])
    assert scores.activations["layer"].is_leaf
    assert scores.activations["layer"].dtype == scores.logits.dtype == torch.float32
    assert scores.logits.requires_grad


# Settings


MODES: list[tuple[str, str, bool, bool, tuple[str | None, bool, str]]] = [
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


def marked(*mode: Any, dtype: str | None, compiled: bool) -> Any:
    """A row of a table, which is skipped where this processor does not compile in bfloat16."""
    marks = [needs_compiled_bf16] if dtype == "bfloat16" and compiled else []
    return pytest.param(*mode, marks=marks)


@pytest.mark.parametrize(
    ("precision", "compile", "bfloat16", "openvino", "expected"),
    [marked(*mode, dtype=mode[4][0], compiled=mode[4][1]) for mode in MODES],
)
def test_settings_and_hardware_decide_the_mode(
    precision: str,
    compile: str,
    bfloat16: bool,
    openvino: bool,
    expected: tuple[str | None, bool, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(openvino_backend, "unavailable_reason", lambda: "" if openvino else MISSING)
    fast = accelerate(Bf16Safe(), precision=precision, compile=compile)
    dtype, compiled, reason = expected
    assert (fast.precision, fast.compiled) == (dtype or "float32", compiled)
    assert fast.fallback_reason == reason
    assert (fast.network is None) is (dtype is None)


@pytest.mark.parametrize(
    ("precision", "compile", "bfloat16", "openvino", "dtype", "compiled"),
    [
        marked(*settings, dtype, compiled, dtype=dtype, compiled=compiled)
        for *settings, (dtype, compiled, _) in MODES
        if dtype
    ],
)
def test_a_trunk_runs_in_the_reported_mode(
    precision: str,
    compile: str,
    bfloat16: bool,
    openvino: bool,
    dtype: str,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(openvino_backend, "unavailable_reason", lambda: "" if openvino else MISSING)
    network = Bf16Safe()
    fast = accelerated_network(network, precision=precision, compile=compile)
    _, scores = run(network, network.layer, noise(2))
    _, fast_scores = run(fast, fast.layer, noise(2))
    assert relative_error(fast_scores, scores) < (1e-5 if dtype == "float32" else 0.05)
    assert (relative_error(fast_scores, scores) > 1e-4) is (dtype == "bfloat16")
    assert any(isinstance(part, OpenVINOModule) for part in fast.trunk.modules()) is compiled


# Networks whose head reads more than the layer's output


class Branch(Small):
    """A value of the trunk also reaches the scores around the layer."""

    def forward(self, inputs: Tensor) -> Any:
        before = self.trunk(inputs)
        return self.head(self.layer(before) + before[:, :6])


class FromThePhoto(Small):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs) + inputs.mean((2, 3))


class FromTheShape(Small):
    """The head reads the height of the photo, which is a number."""

    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs) * inputs.shape[2]


NOT_SAFE = "not all of the trunk's convolutions are safe in bfloat16"
EXPECTED = {"float32": "", "bfloat16": NOT_SAFE}


@pytest.mark.parametrize("kind", [Branch, FromThePhoto])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_leads_around_the_layer_is_computed_by_the_compiled_trunk(
    precision: str, kind: type[Small]
) -> None:
    network = kind()
    fast = accelerate(network, precision=precision)
    assert fast.network is not None
    assert (fast.compiled, fast.fallback_reason) == (True, EXPECTED[precision])
    for size in range(1, BATCH + 1):
        inputs = noise(size, seed=size)
        _, scores = run(network, network.layer, inputs)
        _, fast_scores = run(fast.network, fast.network.layer, inputs)
        assert relative_error(fast_scores, scores) < 1e-5


# Networks that cannot be split


class Twice(Small):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs) + super().forward(-inputs)


class Never(Small):
    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.trunk(inputs)[:, :6])


class Undecided(Small):
    """Control flow that depends on the photo."""

    def trunk(self, inputs: Tensor) -> Tensor:
        return super().trunk(inputs if inputs.mean() > 0 else -inputs)


class Untraceable(Small):
    """A loop over the samples in the head, which cannot be traced."""

    def head(self, activations: Tensor) -> Any:
        return torch.stack([super(Untraceable, self).head(row[None])[0] for row in activations])


class Pair(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(inputs), inputs


class Tuples(Small):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Pair(self.layer)

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.layer(self.trunk(inputs))[0])


class LyingTrunk(Small):
    """A trunk that computes something else while it is traced."""

    def trunk(self, inputs: Tensor) -> Tensor:
        return super().trunk(inputs * (2 if isinstance(inputs, fx.Proxy) else 1))


class LyingHead(Small):
    def head(self, activations: Tensor) -> Any:
        return super().head(activations) * (2 if isinstance(activations, fx.Proxy) else 1)


class OtherShape(Small):
    def trunk(self, inputs: Tensor) -> Tensor:
        trunk = super().trunk(inputs)
        return trunk[:, :, ::2] if isinstance(inputs, fx.Proxy) else trunk


class Hooked(Small):
    """The network has registered a hook on one of its own convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.second.register_forward_hook(lambda module, args, output: output * 3)


class Alias(Small):
    """A value is changed in place and read by another name."""

    def trunk(self, inputs: Tensor) -> Tensor:
        value = same = self.first(inputs)
        value.add_(self.second(value))
        return F.relu(same)


WHY_NOT_SPLIT = {
    FromTheShape: "the head reads a value of the trunk that is no tensor: ",
    Twice: "layer 'layer' is called 2 times, not once",
    Never: "layer 'layer' is called 0 times, not once",
    Undecided: "the network decides by the values of a tensor",
    Untraceable: "the network loops over the samples of a batch",
    Tuples: "layer 'layer' does not return a tensor",
    LyingTrunk: "tracing changes the network's outputs by",
    LyingHead: "tracing changes the network's outputs by",
    OtherShape: "tracing changes the shape of the network's outputs from (2, ",
    Hooked: "the module network.second has a hook",
    Alias: "add_ changes a value in place and what it returns is not read",
}


@pytest.mark.parametrize("kind", WHY_NOT_SPLIT, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_cannot_be_split_runs_unchanged_and_the_reason_is_reported(
    precision: str, kind: type[Small]
) -> None:
    fast = accelerate(kind(), precision=precision)
    assert fast.network is None
    assert (fast.precision, fast.compiled) == ("float32", False)
    assert fast.fallback_reason.startswith("cannot split the network at layer 'layer': ")
    assert "\n" not in fast.fallback_reason
    assert WHY_NOT_SPLIT[kind] in fast.fallback_reason


def test_no_hook_is_left_on_a_network_that_cannot_be_split() -> None:
    for kind in (Twice, Never, Undecided, LyingTrunk, Tuples):
        network = kind()
        accelerate(network, precision="auto")
        assert not any(module._forward_hooks for module in network.modules()), kind


# Operations in the trunk or head that return nothing: they change a value in place.


class ChangesItsInput(Small):
    def trunk(self, inputs: Tensor) -> Tensor:
        inputs.sub_(0.5)
        return super().trunk(inputs)


class ChangesAValue(Small):
    def trunk(self, inputs: Tensor) -> Any:
        value = self.first(inputs)
        value.clamp_(0, 0.2)
        return self.second(value)


class ChangesTheHead(Small):
    def head(self, activations: Tensor) -> Any:
        pooled = activations.mean((2, 3))
        pooled.mul_(5)
        return self.fc(pooled)


class ChangesTheLayers(Small):
    def head(self, activations: Tensor) -> Any:
        F.relu_(activations)
        return super().head(activations)


class CountsSamples(Small):
    """The head reads the batch size from a value of the trunk."""

    def forward(self, inputs: Tensor) -> Any:
        pooled = self.layer(self.trunk(inputs)).mean((2, 3), keepdim=True)
        return self.fc(pooled.view(inputs.size(0), -1))


class CountsByShape(Small):
    def forward(self, inputs: Tensor) -> Any:
        count = inputs.shape[0]
        pooled = self.layer(self.trunk(inputs)).mean((2, 3), keepdim=True)
        return self.fc(pooled.reshape(count, 6))


class CountsOtherThings(Small):
    """The head reads the first axis of a value that is no batch."""

    def head(self, activations: Tensor) -> Any:
        rows = activations.flatten(2).transpose(1, 2).reshape(-1, 6)
        scores = F.linear(rows, self.fc.weight, self.fc.bias)
        return scores.view(rows.size(0) // 256, 256, self.fc.weight.shape[0]).mean(1)


class Parameters(Small):
    """The head uses a parameter of the trunk's."""

    def head(self, activations: Tensor) -> Any:
        return super().head(activations) * self.norm.weight.mean()


class Functional(Small):
    """Functions with parameters instead of modules."""

    def trunk(self, inputs: Tensor) -> Tensor:
        value = F.relu(super().trunk(inputs))
        weight = self.second.weight
        value = F.conv2d(value, (weight - weight.mean()) / weight.std(), padding=1)
        return F.linear(
            value.movedim(1, 3), cast(Tensor, self.layer.weight)[0, :, 0, 0].diag()
        ).movedim(3, 1)


class Position(Small):
    """A parameter as large as a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(noise(1, 16, seed=5)[:, :1].repeat(1, 8, 1, 1))

    def trunk(self, inputs: Tensor) -> Tensor:
        return F.relu(self.norm(self.first(inputs)) + self.location)


class Spread(Small):
    """A block that adds a convolution of the global mean at every position."""

    def trunk(self, inputs: Tensor) -> Tensor:
        value = super().trunk(inputs)
        context: Tensor = self.second(value.mean((2, 3), keepdim=True))
        return value + context


@pytest.mark.parametrize(
    "kind",
    [
        ChangesItsInput, ChangesAValue, ChangesTheHead, ChangesTheLayers, CountsSamples,
        CountsByShape, CountsOtherThings, Parameters, Functional, Position, Spread,
    ],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unusual_networks_keep_their_scores(precision: str, kind: type[Small]) -> None:
    network = kind()
    expected = [run(network, network.layer, noise(size))[1] for size in (1, 2, BATCH)]
    fast = accelerate(network, precision=precision)
    served, layer = (
        (network, network.layer) if fast.network is None else (fast.network, fast.network.layer)
    )
    for scores in expected:
        _, served_scores = run(served, layer, noise(len(scores)))
        assert relative_error(served_scores, scores) < (1e-5 if precision == "float32" else 0.05), (
            fast
        )


@pytest.mark.parametrize("kind", [CountsSamples, CountsByShape, Parameters, Position, Spread])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_some_unusual_networks_are_compiled(
    precision: str, kind: type[Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    fast = accelerate(kind(), precision=precision)
    assert fast.network is not None, fast.fallback_reason
    assert fast.compiled


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_trunk_with_an_operation_that_openvino_lacks_runs_unchanged(precision: str) -> None:
    fast = accelerate(Functional(), precision=precision)
    assert (fast.network, fast.precision, fast.compiled) == (None, "float32", False)
    unknown = (
        "OpenVINO cannot compile the trunk: No conversion rule found for operations: aten::diag"
    )
    assert unknown in fast.fallback_reason


class Chaotic(Bf16Safe):
    """It amplifies rounding errors: bfloat16's beyond all use, float32's hardly."""

    def trunk(self, inputs: Tensor) -> Tensor:
        return torch.sin(200 * super().trunk(inputs))


@pytest.mark.parametrize("compile", [pytest.param("auto", marks=needs_compiled_bf16), "off"])
def test_a_network_that_amplifies_rounding_errors_runs_in_bfloat16_only_where_set(
    compile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    network = Chaotic()
    chosen = accelerate(network, precision="bfloat16", compile=compile)
    assert (chosen.network is None, chosen.precision) == (False, "bfloat16")
    automatic = accelerate(network, precision="auto", compile=compile)
    assert automatic.precision == "float32"
    assert chosen.network is not None
    activations, _ = run(network, network.layer, noise(2))
    assert relative_error(run(chosen.network, chosen.network.layer, noise(2))[0], activations) > 0.1


@needs_compiled_bf16
def test_a_network_that_amplifies_rounding_errors_is_compiled_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
    network = Chaotic()
    automatic = accelerate(network, precision="auto")
    assert automatic.network is not None
    assert automatic.compiled
    assert automatic.fallback_reason.startswith("bfloat16 changes the network's outputs by ")
    _, scores = run(network, network.layer, noise(2))
    assert (
        relative_error(run(automatic.network, automatic.network.layer, noise(2))[1], scores) < 1e-3
    )


# A pipeline with such a network

SIDE = 16
PHOTO = png(photo(("red", (60, 40), 30), ("blue", (20, 70), 15), width=120, height=100))


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """Serves a network of this module; keywords are its archive's ``handler:`` section."""

    def serve(kind: type[nn.Module], **section: Any) -> Pipeline:
        directory = tmp_path_factory.mktemp("archive")
        save_file(kind().state_dict(), directory / "weights.safetensors")
        (directory / "labels.json").write_text('["a", "b", "c"]')
        section = {
            "arch": f"{kind.__module__}:{kind.__name__}",
            "layer": "layer",
            "preprocess": {"resize": SIDE, "crop": SIDE},
            **section,
        }
        model: ModelBody = {"name": "small", "version": "1.0"}
        config = {"batchSize": BATCH, "handler": section}
        return Pipeline.load(config, directory, model, torch.device("cpu"))

    return serve


def scores_of(reply: dict[str, Any]) -> list[float]:
    by_class = sorted(reply["predictions"], key=lambda prediction: prediction["class_id"])
    return [prediction["score"] for prediction in by_class]


@pytest.mark.parametrize(
    "kind", [Branch, FromThePhoto, Undecided, Untraceable, LyingTrunk, LyingHead, ChangesTheHead,
             ChangesItsInput, CountsOtherThings, Hooked, Position, Spread, Small]
)  # fmt: skip
def test_a_pipeline_keeps_every_networks_scores_and_peaks(
    kind: type[Small], serve: Callable[..., Pipeline]
) -> None:
    reference = serve(kind, precision="float32", compile="off")
    assert reference.loaded.acceleration.network is None
    for precision in ("float32", "bfloat16"):
        pipeline = serve(kind, precision=precision)
        requests = [form(PHOTO, target="b", outputs="map")] * 3
        for reply, expected in zip(
            single_reply(pipeline, *requests), single_reply(reference, *requests), strict=True
        ):
            assert scores_of(reply) == pytest.approx(scores_of(expected), abs=0.01)
            peak, expected_peak = (r["explanations"][0]["peak"] for r in (reply, expected))
            assert peak == pytest.approx(expected_peak, rel=0.05, abs=1e-4)


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
            Alias, {"precision": "float32"},
            ("float32", False, "cannot split the network at layer 'layer': add_ changes a value in "
             "place and what it returns is not read"),
            "float32, eager (cannot split the network at layer 'layer': add_ changes",
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
    keys = ("precision", "compiled", "acceleration_notes")
    assert tuple(model[key] for key in keys) == described
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("cams")]
    assert line.startswith(f"{__name__}:")
    assert logged in line


class NormLast(Small):
    """The layer is not fused: the accelerated trunk calls the same module."""

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
    assert pipeline.loaded.acceleration.network is not None
    reference = serve(kind, layers=layers, precision="float32", compile="off")
    for layer in ["layer", *layers, ["layer", *layers]]:
        request = json_request(PHOTO, target="b", layer=layer, outputs=["map"])
        (reply,), (expected,) = single_reply(pipeline, request), single_reply(reference, request)
        assert_replies_close(reply, expected)


@pytest.fixture
def two_paths(serve: Callable[..., Pipeline]) -> tuple[Pipeline, list[tuple[int, int]]]:
    """A pipeline with two forward paths; and each forward pass: its path's index, its photos."""
    pipeline = serve(Small, layers=["second"], precision="float32")
    passes: list[tuple[int, int]] = []
    for n, path in enumerate(pipeline.forward_paths):
        path.network.register_forward_hook(
            lambda module, args, output, n=n: passes.append((n, len(output)))
        )
    return pipeline, passes


REQUESTS = {
    "default": json_request(PHOTO, target="a", outputs=["map"]),
    "unexplained": json_request(PHOTO, explain=False),
    "unexplained, other": json_request(PHOTO, explain=False, layer="second"),
    "other": json_request(PHOTO, layer="second", target="b", outputs=["map"]),
    "both": json_request(PHOTO, layer=["layer", "second"], target=["a", "b"], outputs=["map"]),
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
def test_photos_are_grouped_by_forward_path_and_replies_do_not_depend_on_it(
    names: list[str],
    expected: list[tuple[int, int]],
    two_paths: tuple[Pipeline, list[tuple[int, int]]],
) -> None:
    pipeline, passes = two_paths
    replies = single_reply(pipeline, *(REQUESTS[name] for name in names))
    assert passes == expected
    single_replies = {name: single_reply(pipeline, REQUESTS[name])[0] for name in set(names)}
    for name, reply in zip(names, replies, strict=True):
        assert_replies_close(reply, single_replies[name], name)


def test_the_original_network_is_kept_only_where_further_layers_are_served(
    serve: Callable[..., Pipeline],
) -> None:
    single, several = serve(Small, precision="float32"), serve(Small, layers=["second"])
    assert [list(path.layouts) for path in single.forward_paths] == [["layer"]]
    assert single.network.module is single.forward_paths[0].network
    assert [list(path.layouts) for path in several.forward_paths] == [
        ["layer"],
        ["layer", "second"],
    ]
    eager = serve(Small, layers=["second"], precision="float32", compile="off")
    assert [list(path.layouts) for path in eager.forward_paths] == [["layer", "second"]]
    assert_close(
        torch.tensor(scores_of(single_reply(single, form(PHOTO))[0])),
        torch.tensor(scores_of(single_reply(eager, form(PHOTO))[0])),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
