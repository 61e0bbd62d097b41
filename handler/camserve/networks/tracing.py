"""Traces networks by ``torch.fx``, also those whose forward asks for the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from camserve.networks.fusion import called_module
from camserve.networks.layer_tracer import TARGET_MARKER, LayerTracer
from camserve.networks.shape_tracer import ShapeTracer


class PhotosOnly(nn.Module):
    """Calls a network with photos alone, so that a trace holds the defaults of its other inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> Any:
        return self.network(photos)


def trace(network: nn.Module, layer: nn.Module, example: Tensor) -> tuple[nn.Module, fx.Graph]:
    """Trace a network, with a node after each call of a layer that marks its output.

    Args:
        network: (N, C, H, W) -> anything.
        layer: one of its modules.
        example: (1, C, H, W). Where the forward decides by a tensor's shape or by its number type,
            these are an example's; a decision by the batch size or by values cannot be traced.

    Returns:
        The module that the names in the graph are of, and the graph.

    Raises:
        Exception: the network cannot be traced.
    """
    root = PhotosOnly(network)
    # Contexts: the network's forward may switch gradients off and leave them off, and keep what it
    # computes in its attributes.
    with torch.enable_grad(), _attributes_kept(network):
        try:
            graph = LayerTracer(layer).trace(root)
        except Exception:
            graph = ShapeTracer(layer, example).trace(root)
    _check_graph(root, graph)
    return root, graph


@contextmanager
def _attributes_kept(network: nn.Module) -> Iterator[None]:
    """Restore the attributes of all modules, which a forward may set to what is being traced."""
    tables = [
        (table, {**table})
        for module in network.modules()
        for table in (vars(module), module._parameters, module._buffers)
    ]
    try:
        yield
    finally:
        for table, content in tables:
            table.clear()
            table.update(content)


def _check_graph(root: nn.Module, graph: fx.Graph) -> None:
    """Refuse a graph that would be changed by leaving out what nothing reads, or by fusion.

    Raises:
        TraceError: a value is changed in place, and read under its former name; or a module has a
            hook, which may change what it returns.
    """
    for node in graph.nodes:
        # The marker names no module.
        module = None if node.target == TARGET_MARKER else called_module(root, node)
        if not node.users and _is_in_place(node, module):
            raise fx.proxy.TraceError(
                f"{node} changes a value in place and what it returns is not read"
            )
        hooks = [] if module is None else [*module._forward_hooks.values()]
        hooks += [] if module is None else [*module._forward_pre_hooks.values()]
        # Those of torch.nn.utils, as weight_norm's, compute the weights alone.
        if any(not type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks):
            raise fx.proxy.TraceError(f"the module {node.target} has a hook")


def _is_in_place(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node changes a value that it is given."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return (
        bool(getattr(module, "inplace", False))
        or bool(node.kwargs.get("inplace"))
        or "out" in node.kwargs
        or (node.op != "call_module" and name.endswith("_") and not name.endswith("__"))
        or name in ("setitem", "iadd", "isub", "imul", "itruediv")
    )
