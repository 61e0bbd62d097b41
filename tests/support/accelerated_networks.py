"""Accelerated networks, and how far their outputs are from the original's."""

from __future__ import annotations

from typing import Any

import openvino
import pytest
import torch
from torch import Tensor, nn

from camserve.networks import acceleration
from camserve.networks.acceleration import AccelerationResult
from camserve.networks.partition import PartitionedNetwork

#: Processors without instructions for bfloat16 have no trunks compiled in it.
COMPILES_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_compiled_bf16 = pytest.mark.skipif(
    not COMPILES_BF16, reason="OpenVINO does not compute in bfloat16 on this processor"
)

BATCH = 8
THREADS = 2


def noise(batch: int, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def accelerate(
    network: nn.Module,
    layer: str = "layer",
    precision: Any = "float32",
    compile: Any = "auto",
    side: int = 16,
    batch_size: int = BATCH,
) -> AccelerationResult:
    return acceleration.accelerate(
        network,
        layer,
        noise(1, side),
        batch_size=batch_size,
        threads=THREADS,
        precision=precision,
        compile=compile,
    )


def accelerated_network(
    network: nn.Module, layer: str = "layer", **options: Any
) -> PartitionedNetwork:
    result = accelerate(network, layer, **options)
    assert result.network is not None, result.fallback_reason
    return result.network


def run(network: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output and the scores."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, args, output: outputs.append(output.clone()))
    with hook, torch.no_grad():
        scores = network(inputs.clone())
    (activations,) = outputs
    return activations, scores


def relative_error(output: Tensor, expected: Tensor) -> float:
    assert output.shape == expected.shape
    return float((output - expected).detach().norm() / expected.detach().norm())
