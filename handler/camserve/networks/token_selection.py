"""Computes only the tokens that are used: many vision transformers classify by their class token.

Nothing mixes the tokens after the last attention. So a selection ``x[:, 0]`` after layer norms,
linear layers and sums is moved before them, up to the attention, whose query it becomes. Of 197
tokens the head then computes one.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from camserve.networks.few_query_attention import FewQueryAttention

#: Modules that compute each token by itself. A subclass may compute something else.
_TOKENWISE_MODULES: Final = {
    nn.Linear, nn.Dropout, nn.Identity, nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh,
    nn.Hardswish,
}  # fmt: skip
_TOKENWISE_FUNCTIONS: Final = {F.gelu, F.relu, F.silu, torch.tanh, F.dropout}
_ELEMENTWISE_FUNCTIONS: Final = {
    operator.add, operator.iadd, operator.mul, operator.sub, torch.add, torch.mul, torch.sub,
}  # fmt: skip


def select_tokens_early(head: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
    """Move selections of tokens in a head before the operations that compute each token by itself.

    Args:
        head: traced, in eval mode. It is changed in place, and computes the same.
        inputs: an example of its inputs, for the shapes of its values.
    """
    with torch.no_grad():
        ShapeProp(head).propagate(*inputs)
    for node in list(head.graph.nodes):
        indices = [_selected_token(user) for user in node.users]
        if indices and None not in indices and len(_shape(node)) == 3:
            _select_early(head, node, [index for index in indices if index is not None])
    head.graph.eliminate_dead_code()
    head.graph.lint()
    head.recompile()


def _selected_token(node: fx.Node) -> int | None:
    """The index of a token, where a node selects one: ``x[:, 0]`` or ``x[:, 0, :]``."""
    if node.target is not operator.getitem or not isinstance(node.args[1], tuple):
        return None
    batch, token, *rest = (*node.args[1], None, None)[:4]
    everything = slice(None)
    if batch != everything or type(token) is not int or token < 0:
        return None
    return token if rest in ([None, None], [everything, None]) else None


def _select_early(head: fx.GraphModule, value: fx.Node, indices: Sequence[int]) -> None:
    """Replace the selections of single tokens of a value (N, T, K)."""
    first, end = min(indices), max(indices) + 1
    selected = _Selector(head, slice(first, end), _shape(value)[1]).select(value)
    for user, index in zip(list(value.users), indices, strict=True):
        if user is not selected:
            user.args = (selected, (slice(None), index - first, *user.args[1][2:]))  # type: ignore[index,misc]


class _Selector:
    """Builds the nodes that compute some tokens of a value of all tokens.

    Args:
        head: gets the nodes.
        tokens: those to compute.
        count: the number of all.
    """

    def __init__(self, head: fx.GraphModule, tokens: slice, count: int) -> None:
        self._head, self._tokens, self._count = head, tokens, count
        self._selected: dict[fx.Node, fx.Node] = {}

    def select(self, value: fx.Node) -> fx.Node:
        """The node of the tokens of a value (N, T, K)."""
        if value not in self._selected:
            self._selected[value] = self._compute(value) or self._slice(value)
        return self._selected[value]

    def _compute(self, value: fx.Node) -> fx.Node | None:
        """The tokens computed of those of the value's operands; None where that is impossible."""
        module = self._module(value)
        if (
            _is_tokenwise(module)
            or value.target in _TOKENWISE_FUNCTIONS
            or (value.target is F.layer_norm and len(value.args[1]) == 1)  # type: ignore[arg-type]
        ):
            return self._copy(value, (self.select(value.all_input_nodes[0]), *value.args[1:]))
        if value.target in _ELEMENTWISE_FUNCTIONS and not value.kwargs:
            operands = [self._operand(operand) for operand in value.args]
            return None if None in operands else self._copy(value, tuple(operands))
        attention = value.args[0] if value.target is operator.getitem else None
        if isinstance(attention, fx.Node) and value.args[1] == 0 and len(attention.users) == 1:
            module = self._module(attention)
            if isinstance(module, nn.MultiheadAttention) and FewQueryAttention.fits(
                module, self._tokens.stop - self._tokens.start
            ):
                return self._attend(attention, FewQueryAttention(module))
        return None

    def _attend(self, attention: fx.Node, few: FewQueryAttention) -> fx.Node | None:
        """The output of attention whose query is the tokens alone.

        None where it has a mask, or keys and values are not the same tokens.
        """
        names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
        arguments = {**dict(zip(names, attention.args, strict=False)), **attention.kwargs}
        query, tokens = arguments["query"], arguments["key"]
        if (
            len(attention.args) > len(names)
            or any(arguments.get(name) is not None for name in ("key_padding_mask", "attn_mask"))
            or not isinstance(query, fx.Node)
            or arguments["value"] is not tokens
        ):
            return None
        name = f"{attention.name}_of_few"
        self._head.add_submodule(name, few)
        with self._head.graph.inserting_after(attention):
            return self._head.graph.call_module(name, (self.select(query), tokens))

    def _operand(self, operand: Any) -> Any:
        """The part of an operand that goes with the tokens; None where that is not known."""
        if not isinstance(operand, fx.Node):
            return operand
        shape = _shape(operand)
        if len(shape) == 3 and shape[1] == self._count:
            return self.select(operand)
        return operand if len(shape) < 2 or shape[-2] == 1 else None

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._head.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _copy(self, value: fx.Node, args: tuple[Any, ...]) -> fx.Node:
        with self._head.graph.inserting_after(value):
            return self._head.graph.create_node(value.op, value.target, args, dict(value.kwargs))

    def _slice(self, value: fx.Node) -> fx.Node:
        with self._head.graph.inserting_after(value):
            return self._head.graph.call_function(
                operator.getitem, (value, (slice(None), self._tokens))
            )


def _is_tokenwise(module: nn.Module | None) -> bool:
    """Whether a module computes each token (.., K) by itself."""
    if isinstance(module, nn.LayerNorm):
        # Over more than the channels, it would mix tokens.
        return type(module) is nn.LayerNorm and len(module.normalized_shape) == 1
    return type(module) in _TOKENWISE_MODULES


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value; empty where it is no tensor."""
    metadata = node.meta.get("tensor_meta")
    return tuple(getattr(metadata, "shape", ()))
