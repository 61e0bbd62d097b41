"""A network cut in two: at its target layer, or at any one value of its trace."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

# The traced module that stands where the target layer's output is.
_PLACE: Final = "target_layer"


class PartitionedNetwork(nn.Module):
    """A network in two parts, with a module between them for the hook.

    Args:
        trunk: (N, 3, H, W) -> the target layer's output.
        head: the layer's output -> (N, C) logits.

    Attributes:
        trunk, head: as given.
        layer: hands the trunk's output on.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.layer, self.head = trunk, nn.Identity(), head

    def forward(self, inputs: Tensor) -> Any:
        """(N, 3, H, W) -> (N, C); the trunk leaves no tape."""
        with torch.no_grad():
            activations = self.trunk(inputs)
        return self.head(self.layer(activations))


class _Tracer(fx.Tracer):
    """Notes where a layer's output is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = super().call_module(m, *args, **kwargs)
        if m is self._layer:
            return self.create_proxy("call_module", _PLACE, (output,), {})
        return output


def split_at_layer(network: nn.Module, layer: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Trunk and head of a network, which share its parameters.

    Raises:
        ValueError: more than the layer's output leads from the one to the other.
    """
    graph = _Tracer(network.get_submodule(layer)).trace(network)
    places = [node for node in graph.nodes if node.target == _PLACE]
    if len(places) != 1:
        raise ValueError(f"layer {layer!r} runs {len(places)} times")
    (place,) = places
    (start,) = place.args
    if not isinstance(start, fx.Node):
        raise ValueError(f"layer {layer!r} gives no tensor")
    before, end = _needed(start), graph.output_node()
    _count_samples_at(place, before)
    after = _needed(end, place) - {place, end}
    if any(node.op == "placeholder" for node in after):
        raise ValueError(f"more than layer {layer!r} leads from the photo to the scores")
    return split_graph(network, before, start, place, after)


def split_graph(
    owner: nn.Module,
    before: Collection[fx.Node],
    last: fx.Node,
    first: fx.Node,
    after: Collection[fx.Node],
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The nodes before a value of a graph and those after it, each a module of its own.

    Args:
        owner: of the modules and parameters that the graph names; both share them.
        before, after: without the graph's output; the constants that they read go with them.
        last: of those before: the value.
        first: what those after read it from.
    """
    end = last.graph.output_node()
    one, other = fx.Graph(), fx.Graph()
    one.output(_copied(before, one, {})[last])
    _copied({*after, end}, other, {first: other.placeholder("activations")})
    return fx.GraphModule(owner, one), fx.GraphModule(owner, other)


def _copied(
    nodes: Collection[fx.Node], graph: fx.Graph, copies: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Copies of nodes and of the constants that they read, in order, added to those there are."""
    for node in next(iter(nodes)).graph.nodes:
        if node in nodes or (node.op == "get_attr" and any(user in nodes for user in node.users)):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _count_samples_at(place: fx.Node, before: Collection[fx.Node]) -> None:
    """Have what reads the number of samples off a value of the trunk read it off the layer's.

    ``x.view(inputs.size(0), -1)`` would tie the head to the photo for no more than that.
    """
    for node in list(place.graph.nodes):
        value = node.args[0] if node.args else None
        if node.target is operator.getitem and node.args[1] == 0 and isinstance(value, fx.Node):
            shape = value
            of_shape = shape.target == "size" and len(shape.args) == 1
            if not of_shape and (shape.target is not getattr or shape.args[1] != "shape"):
                continue
            value = shape.args[0]
        elif node.target != "size" or node.args[1:] != (0,):
            continue
        if value in before and node not in before:
            with place.graph.inserting_after(place):
                count = place.graph.call_method("size", (place, 0))
            node.replace_all_uses_with(count)


def _needed(node: fx.Node, stop: fx.Node | None = None) -> set[fx.Node]:
    """What a node's value is made from, itself included; nothing before ``stop``."""
    found: set[fx.Node] = set()
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead.extend(() if one is stop else one.all_input_nodes)
    return found
