"""A traced trunk's convolutions, each with all that follows it at once in one kernel.

Batch norms are folded into the weights, activations and residual sums become part of the
convolution that they follow.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from camserve.networks.fused_conv import ACTIVATIONS, Activation, ConvParameters, FusedConv2d
from camserve.networks.partition import split_graph

# Below this many products a sum stays in float32.
_LONG_SUM: Final = 64
_SUMS: Final = {operator.add, operator.iadd, torch.add, "add", "add_"}


@dataclass
class _Chain:
    """A convolution in the trace and what goes into its kernel with it.

    Attributes:
        nodes: of the trace, in order.
        inputs: of the convolution.
        convolution: with its norm.
        other: what is added before the activation.
        activation: at the end, where there is one.
    """

    nodes: list[fx.Node]
    inputs: fx.Node
    convolution: ConvParameters
    other: fx.Node | None = None
    activation: Activation | None = None

    @property
    def following(self) -> fx.Node | None:
        """The one node that reads its value, where there is but one."""
        return _sole_user(self.nodes[-1])


def fuse(trunk: fx.GraphModule, example: Tensor, precision: torch.dtype) -> fx.GraphModule:
    """A trunk that computes the same in fewer kernels.

    Args:
        trunk: traced, in eval mode; (N, 3, H, W) -> (N, K, h, w). It is used up.
        example: (1, 3, H, W).
        precision: float32 or bfloat16, of the convolutions that bear it.

    Returns:
        The trunk; its output is float32.
    """
    with torch.no_grad():
        # Two samples, so that what has the shape of one is told from what has that of each.
        ShapeProp(trunk).propagate(example.expand(2, -1, -1, -1))
        fused: dict[fx.Node, _Chain] = {}
        for node in list(trunk.graph.nodes):
            chain = _chain(trunk, node)
            if chain is not None:
                fused[_replace(trunk, chain, f"fused_{len(fused)}")] = chain
        for node, chain in fused.items():
            bears = _bears_rounding(node, chain, fused)
            kernel = FusedConv2d(chain.convolution, chain.activation, precision, bears)
            trunk.add_submodule(cast(str, node.target), kernel)
    for node in list(trunk.graph.nodes):
        if node not in fused:
            _keep_to_float32(trunk, node)
    trunk.graph.lint()
    trunk.delete_all_unused_submodules()
    trunk.recompile()
    return trunk


def kernels(trunk: nn.Module) -> list[FusedConv2d]:
    """Those of a fused trunk."""
    return [module for module in trunk.modules() if isinstance(module, FusedConv2d)]


def rounds(trunk: nn.Module) -> bool:
    """Whether anything that a fused trunk multiplies is rounded."""
    return any(kernel.precision is torch.bfloat16 for kernel in kernels(trunk))


def split_before_rounding(trunk: fx.GraphModule) -> tuple[fx.GraphModule | None, fx.GraphModule]:
    """What of a fused trunk is computed before the first kernel that bears rounding, and the rest.

    The first convolution of a VGG adds 27 products; all others bear it.

    Raises:
        ValueError: not all of the rest bears it, or more than one value leads to it.
    """
    bearing = {node for node in trunk.graph.nodes if _kernel_bears(trunk, node)}
    before: set[fx.Node] = set()
    after: set[fx.Node] = set()
    for node in trunk.graph.nodes:
        if node.op in ("output", "get_attr"):
            continue
        depends = not after.isdisjoint(node.all_input_nodes)
        (after if depends or node in bearing else before).add(node)
    modules = (_module(trunk, node) for node in after - bearing)
    if not bearing or any(isinstance(module, FusedConv2d) for module in modules):
        raise ValueError("not all of its convolutions bear bfloat16")
    places = [node for node in before if not after.isdisjoint(node.users)]
    (last,) = trunk.graph.output_node().all_input_nodes
    if len(places) != 1 or last not in after:
        raise ValueError("its first convolutions and the others are linked by more than one value")
    (place,) = places
    if place.op == "placeholder":
        return None, trunk

    return split_graph(trunk, before, place, place, after)


def _kernel_bears(trunk: fx.GraphModule, node: fx.Node) -> bool:
    module = _module(trunk, node)
    return isinstance(module, FusedConv2d) and module.bears_rounding


def _chain(trunk: fx.GraphModule, node: fx.Node) -> _Chain | None:
    """The convolution at a node and what follows it; None for any other node."""
    convolution = _convolution(trunk, node)
    if convolution is None:
        return None
    chain = _Chain([node], cast(fx.Node, node.args[0]), convolution)
    if (
        (after := chain.following)
        and isinstance(norm := _module(trunk, after), nn.BatchNorm2d)
        and norm.running_mean is not None
    ):
        chain.convolution = convolution.normalised(norm)
        chain.nodes.append(after)
    after = chain.following
    if after and (other := _other(chain.nodes[-1], after)):
        chain.other = other
        chain.nodes.append(after)
        after = chain.following
    if after and (activation := _activation(trunk, after)):
        chain.activation = activation
        chain.nodes.append(after)
    return chain


def _other(value: fx.Node, node: fx.Node) -> fx.Node | None:
    """What a node adds to a value; None where it does something else."""
    if node.target not in _SUMS or node.kwargs or len(node.args) != 2:
        return None
    other = next((arg for arg in node.args if arg is not value), None)
    # Of another shape, the one would have to be spread over the other.
    if isinstance(other, fx.Node) and _shape(other) == _shape(value) == _shape(node):
        return other
    return None


def _convolution(trunk: fx.GraphModule, node: fx.Node) -> ConvParameters | None:
    """What a node convolves with; None where it does something else, or in a rare way."""
    module = _module(trunk, node)
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        given = {name: getattr(module, name) for name in _CONVOLUTION[1:]}
    elif node.target in (F.conv2d, torch.conv2d):
        named = {**dict(zip(_CONVOLUTION, node.args, strict=False)), **node.kwargs}
        given = {name: _constant(trunk, named.get(name)) for name in _CONVOLUTION[1:]}
    else:
        return None
    pairs = [given["stride"] or 1, given["padding"] or 0, given["dilation"] or 1]
    weight, bias = given["weight"], given["bias"]
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
        return None  # Computed in the trunk.
    if any(isinstance(pair, str) for pair in pairs):
        return None
    stride, padding, dilation = (
        [pair, pair] if isinstance(pair, int) else list(pair) for pair in pairs
    )
    return ConvParameters(weight, bias, stride, padding, dilation, given["groups"] or 1)


# The arguments of a convolution, in order.
_CONVOLUTION: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _constant(trunk: fx.GraphModule, value: Any) -> Any:
    """A parameter that a node fetches; any other value, computed ones among them, as it is."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return value
    return operator.attrgetter(cast(str, value.target))(trunk)


