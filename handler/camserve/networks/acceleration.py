"""Accelerates the trunk of a network and verifies that its outputs stay the same.

A network is split at the target layer into a trunk, which others call the backbone, and a head.
The trunk, which autograd does not record, is fused and, on a CPU, compiled by OpenVINO. The head
stays in float32, for the backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from camserve.networks import hardware, openvino_backend
from camserve.networks.fusion import fuse
from camserve.networks.head import optimize_head
from camserve.networks.mixed_precision import has_bf16, split_before_bf16
from camserve.networks.openvino_backend import OpenVINOModule
from camserve.networks.partition import PartitionedNetwork, split_trace
from camserve.networks.tracing import trace
from camserve.networks.verification import BF16_TOLERANCE, FP32_TOLERANCE, ReferenceOutputs
from camserve.runtime import release_memory
from camserve.settings import Compile, Precision


@dataclass(frozen=True)
class ExecutionMode:
    """How a trunk is run.

    Attributes:
        bfloat16: in bfloat16 where that is safe; otherwise in float32.
        compiled: by OpenVINO; otherwise as PyTorch calls, one kernel after the other.
    """

    bfloat16: bool
    compiled: bool

    @property
    def precision(self) -> str:
        """``bfloat16`` or ``float32``."""
        return "bfloat16" if self.bfloat16 else "float32"


@dataclass(frozen=True)
class AccelerationResult:
    """The mode that a trunk runs in, and why no faster mode was chosen.

    Attributes:
        network: the network with its accelerated trunk; None where the original runs.
        precision: ``bfloat16`` or ``float32``.
        compiled: whether OpenVINO has compiled the trunk.
        fallback_reason: why the faster modes were excluded or rejected, joined by semicolons; empty
            where the fastest was chosen.
    """

    network: PartitionedNetwork | None
    precision: str
    compiled: bool
    fallback_reason: str = ""


def accelerate(
    network: nn.Module,
    layer: str,
    example: Tensor,
    *,
    batch_size: int,
    threads: int,
    precision: Precision,
    compile: Compile,
) -> AccelerationResult:
    """Split a network at a layer and run its trunk in the fastest mode that keeps its outputs.

    Modes are tried from the fastest on. Each is built and compared with the original network on the
    example. No failure is raised: where every mode fails, the original network is used.

    Args:
        network: a classifier in eval mode; it is not changed.
        layer: the dotted name of the target layer.
        example: (1, 3, H, W) input on the network's device.
        batch_size: the largest N of a forward pass.
        threads: that a CPU computes a forward pass in.
        precision: ``auto`` is bfloat16 where the device is faster in it than in float32.
        compile: ``auto`` is OpenVINO where the device is a CPU.
    """
    modes, reasons = _candidate_modes(example.device, precision, compile)
    if modes:
        builder = _TrunkBuilder(network, layer, example, batch_size, threads)
        try:
            reference = _verify_trace(builder)
        except Exception as failure:
            # Tracing and running a network of any kind may raise any exception.
            reasons.append(f"cannot split the network at layer {layer!r}: {_first_line(failure)}")
            modes = []
    for mode in modes:
        try:
            accelerated = _build_verified(builder, mode, reference, precision == "auto")
        except Exception as failure:
            reasons.append(_first_line(failure))
            # Otherwise this trunk and the next would be in memory together, and set the peak of
            # what a worker uses.
            release_memory()
        else:
            return AccelerationResult(
                accelerated, mode.precision, mode.compiled, "; ".join(reasons)
            )
    return AccelerationResult(None, "float32", False, "; ".join(reasons))


def _candidate_modes(
    device: torch.device, precision: Precision, compile: Compile
) -> tuple[list[ExecutionMode], list[str]]:
    """The modes that settings and hardware allow, the fastest first; why others are excluded."""
    reasons = []
    compiled = compile == "auto" and device.type == "cpu"
    if compile == "off":
        reasons.append("compile is off")
    elif compiled and (unavailable := openvino_backend.unavailable_reason()):
        compiled = False
        reasons.append(unavailable)
    bfloat16 = precision == "bfloat16"
    if precision == "auto" and compile == "auto":
        bfloat16 = hardware.has_fast_bfloat16(device)
        if not bfloat16:
            reasons.append("this device computes bfloat16 no faster than float32")
    modes = [
        ExecutionMode(bfloat16=True, compiled=True),
        ExecutionMode(bfloat16=False, compiled=True),
        ExecutionMode(bfloat16=True, compiled=False),
    ]
    allowed = [
        mode
        for mode in modes
        if (bfloat16 or not mode.bfloat16) and (compiled or not mode.compiled)
    ]
    return allowed, reasons


@dataclass(frozen=True)
class _TrunkBuilder:
    """Builds a network with its trunk in some mode; the arguments are :func:`accelerate`'s."""

    network: nn.Module
    layer: str
    example: Tensor
    batch_size: int
    threads: int

    @cached_property
    def _traced(self) -> tuple[nn.Module, fx.Graph]:
        """The network's trace, which all modes share."""
        return trace(self.network, self.network.get_submodule(self.layer), self.example)

    def build(self, mode: ExecutionMode) -> PartitionedNetwork:
        """The network, split, its trunk in that mode.

        Raises:
            Exception: the network cannot be traced or split, or the trunk not run in that mode.
        """
        graph, head = split_trace(*self._traced, self.layer)
        dtype = torch.bfloat16 if mode.bfloat16 and not mode.compiled else torch.float32
        fused = fuse(graph, self.example, dtype)
        trunk: nn.Module = fused
        if mode.compiled:
            trunk = self._compile(fused, mode.bfloat16)
        elif mode.bfloat16 and not has_bf16(fused):
            raise ValueError("none of the trunk's convolutions is safe in bfloat16")
        return PartitionedNetwork(trunk, optimize_head(head, _example_outputs(fused))).eval()

    def _compile(self, trunk: fx.GraphModule, bfloat16: bool) -> nn.Module:
        parts: list[tuple[fx.GraphModule | None, bool]] = [(trunk, False)]
        if bfloat16:
            float32_part, bfloat16_part = split_before_bf16(trunk)
            parts = [(float32_part, False), (bfloat16_part, True)]
        compiled = nn.Sequential()
        for part, in_bfloat16 in parts:
            if part is not None:
                example = compiled(self.example)
                compiled.append(
                    OpenVINOModule(part, example, self.batch_size, self.threads, in_bfloat16)
                )
        return compiled


