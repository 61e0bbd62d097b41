"""A traced trunk's convolutions, each with all that follows it at once in one kernel.

Batch norms are folded into the weights, activations and residual sums become part of the
convolution that they follow, weights lie as the processor's kernel wants them. It is what
TorchInductor makes of such a network when it freezes it, without a compiler: oneDNN builds its
kernels itself.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from camserve.kernels import (
    ACTIVATIONS,
    NONE,
    RELU,
    Activation,
    Convolution,
    Kernels,
    OneDnn,
    Plain,
)

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
        activation: at the end.
    """

    nodes: list[fx.Node]
    inputs: fx.Node
    convolution: Convolution
    other: fx.Node | None = None
    activation: Activation = NONE

    @property
    def following(self) -> fx.Node | None:
        """The one node that reads its value, where there is but one."""
        return _sole_user(self.nodes[-1])


def fuse(
    trunk: fx.GraphModule, example: Tensor, batch_size: int, kernels: Kernels
) -> fx.GraphModule:
    """A trunk that computes the same in fewer and faster kernels.

    Args:
        trunk: traced, in eval mode; (N, 3, H, W) -> (N, K, h, w). It is used up.
        example: (1, 3, H, W).
        batch_size: the most samples of a pass.
        kernels: that it is to run in.

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
        order = {node: place for place, node in enumerate(trunk.graph.nodes)}
        for node, chain in fused.items():
            module = _kernel(node, chain, fused, order, batch_size, kernels)
            trunk.add_submodule(cast(str, node.target), module)
    for node in list(trunk.graph.nodes):
        if node not in fused:
            _keep_to_float32(trunk, node)
    trunk.graph.lint()
    trunk.delete_all_unused_submodules()
    trunk.recompile()
    return trunk


class Bare(nn.Module):
    """A traced module's code, which finds what it calls without nn.Module's search.

    Each look-up is short, but for one photo all of them together are a tenth of the time.

    Args:
        graph: (N, 3, H, W) -> (N, K, h, w).
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self._names = SimpleNamespace(**graph._modules, **graph._parameters, **graph._buffers)
        # Each GraphModule has a class of its own, whose method the code is.
        self._code = type(graph).forward

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w)."""
        return cast(Tensor, self._code(self._names, inputs))


def rounds(trunk: nn.Module) -> bool:
    """Whether any of a fused trunk's convolutions is taken in bfloat16."""
    kernels = (module for module in trunk.modules() if isinstance(module, Plain | OneDnn))
    return any(kernel.precision is torch.bfloat16 for kernel in kernels)


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
        # After a sum, oneDNN has no other activation.
        relu = chain.following
        if relu and _activation(trunk, relu) is RELU:
            chain.activation = RELU
            chain.nodes.append(relu)
    elif after and (activation := _activation(trunk, after)):
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


def _convolution(trunk: fx.GraphModule, node: fx.Node) -> Convolution | None:
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
    return Convolution(weight, bias, stride, padding, dilation, given["groups"] or 1)


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


def _kernel(
    node: fx.Node,
    chain: _Chain,
    fused: Mapping[fx.Node, _Chain],
    order: Mapping[fx.Node, int],
    batch_size: int,
    kernels: Kernels,
) -> nn.Module:
    convolution = chain.convolution
    precision = kernels.precision if _bears_rounding(node, chain, fused) else torch.float32
    if not kernels.onednn:
        return Plain(convolution, chain.activation, precision)
    shape = chain.inputs.meta["tensor_meta"].shape[1:]
    adds = chain.other is not None
    overwrites = adds and _last_use(node, fused, order)
    return OneDnn(convolution, chain.activation, precision, shape, batch_size, adds, overwrites)


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
        return fused[cast(fx.Node, user)].activation is not NONE
    return chain.activation is not NONE


def _last_use(node: fx.Node, fused: Mapping[fx.Node, _Chain], order: Mapping[fx.Node, int]) -> bool:
    """Whether what a node adds is a tensor of its own that nothing reads later or elsewhere."""
    inputs, other = node.args
    if not isinstance(other, fx.Node) or other not in fused or inputs is other:
        return False
    # A convolution reads it and hands nothing of it on, which any other user might; nor does a
    # kernel that adds it without overwriting it, but which of them do is not known yet.
    return all(
        user is node or (user in fused and order[user] < order[node] and other not in user.args[1:])
        for user in other.users
    )


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
