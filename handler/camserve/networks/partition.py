"""Splits a traced network into two modules: at its target layer, or at any node of a graph."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from camserve.networks.layer_tracer import TARGET_MARKER
from camserve.networks.tracing import trace


class PartitionedNetwork(nn.Module):
    """A trunk and a head, with a module between them that a hook can be registered on.

    Args:
        trunk: (N, C, H, W) -> the target layer's output, or a tuple of it and of further values
            that the head reads, as what a residual connection leads around the layer.
        head: these values -> (N, C) logits.

    Attributes:
        trunk, head: the arguments.
        layer: an identity between trunk and head; its output is the target layer's.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.layer, self.head = trunk, nn.Identity(), head

    def forward(self, inputs: Tensor) -> Any:
        """(N, C, H, W) -> (N, C). Autograd does not record the trunk."""
        with torch.no_grad():
            values = self.trunk(inputs)
        activations, *others = values if isinstance(values, tuple) else (values,)
        return self.head(self.layer(activations), *others)


def split_at_layer(
    network: nn.Module, layer: str, example: Tensor
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Split a network into trunk and head, which share its parameters.

    Args:
        network: a module that ``torch.fx`` can trace.
        layer: the dotted name of one of its modules.
        example: (1, C, H, W) input.

    Returns:
        The trunk, which gives the layer's output and further values that the head reads; and the
        head, which is all that depends on the layer's output.

    Raises:
        ValueError: the layer is not called exactly once, does not return a tensor, or the scores
            do not depend on it.
    """
    return split_trace(*trace(network, network.get_submodule(layer), example), layer)


def split_trace(
    root: nn.Module, graph: fx.Graph, layer: str
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Split a network that is traced already; :func:`split_at_layer` has the results.

    It may be called again with the same graph, of which both parts are copies.

    Args:
        root, graph: as :func:`~camserve.networks.tracing.trace` returns them.
        layer: its name, for messages.
    """
    markers = [node for node in graph.nodes if node.target == TARGET_MARKER]
    if len(markers) != 1:
        raise ValueError(f"layer {layer!r} is called {len(markers)} times, not once")
    (marker,) = markers
    (layer_output,) = marker.args
    if not isinstance(layer_output, fx.Node):
        raise ValueError(f"layer {layer!r} does not return a tensor")
    needed, end = _ancestors(graph.output_node()), graph.output_node()
    if marker not in needed:
        raise ValueError(f"the scores do not depend on layer {layer!r}")
    (photos,) = (node for node in graph.nodes if node.op == "placeholder")
    of_photos = _dependents(photos) & needed
    head_nodes = _dependents(marker) & needed
    _rewire_batch_size(marker, of_photos - head_nodes, head_nodes)
    # What does not depend on the photos, as parameters, is computed where it is read.
    head_nodes |= {node for node in _ancestors(*head_nodes) if node not in {*of_photos, photos}}
    others = [
        node
        for node in graph.nodes
        if node in of_photos - head_nodes - {marker} and not head_nodes.isdisjoint(node.users)
    ]
    trunk_nodes = _ancestors(layer_output, *others)
    return split_graph(
        root,
        trunk_nodes,
        [layer_output, *others],
        [marker, *others],
        head_nodes - {marker, end},
    )


def split_graph(
    owner: nn.Module,
    before: Collection[fx.Node],
    results: Sequence[fx.Node],
    inputs: Sequence[fx.Node],
    after: Collection[fx.Node],
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Copy the nodes before and after some values of a graph into a graph module each.

    Args:
        owner: has the modules and parameters that the graph names; both parts share them.
        before, after: nodes without the graph's output. Each part also gets the ``get_attr`` nodes
            that its nodes read.
        results: the nodes of ``before`` whose values the first part returns, as a tuple where they
            are several.
        inputs: for each of them the node that ``after`` reads its value from; the second part's
            inputs replace these.
    """
    end = results[0].graph.output_node()
    first_graph, second_graph = fx.Graph(), fx.Graph()
    copies = _copy_nodes(before, first_graph, {})
    returned = tuple(copies[node] for node in results)
    first_graph.output(returned if len(returned) > 1 else returned[0])
    placeholders = {node: second_graph.placeholder(f"input_{n}") for n, node in enumerate(inputs)}
    _copy_nodes({*after, end}, second_graph, placeholders)
    return fx.GraphModule(owner, first_graph), fx.GraphModule(owner, second_graph)


def _copy_nodes(
    nodes: Collection[fx.Node], graph: fx.Graph, copies: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Copy nodes, and the ``get_attr`` nodes that they read, in order; add them to ``copies``."""
    for node in next(iter(nodes)).graph.nodes:
        if node in nodes or (node.op == "get_attr" and any(user in nodes for user in node.users)):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _rewire_batch_size(
    marker: fx.Node, trunk_nodes: set[fx.Node], head_nodes: set[fx.Node]
) -> None:
    """Read the batch size from the target layer's output where the head reads it from the trunk.

    ``x.view(inputs.size(0), -1)`` would make the head read a number, for nothing but that.

    Args:
        marker: of the layer's output.
        trunk_nodes: nodes that do not depend on it.
        head_nodes: those that do; the new node is added to them.
    """
    sizes = [node for node in marker.graph.nodes if node in trunk_nodes and _is_batch_size(node)]
    for node in sizes:
        readers = [user for user in node.users if user in head_nodes]
        if readers:
            with marker.graph.inserting_after(marker):
                batch_size = marker.graph.call_method("size", (marker, 0))
            head_nodes.add(batch_size)
            for reader in readers:
                reader.replace_input_with(node, batch_size)


def _is_batch_size(node: fx.Node) -> bool:
    """Whether a node is ``x.size(0)``, ``x.size()[0]`` or ``x.shape[0]``."""
    if node.target == "size" and node.args[1:] == (0,):
        return True
    if node.target is not operator.getitem or node.args[1] != 0:
        return False
    shape = node.args[0]
    if not isinstance(shape, fx.Node):
        return False
    if shape.target is getattr:
        return shape.args[1:] == ("shape",)
    return shape.target == "size" and len(shape.args) == 1


def _ancestors(*nodes: fx.Node) -> set[fx.Node]:
    """Nodes and all nodes that their values depend on."""
    visited: set[fx.Node] = set()
    pending = [*nodes]
    while pending:
        current = pending.pop()
        if current not in visited:
            visited.add(current)
            pending.extend(current.all_input_nodes)
    return visited


def _dependents(node: fx.Node) -> set[fx.Node]:
    """All nodes whose values depend on a node's."""
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        for user in pending.pop().users:
            if user not in found:
                found.add(user)
                pending.append(user)
    return found
