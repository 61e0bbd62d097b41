"""How the trunk of a network is made fast.

A network falls into the trunk, the target layer's output and the head. The trunk, which leaves no
tape, is fused and, on a processor, compiled; the head stays as it was, in float32, for the backward
pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from camserve.networks import fusion, hardware, openvino_backend
from camserve.networks.head import optimize_head
from camserve.networks.openvino_backend import OpenVINOModule
from camserve.networks.partition import PartitionedNetwork, split_at_layer
from camserve.runtime import memory
from camserve.settings import Compile, Precision

# By how much of their norm the activations may differ from those of the network as it came. In
# float32 it tells that a network does not mean what its trace says; in bfloat16, that it multiplies
# rounding errors: a trained ResNet differs by one or two in a hundred.
_TRACED: Final = 1e-3
_ROUNDED: Final = 0.1


@dataclass(frozen=True)
class AccelerationResult:
    """How the trunk runs.

    Attributes:
        cut: the network with its fast trunk; None where it runs as it came.
        precision: of the trunk, where it bears it.
        compiled: OpenVINO has compiled it.
        reason: why it does not run faster than it does; empty where nothing was in the way.
    """

    cut: PartitionedNetwork | None
    precision: str
    compiled: bool
    reason: str = ""


def accelerate(
    network: nn.Module,
    layer: str,
    example: Tensor,
    batch_size: int,
    threads: int,
    precision: Precision,
    compile: Compile,
) -> AccelerationResult:
    """Cut a network at a layer and make its trunk as fast as the device can.

    The fast trunk has been held to the network as it came, on the example. Whatever keeps a network
    from it leaves the network as it was.

    Args:
        network: a classifier in eval mode; it is not changed.
        layer: the dotted name of one of its modules.
        example: (1, 3, H, W) input, on the network's device.
        batch_size: the most samples of a pass.
        threads: that a processor computes them in.
        precision: ``auto`` is bfloat16 where the device multiplies it faster than float32.
        compile: ``auto`` is OpenVINO, where the device is a processor.
    """
    device = example.device
    reasons = []
    compiles = compile == "auto" and device.type == "cpu"
    if compile == "off":
        reasons.append("compile is off")
    elif compiles and openvino_backend.unavailable_reason():
        compiles = False
        reasons.append(openvino_backend.unavailable_reason())
    rounds = precision == "bfloat16"
    if precision == "auto" and compile == "auto":
        rounds = hardware.has_fast_bfloat16(device)
        if not rounds:
            reasons.append("the processor multiplies bfloat16 no faster than float32")
    # The fastest first.
    ways = [
        _Way(rounds=True, compiles=True), _Way(rounds=False, compiles=True),
        _Way(rounds=True, compiles=False),
    ]  # fmt: skip
    ways = [way for way in ways if way.rounds <= rounds and way.compiles <= compiles]
    if ways:
        try:
            scissors = _Scissors(network, layer, example, batch_size, threads, precision == "auto")
        except Exception as failure:
            # Tracing and trying a network of any kind raises nearly anything.
            reasons.append(f"it cannot be cut at {layer!r}: {_brief(failure)}")
            ways = []
    for way in ways:
        try:
            cut = scissors.cut(way)
        except Exception as failure:
            reasons.append(_brief(failure))
            # Both at once would be the most memory that a worker ever takes.
            memory.release_memory()
        else:
            return AccelerationResult(cut, way.precision, way.compiles, "; ".join(reasons))
    return AccelerationResult(None, "float32", False, "; ".join(reasons))


@dataclass(frozen=True)
class _Way:
    """How a trunk may run: in bfloat16 or in float32, compiled or kernel by kernel."""

    rounds: bool
    compiles: bool

    @property
    def precision(self) -> str:
        return "bfloat16" if self.rounds else "float32"


class _Scissors:
    """Cuts a network, and holds the parts to the network as it came.

    Args:
        network, layer, example, batch_size, threads: as of :func:`accelerate`.
        gently: what is rounded is held to the network as it came, too.

    Raises:
        Exception: it cannot be cut, or is not in float32 what it was.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        example: Tensor,
        batch_size: int,
        threads: int,
        gently: bool,
    ) -> None:
        self._network, self._layer, self._example = network, layer, example
        self._batch_size, self._threads, self._gently = batch_size, threads, gently
        traced = self._fused(torch.float32)
        # Two samples that differ, so that what a network does to each of a batch shows.
        self._inputs = torch.cat([example, example.flip(3)])
        self._expected = _run(network, network.get_submodule(layer), self._inputs)
        self._hold(traced, _TRACED, "its trace")

    def cut(self, way: _Way) -> PartitionedNetwork:
        """The network in two parts, of which the first runs that way.

        Raises:
            Exception: it cannot, or does not bear it.
        """
        cut = self._compiled(way) if way.compiles else self._fused(torch.bfloat16)
        if not (way.compiles or fusion.rounds(cut.trunk)):
            raise ValueError("none of its convolutions bears bfloat16")
        if way.rounds:
            self._hold(cut, _ROUNDED if self._gently else math.inf, "in bfloat16 it")
        else:
            self._hold(cut, _TRACED, "compiled, it")
        return cut

    def _compiled(self, way: _Way) -> PartitionedNetwork:
        trunk, head = self._parts(torch.float32)
        if way.rounds:
            first, rest = fusion.split_before_rounding(trunk)
            parts = [(first, False), (rest, True)]
        else:
            parts = [(trunk, False)]
        compiled = nn.Sequential()
        for part, rounded in parts:
            if part is not None:
                values = compiled(self._example)
                compiled.append(
                    OpenVINOModule(part, values, self._batch_size, self._threads, rounded)
                )
        return PartitionedNetwork(compiled, head).eval()

    def _fused(self, numbers: torch.dtype) -> PartitionedNetwork:
        return PartitionedNetwork(*self._parts(numbers)).eval()

    def _parts(self, numbers: torch.dtype) -> tuple[fx.GraphModule, fx.GraphModule]:
        trunk, head = split_at_layer(self._network, self._layer)
        return fusion.fuse(trunk, self._example, numbers), optimize_head(head)

    def _hold(self, cut: PartitionedNetwork, alike: float, what: str) -> None:
        """Hold what it makes of the example to what the network as it came makes of it.

        Raises:
            ValueError: they differ by more than ``alike`` of their norm.
        """
        found = _run(cut, cut.layer, self._inputs)
        for one, other in zip(found, self._expected, strict=True):
            if one.shape != other.shape:
                raise ValueError(f"{what} gives {tuple(one.shape)}, not {tuple(other.shape)}")
            apart = float((one - other).norm() / other.norm().clamp_min(1e-12))
            if not apart <= alike:
                raise ValueError(f"{what} differs from the network as it came by {apart:.1%}")


def _run(network: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output, and the network's."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        # A copy: an activation may change it in place.
        outputs.append(output.clone())

    hook = layer.register_forward_hook(keep)
    try:
        with torch.no_grad():
            # A copy: a network may change it in place.
            logits = network(inputs.clone())
    finally:
        hook.remove()
    (activations,) = outputs
    return activations, logits


def _brief(failure: Exception) -> str:
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    return lines[0][:200]
