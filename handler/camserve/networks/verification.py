"""Compares the outputs of an accelerated network with those of the original."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from camserve.networks.forward import recorded_outputs
from camserve.networks.partition import PartitionedNetwork

#: The largest relative error, which is the norm of the difference from the original network's
#: outputs over the norm of those. A larger one in float32 means that the network does not compute
#: what its trace says; in bfloat16, that it amplifies rounding errors. A trained ResNet has 0.01 to
#: 0.02 in bfloat16.
FP32_TOLERANCE: Final = 1e-3
BF16_TOLERANCE: Final = 0.1


class ReferenceOutputs:
    """The original network's activations and scores for two samples.

    Args:
        network: the original, in eval mode.
        layer: the dotted name of the target layer.
        example: (1, 3, H, W) input on the network's device.
    """

    def __init__(self, network: nn.Module, layer: str, example: Tensor) -> None:
        # Two different samples, so that a network that mixes the samples of a batch is detected.
        # The second has the strongest edges, for what a network does with large activations alone.
        self._inputs = torch.cat([example, _with_contrast(example)])
        self._expected = _run(network, network.get_submodule(layer), self._inputs)

    def verify_close(self, candidate: PartitionedNetwork, tolerance: float, step: str) -> None:
        """Compare a candidate's activations and scores with the original's.

        Args:
            candidate: the accelerated network.
            tolerance: the largest relative error.
            step: what distinguishes it from the original, for the message.

        Raises:
            ValueError: a shape differs, or a relative error is above the tolerance or NaN.
        """
        outputs = _run(candidate, candidate.layer, self._inputs)
        for output, expected in zip(outputs, self._expected, strict=True):
            if output.shape != expected.shape:
                shapes = f"from {tuple(expected.shape)} to {tuple(output.shape)}"
                raise ValueError(f"{step} changes the shape of the network's outputs {shapes}")
            error = float((output - expected).norm() / expected.norm().clamp_min(1e-12))
            # Not "error > tolerance", which is false for NaN.
            if not error <= tolerance:
                raise ValueError(f"{step} changes the network's outputs by {error:.1%}")


def _with_contrast(example: Tensor) -> Tensor:
    """An input (1, C, H, W) whose pixels are each the least or the greatest of an example's."""
    generator = torch.Generator().manual_seed(0)
    white = torch.rand(1, 1, *example.shape[2:], generator=generator) > 0.5
    low = example.amin(dim=(0, 2, 3), keepdim=True)
    high = example.amax(dim=(0, 2, 3), keepdim=True)
    return torch.where(white.to(example.device), high, low)


def _run(network: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output and the network's."""
    with recorded_outputs({"layer": layer}, torch.clone) as outputs, torch.no_grad():
        # A copy: a network may change its input in place.
        logits = network(inputs.clone())
    (activations,) = outputs["layer"]
    return activations, logits
