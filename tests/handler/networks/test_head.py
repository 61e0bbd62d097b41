"""Optimized heads: the same scores and gradients, by a cheaper backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from camserve.networks.head import SparseGradLinear, global_average_pool, optimize_head

#: What a head is given.
ACTIVATIONS = torch.randn(3, 6, 7, 5, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """Pooling, then two linear layers."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool
        self.scores = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))

    def forward(self, activations: Tensor) -> Any:
        return self.scores(self.pool(activations).flatten(1))


POOLS: dict[str, tuple[Any, bool]] = {
    "module": (nn.AdaptiveAvgPool2d(1), True),
    "module of a pair": (nn.AdaptiveAvgPool2d((1, 1)), True),
    "function": (lambda values: F.adaptive_avg_pool2d(values, 1), True),
    "function of a pair, by name": (
        lambda values: F.adaptive_avg_pool2d(output_size=(1, 1), input=values),
        True,
    ),
    # None of these is global average pooling.
    "finer": (lambda values: F.adaptive_avg_pool2d(values, 2).amax((2, 3)), False),
    "maximum": (nn.AdaptiveMaxPool2d(1), False),
    "one row": (nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.AdaptiveMaxPool2d(1)), False),
}


@pytest.mark.parametrize(("pool", "is_global"), POOLS.values(), ids=POOLS)
def test_scores_and_gradients_are_the_same(pool: Any, is_global: bool) -> None:
    torch.manual_seed(0)
    head = Head(pool).requires_grad_(False)
    optimized = optimize_head(fx.symbolic_trace(head), [ACTIVATIONS])

    def scores_and_gradient(network: nn.Module) -> tuple[Tensor, Tensor]:
        leaf = ACTIVATIONS.clone().requires_grad_()
        scores = network(leaf)
        (gradient,) = torch.autograd.grad(scores[:, 1].sum(), leaf)
        return scores, gradient

    scores, gradient = scores_and_gradient(optimized)
    expected_scores, expected_gradient = scores_and_gradient(head)
    assert torch.allclose(scores, expected_scores, atol=1e-6)
    assert torch.allclose(gradient, expected_gradient, atol=1e-7)
    assert any(node.target is global_average_pool for node in optimized.graph.nodes) is is_global
    # Expanded, not written to memory.
    assert (0 in gradient.stride()) is is_global


def test_the_original_pooling_is_not_changed() -> None:
    head = Head(nn.AdaptiveAvgPool2d(1))
    optimize_head(fx.symbolic_trace(head), [ACTIVATIONS])
    assert isinstance(head.pool, nn.AdaptiveAvgPool2d)


#: Output gradients of a batch: (sample, class, value) of those that are not zero.
GRADIENTS: dict[str, list[tuple[int, int, float]]] = {
    "one of each": [(0, 3, 1), (1, 0, 1), (2, 3, 1)],
    "one against another": [(0, 3, 1), (0, 1, -1), (1, 2, 1), (1, 0, -1), (2, 0, 1), (2, 3, -1)],
    "none of some": [(2, 1, 1)],
    "one of two samples, two of one": [(0, 1, 1), (2, 0, 1), (2, 3, 1)],
    "all": [(n, k, k + 1.5) for n in range(3) for k in range(4)],
    "none": [],
}


@pytest.mark.parametrize("entries", GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_that_of_the_linear_layer(
    entries: list[tuple[int, int, float]], bias: bool
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 4, bias=bias).requires_grad_(False)
    gradient = torch.zeros(3, 4)
    for sample, class_id, value in entries:
        gradient[sample, class_id] = value
    features = torch.randn(3, 6)

    def scores_and_gradient(layer: nn.Module) -> tuple[Tensor, Tensor]:
        leaf = features.clone().requires_grad_()
        scores = layer(leaf)
        # Twice, as for a photo with several targets.
        torch.autograd.grad(scores, leaf, gradient, retain_graph=True)
        return scores, *torch.autograd.grad(scores, leaf, gradient)

    scores, input_gradient = scores_and_gradient(SparseGradLinear(linear))
    expected_scores, expected_gradient = scores_and_gradient(linear)
    assert torch.equal(scores, expected_scores)
    assert torch.allclose(input_gradient, expected_gradient, atol=1e-6)


def test_only_the_layer_that_gives_the_scores_is_replaced() -> None:
    head = Head(nn.AdaptiveAvgPool2d(1))
    optimized = optimize_head(fx.symbolic_trace(head), [ACTIVATIONS])
    assert isinstance(optimized.get_submodule("scores.2"), SparseGradLinear)
    assert isinstance(optimized.get_submodule("scores.0"), nn.Linear)
    assert isinstance(head.scores[2], nn.Linear)

    class Scaled(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            return 2 * super().forward(features)

    scaled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Scaled(6, 4))
    modules = optimize_head(fx.symbolic_trace(scaled), [ACTIVATIONS]).modules()
    assert not any(isinstance(module, SparseGradLinear) for module in modules)
