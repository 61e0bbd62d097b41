"""The head rewritten so that its backward pass is cheap."""

from __future__ import annotations

from typing import Any, Final, cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, autograd, fx, nn

_ONE: Final = (1, (1, 1), [1, 1])


def spatial_mean(values: Tensor) -> Tensor:
    """(N, K, h, w) -> (N, K, 1, 1).

    The gradient of a sum is one number for all its places, which PyTorch spreads without writing
    it; that of its own mean it divides, and so writes, place by place.
    """
    return values.sum(dim=(2, 3), keepdim=True) / (values.shape[2] * values.shape[3])


class _OfFewClasses(autograd.Function):
    """A linear map to class scores, of which few have a gradient."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        if gradient.device.type != "cpu":
            # It would have to wait for the device to say which they are.
            return gradient @ weight, None, None
        classes = gradient.any(0).nonzero().flatten()
        return gradient.index_select(1, classes) @ weight.index_select(0, classes), None, None


class Classifier(nn.Module):
    """An ``nn.Linear`` that gives class scores, whose parameters get no gradient.

    One score is explained of each sample, or a few: their gradient is made of those classes' rows
    of the weights, rather than of all, most of them times zero.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, C)."""
        return cast(Tensor, _OfFewClasses.apply(features, self.weight, self.bias))


def optimize_head(head: fx.GraphModule) -> fx.GraphModule:
    """A head that computes the same, for gradients with respect to its activations alone.

    Its global average pooling is a :func:`spatial_mean`, the linear layer that gives its scores a
    :class:`Classifier`.

    Args:
        head: traced, (N, K, h, w) -> (N, C). It is used up.
    """
    for node in list(head.graph.nodes):
        if _averages_all(head, node):
            (grid,) = node.all_input_nodes
            with head.graph.inserting_before(node):
                mean = head.graph.call_function(spatial_mean, (grid,))
            node.replace_all_uses_with(mean)
            head.graph.erase_node(node)
    (scores,) = head.graph.output_node().all_input_nodes
    if scores.op == "call_module":
        last = head.get_submodule(str(scores.target))
        # A layer of another class may compute something else.
        if type(last) is nn.Linear:
            head.set_submodule(str(scores.target), Classifier(last))
    head.graph.lint()
    head.delete_all_unused_submodules()
    head.recompile()
    return head


def _averages_all(head: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is the mean over all of a grid, kept as a grid of one place."""
    if node.op == "call_module":
        module = head.get_submodule(str(node.target))
        return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in _ONE
    named = {**dict(zip(("input", "output_size"), node.args, strict=False)), **node.kwargs}
    return node.target is F.adaptive_avg_pool2d and named.get("output_size") in _ONE
