"""A head whose backward pass is cheap computes what it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from camserve.head import lighten, spatial_mean


class Head(nn.Module):
    """A pooling, then two layers of scores."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool
        self.scores = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))

    def forward(self, activations: Tensor) -> Tensor:
        return self.scores(self.pool(activations).flatten(1))


POOLS: dict[str, tuple[Any, bool]] = {
    "module": (nn.AdaptiveAvgPool2d(1), True),
    "module of a pair": (nn.AdaptiveAvgPool2d((1, 1)), True),
    "function": (lambda values: F.adaptive_avg_pool2d(values, 1), True),
    "function of a pair, by name": (
        lambda values: F.adaptive_avg_pool2d(output_size=(1, 1), input=values),
        True,
    ),
    # None of these is the mean over all.
    "finer": (lambda values: F.adaptive_avg_pool2d(values, 2).amax((2, 3)), False),
    "maximum": (nn.AdaptiveMaxPool2d(1), False),
    "one row": (nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.AdaptiveMaxPool2d(1)), False),
}


@pytest.mark.parametrize(("pool", "is_mean"), POOLS.values(), ids=POOLS)
def test_scores_and_gradients_are_the_same(pool: Any, is_mean: bool) -> None:
    torch.manual_seed(0)
    head = Head(pool).requires_grad_(False)
    light = lighten(fx.symbolic_trace(head))
    activations = torch.randn(3, 6, 7, 5)
    found = []
    for one in (head, light):
        leaf = activations.clone().requires_grad_()
        scores = one(leaf)
        (gradient,) = torch.autograd.grad(scores[:, 1].sum(), leaf)
        found.append((scores, gradient))
    (scores, gradient), (light_scores, light_gradient) = found
    assert torch.allclose(light_scores, scores, atol=1e-6)
    assert torch.allclose(light_gradient, gradient, atol=1e-7)
    assert any(node.target is spatial_mean for node in light.graph.nodes) is is_mean
    # Spread, not written.
    assert (0 in light_gradient.stride()) is is_mean


def test_the_network_keeps_its_own_pooling() -> None:
    head = Head(nn.AdaptiveAvgPool2d(1))
    lighten(fx.symbolic_trace(head))
    assert isinstance(head.pool, nn.AdaptiveAvgPool2d)