def _module(trunk: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return trunk.get_submodule(cast(str, node.target)) if node.op == "call_module" else None


def _activation(trunk: fx.GraphModule, node: fx.Node) -> Activation | None:
    module = _module(trunk, node)
    return ACTIVATIONS.get(node.target if module is None else type(module))


def _sole_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _shape(value: Any) -> Any:
    found = value.meta.get("tensor_meta") if isinstance(value, fx.Node) else None
    return None if found is None else found.shape


def _replace(trunk: fx.GraphModule, chain: _Chain, name: str) -> fx.Node:
    """Put one node in the place of a chain's; its module is made when all nodes are in place."""
    last = chain.nodes[-1]
    inputs = (chain.inputs,) if chain.other is None else (chain.inputs, chain.other)
    trunk.add_submodule(name, nn.Identity())
    with trunk.graph.inserting_before(last):
        node = trunk.graph.call_module(name, inputs)
    node.meta = dict(last.meta)
    last.replace_all_uses_with(node)
    for one in reversed(chain.nodes):
        trunk.graph.erase_node(one)
    return node


def _bears_rounding(node: fx.Node, chain: _Chain, fused: Mapping[fx.Node, _Chain]) -> bool:
    """Whether rounding what a convolution multiplies leaves the answer as it is.

    Errors average out in sums of many products; a depthwise convolution adds 9, an inner one of a
    ResNet 64 to 4608. And an activation follows: where none does, as at the end of a MobileNet's or
    an EfficientNet's block, few channels carry all there is from block to block, and are added up.
    (Without both rules, EfficientNet-Lite0's probabilities differ by up to 0.06, with them by less
    than 0.01.) What is added to before an activation has one.
    """
    if chain.convolution.weight[0].numel() < _LONG_SUM:
        return False
    user = _sole_user(node)
    if user in fused and node in cast(fx.Node, user).args[1:]:
        return fused[cast(fx.Node, user)].activation is not None
    return chain.activation is not None


def _keep_to_float32(trunk: fx.GraphModule, node: fx.Node) -> None:
    """Give float32 to what has parameters, in it or beside it, and to the caller."""
    module = _module(trunk, node)
    # A batch norm takes either.
    has_own = not isinstance(module, nn.BatchNorm2d | None) and any(
        True for _ in module.parameters()
    )
    beside = [value for value in node.all_input_nodes if value.op == "get_attr"]
    if has_own or beside or node.op == "output":
        for value in node.all_input_nodes:
            with trunk.graph.inserting_before(node):
                exact = trunk.graph.call_method("float", (value,))
            node.replace_input_with(value, exact)
