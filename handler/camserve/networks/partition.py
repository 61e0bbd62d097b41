"""Splits a traced network into two modules: at its target layer, or at any node of a graph."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

# Target of the node that marks the target layer's output in the trace.
_TARGET_MARKER: Final = "target_layer"


class PartitionedNetwork(nn.Module):
    """A trunk and a head, with a module between them that a hook can be registered on.

    Args:
        trunk: (N, 3, H, W) -> the target layer's output.
        head: the target layer's output -> (N, C) logits.

    Attributes:
        trunk, head: the arguments.
        layer: an identity between trunk and head; its output is the target layer's.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.layer, self.head = trunk, nn.Identity(), head

    def forward(self, inputs: Tensor) -> Any:
        """(N, 3, H, W) -> (N, C). Autograd does not record the trunk."""
        with torch.no_grad():
            activations = self.trunk(inputs)
        return self.head(self.layer(activations))


class _Tracer(fx.Tracer):
    """Adds a marker node after each call of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = super().call_module(m, *args, **kwargs)
        if m is self._layer:
            return self.create_proxy("call_module", _TARGET_MARKER, (output,), {})
        return output


def split_at_layer(network: nn.Module, layer: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Split a network into trunk and head, which share its parameters.

    Args:
        network: a module that ``torch.fx`` can trace.
        layer: the dotted name of one of its modules.

    Returns:
        The trunk, up to and including the layer, and the head after it.

    Raises:
        ValueError: the layer is not called exactly once, does not return a tensor, or the scores
            also depend on the input by a path around it.
    """
    graph = _Tracer(network.get_submodule(layer)).trace(network)
    markers = [node for node in graph.nodes if node.target == _TARGET_MARKER]
    if len(markers) != 1:
        raise ValueError(f"layer {layer!r} is called {len(markers)} times, not once")
    (marker,) = markers
    (layer_output,) = marker.args
    if not isinstance(layer_output, fx.Node):
        raise ValueError(f"layer {layer!r} does not return a tensor")
    trunk_nodes, end = _ancestors(layer_output), graph.output_node()
    _rewire_batch_size(marker, trunk_nodes)
    head_nodes = _ancestors(end, stop=marker) - {marker, end}
    if any(node.op == "placeholder" for node in head_nodes):
        raise ValueError(f"the scores depend on the photo by a path around layer {layer!r}")
    return split_graph(network, trunk_nodes, layer_output, marker, head_nodes)


def split_graph(
    owner: nn.Module,
    before: Collection[fx.Node],
    last: fx.Node,
    first: fx.Node,
    after: Collection[fx.Node],
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Copy the nodes before and after one value of a graph into a graph module each.

    Args:
        owner: has the modules and parameters that the graph names; both results share them.
        before, after: nodes without the graph's output. Each result also gets the ``get_attr``
            nodes that its nodes read.
        last: the node of ``before`` whose value the first result returns.
        first: the node that ``after`` reads this value from; the second result's input replaces it.
    """
    end = last.graph.output_node()
    first_graph, second_graph = fx.Graph(), fx.Graph()
    first_graph.output(_copy_nodes(before, first_graph, {})[last])
    activations = second_graph.placeholder("activations")
    _copy_nodes({*after, end}, second_graph, {first: activations})
    return fx.GraphModule(owner, first_graph), fx.GraphModule(owner, second_graph)


def _copy_nodes(
    nodes: Collection[fx.Node], graph: fx.Graph, copies: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Copy nodes, and the ``get_attr`` nodes that they read, in order; add them to ``copies``."""
    for node in next(iter(nodes)).graph.nodes:
        if node in nodes or (node.op == "get_attr" and any(user in nodes for user in node.users)):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _rewire_batch_size(marker: fx.Node, trunk_nodes: Collection[fx.Node]) -> None:
    """Read the batch size from the target layer's output where the head reads it from the trunk.

    Otherwise ``x.view(inputs.size(0), -1)`` would make the head depend on the photo, for nothing
    but its batch size.
    """
    for node in list(marker.graph.nodes):
        tensor = node.args[0] if node.args else None
        if node.target is operator.getitem and node.args[1] == 0 and isinstance(tensor, fx.Node):
            shape = tensor
            is_size = shape.target == "size" and len(shape.args) == 1
            if not is_size and (shape.target is not getattr or shape.args[1] != "shape"):
                continue
            tensor = shape.args[0]
        elif node.target != "size" or node.args[1:] != (0,):
            continue
        if tensor in trunk_nodes and node not in trunk_nodes:
            with marker.graph.inserting_after(marker):
                batch_size = marker.graph.call_method("size", (marker, 0))
            node.replace_all_uses_with(batch_size)


def _ancestors(node: fx.Node, stop: fx.Node | None = None) -> set[fx.Node]:
    """A node and all nodes that its value depends on; those before ``stop`` are left out."""
    visited: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in visited:
            visited.add(current)
            pending.extend(() if current is stop else current.all_input_nodes)
    return visited