def _example_outputs(trunk: fx.GraphModule) -> list[Tensor]:
    """Zeros of the shapes of a fused trunk's outputs, for two photos.

    Raises:
        ValueError: an output is no tensor.
    """
    outputs = trunk.graph.output_node().all_input_nodes
    for output in outputs:
        # Of several tensors, the metadata is a tuple.
        if not hasattr(output.meta.get("tensor_meta"), "shape"):
            raise ValueError(f"the head reads a value of the trunk that is no tensor: {output}")
    return [torch.zeros(output.meta["tensor_meta"].shape) for output in outputs]


def _verify_trace(builder: _TrunkBuilder) -> ReferenceOutputs:
    """Verify that the network computes what its trace says.

    Returns:
        The original network's outputs.

    Raises:
        Exception: it does not, or the network cannot be traced or split at the layer.
    """
    # Built before the original runs, as it says why a network cannot be split.
    traced = builder.build(ExecutionMode(bfloat16=False, compiled=False))
    reference = ReferenceOutputs(builder.network, builder.layer, builder.example)
    reference.verify_close(traced, FP32_TOLERANCE, "tracing")
    return reference


def _build_verified(
    builder: _TrunkBuilder, mode: ExecutionMode, reference: ReferenceOutputs, check_bf16_error: bool
) -> PartitionedNetwork:
    """Build a network and compare its outputs.

    A function of its own, so that a rejected trunk is freed when it returns.

    Args:
        check_bf16_error: compare the values in bfloat16, too; otherwise only the shapes are.

    Raises:
        Exception: the trunk does not run in that mode, or its outputs differ.
    """
    candidate = builder.build(mode)
    if mode.bfloat16:
        tolerance = BF16_TOLERANCE if check_bf16_error else math.inf
        reference.verify_close(candidate, tolerance, "bfloat16")
    else:
        reference.verify_close(candidate, FP32_TOLERANCE, "compiling")
    return candidate


def _first_line(failure: Exception) -> str:
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    return lines[0][:200]
