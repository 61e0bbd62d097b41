"""A head whose backward pass is cheap computes what it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from camserve.networks.head import Classifier, optimize_head, spatial_mean


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
    light = optimize_head(fx.symbolic_trace(head))
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
    optimize_head(fx.symbolic_trace(head))
    assert isinstance(head.pool, nn.AdaptiveAvgPool2d)


#: Which classes' scores are explained, by sample; the sum of them goes backward.
CHOSEN: dict[str, list[tuple[int, int, float]]] = {
    "one of each": [(0, 3, 1), (1, 0, 1), (2, 3, 1)],
    "one against another": [(0, 3, 1), (0, 1, -1), (1, 2, 1), (1, 0, -1), (2, 0, 1), (2, 3, -1)],
    "none of some": [(2, 1, 1)],
    "one of two samples, two of one": [(0, 1, 1), (2, 0, 1), (2, 3, 1)],
    "all": [(n, k, k + 1.5) for n in range(3) for k in range(4)],
    "none": [],
}


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("bias", [True, False])
def test_a_classifiers_gradient_is_that_of_its_linear_layer(
    chosen: list[tuple[int, int, float]], bias: bool
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 4, bias=bias).requires_grad_(False)
    gradient = torch.zeros(3, 4)
    for sample, class_id, value in chosen:
        gradient[sample, class_id] = value
    features = torch.randn(3, 6)
    found = []
    for one in (linear, Classifier(linear)):
        leaf = features.clone().requires_grad_()
        scores = one(leaf)
        # Twice: a photo with several targets goes backward more than once.
        torch.autograd.grad(scores, leaf, gradient, retain_graph=True)
        found.append((scores, *torch.autograd.grad(scores, leaf, gradient)))
    assert torch.equal(found[1][0], found[0][0])
    assert torch.allclose(found[1][1], found[0][1], atol=1e-6)


def test_only_the_layer_that_gives_the_scores_is_a_classifier() -> None:
    head = Head(nn.AdaptiveAvgPool2d(1))
    light = optimize_head(fx.symbolic_trace(head))
    assert isinstance(light.get_submodule("scores.2"), Classifier)
    assert isinstance(light.get_submodule("scores.0"), nn.Linear)
    assert isinstance(head.scores[2], nn.Linear)

    class Scaled(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            return 2 * super().forward(features)

    other = fx.symbolic_trace(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Scaled(6, 4)))
    assert not any(isinstance(one, Classifier) for one in optimize_head(other).modules())
