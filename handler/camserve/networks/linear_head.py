"""Finds the layers after which a network only averages over the grid and applies one linear layer.

There a score is y = b + w . mean(A), so that Grad-CAM's map, before its ReLU, sums up to y - b.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from camserve.networks.forward import recorded_outputs, run_network
from camserve.networks.layouts import GridLayout

#: The largest difference between scores that are equal but for rounding errors, as a share of what
#: the layer changes in them.
_MAX_DIFFERENCE: Final = 1e-2


def linear_head_biases(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    layouts: Mapping[str, GridLayout],
    photo: Tensor,
    other: Tensor,
) -> dict[str, Tensor]:
    """The biases b of the layers from which scores are b + w . mean(A), mean over the grid.

    It is measured, on each layer's output for two pictures: without it both have the same scores
    b; its cells may change places; and scores above b add up as outputs do.

    Args:
        network: in eval mode; it returns logits (N, C).
        layers: by name.
        layouts: by layer, how its output is a grid.
        photo, other: (1, channels, H, W), two different inputs.

    Returns:
        By layer, b (C,); layers that are followed by something else are left out.
    """
    biases = {}
    with recorded_outputs(layers, torch.clone) as recorded:
        scores = [run_network(network, picture) for picture in (photo, other)]
    for name, layer in layers.items():
        # Tokens before those of the grid would take part in the mean, or be all that is read.
        if layouts[name].prefix == 0:
            bias = _bias(network, layer, layouts[name], photo, other, recorded[name], scores)
            if bias is not None:
                biases[name] = bias
    return biases


def _bias(
    network: nn.Module,
    layer: nn.Module,
    layout: GridLayout,
    photo: Tensor,
    other: Tensor,
    outputs: list[Tensor],
    scores: list[Tensor],
) -> Tensor | None:
    first, second = outputs
    run = partial(_run_with_output, network, layer)
    bias = run(photo, torch.zeros_like(first))
    least = _MAX_DIFFERENCE * float(max((score - bias).abs().max() for score in scores))

    def same(one: Tensor, another: Tensor) -> bool:
        # A comparison with NaN is false.
        return float((one - another).abs().max()) <= least

    is_linear = (
        same(run(other, torch.zeros_like(second)), bias)
        and same(run(photo, layout.shuffled(first, torch.Generator().manual_seed(0))), scores[0])
        and same(run(photo, first + second), scores[0] + scores[1] - bias)
        and same(run(photo, -2 * first), 3 * bias - 2 * scores[0])
    )
    return bias[0] if is_linear else None


def _run_with_output(network: nn.Module, layer: nn.Module, photo: Tensor, output: Tensor) -> Any:
    """The scores with another output in place of a layer's."""
    # A clone: what follows may change it in place.
    hook = layer.register_forward_hook(lambda module, args, own: output.clone())
    try:
        return run_network(network, photo)
    finally:
        hook.remove()
