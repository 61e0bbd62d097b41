"""Rewrites the head so that its backward pass is cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, autograd, fx, nn

from camserve.networks.token_selection import select_tokens_early

# The values of ``output_size`` that mean one row and one column.
_SIZE_1X1: Final = (1, (1, 1), [1, 1])


def global_average_pool(values: Tensor) -> Tensor:
    """(N, K, h, w) -> (N, K, 1, 1).

    The gradient of a sum has one value per channel, which PyTorch expands to (N, K, h, w) without
    writing it to memory. The gradient of ``adaptive_avg_pool2d`` is written out cell by cell.
    """
    return values.sum(dim=(2, 3), keepdim=True) / (values.shape[2] * values.shape[3])


class _SparseGradLinearFunction(autograd.Function):
    """``F.linear`` for an output gradient that is zero for most classes."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        if gradient.device.type != "cpu":
            # Selecting the classes would have to wait for the device.
            return gradient @ weight, None, None
        classes = gradient.any(0).nonzero().flatten()
        return gradient.index_select(1, classes) @ weight.index_select(0, classes), None, None


class SparseGradLinear(nn.Module):
    """An ``nn.Linear`` for class scores, of which few get a gradient; its parameters get none.

    Few scores of each sample are explained, so the input gradient needs only those classes' rows
    of the weight. The full product would multiply most rows by zero.

    Args:
        linear: shares its weight (C, F) and bias (C,).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, C)."""
        return cast(Tensor, _SparseGradLinearFunction.apply(features, self.weight, self.bias))


def optimize_head(head: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Rewrite a head so that gradients with respect to its input are cheap.

    Global average pooling becomes :func:`global_average_pool`, the linear layer that gives the
    scores a :class:`SparseGradLinear`, and of tokens only those that the scores are made of are
    computed. The scores stay the same.

    Args:
        head: traced, the target layer's output and further values -> (N, C). It is changed in
            place.
        inputs: an example of what it is given.

    Returns:
        The head.
    """
    for node in list(head.graph.nodes):
        if _is_global_average_pool(head, node):
            (grid,) = node.all_input_nodes
            with head.graph.inserting_before(node):
                pooled = head.graph.call_function(global_average_pool, (grid,))
            node.replace_all_uses_with(pooled)
            head.graph.erase_node(node)
    select_tokens_early(head, inputs)
    (scores,) = head.graph.output_node().all_input_nodes
    if scores.op == "call_module":
        last = head.get_submodule(str(scores.target))
        # A subclass of nn.Linear may compute something else.
        if type(last) is nn.Linear:
            head.set_submodule(str(scores.target), SparseGradLinear(last))
    head.graph.lint()
    head.delete_all_unused_submodules()
    head.recompile()
    return head


def _is_global_average_pool(head: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node pools (N, K, h, w) to (N, K, 1, 1) by the mean."""
    if node.op == "call_module":
        module = head.get_submodule(str(node.target))
        return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in _SIZE_1X1
    arguments = {**dict(zip(("input", "output_size"), node.args, strict=False)), **node.kwargs}
    return node.target is F.adaptive_avg_pool2d and arguments.get("output_size") in _SIZE_1X1
