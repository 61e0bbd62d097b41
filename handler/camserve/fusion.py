"""A traced trunk's convolutions, each with all that follows it at once in one kernel.

Batch norms are folded into the weights, activations and residual sums become part of the
convolution that they follow, weights lie as the processor's kernel wants them. It is what
TorchInductor makes of such a network when it freezes it, without a compiler: oneDNN builds its
kernels itself.

Sums of many products are taken in the precision that is asked for, short ones always in float32:
there, rounding errors do not average out, and there is next to no time to be won. A depthwise
convolution adds 9 products, an inner one of a ResNet 64 to 4608.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

# Below this many products a sum stays in float32.
_LONG_SUM: Final = 64
_onednn: Final = torch.ops.mkldnn


@dataclass(frozen=True)
class Kernels:
    """What a trunk is to run in.

    Attributes:
        precision: float32 or bfloat16, of long sums.
        onednn: fused kernels of oneDNN; otherwise PyTorch's own, one after the other.
    """

    precision: torch.dtype
    onednn: bool


@dataclass(frozen=True)
class _Activation:
    """What may follow a convolution: its name and scalars in oneDNN, and the same in PyTorch."""

    name: str
    scalars: tuple[float, ...]
    apply: Callable[[Tensor], Tensor]


_NONE: Final = _Activation("none", (), lambda outputs: outputs)
_RELU: Final = _Activation("relu", (), F.relu_)
_RELU6: Final = _Activation("hardtanh", (0.0, 6.0), lambda outputs: F.hardtanh_(outputs, 0.0, 6.0))
_SILU: Final = _Activation("swish", (), lambda outputs: F.silu(outputs, inplace=True))
_HARDSWISH: Final = _Activation("hardswish", (), lambda outputs: F.hardswish(outputs, inplace=True))
# By what stands in a trace: a module's class, a function, or a method's name.
_ACTIVATIONS: Final[dict[Any, _Activation]] = {
    nn.ReLU: _RELU, F.relu: _RELU, F.relu_: _RELU, torch.relu: _RELU, torch.relu_: _RELU,
    "relu": _RELU, "relu_": _RELU,
    nn.ReLU6: _RELU6, F.relu6: _RELU6,
    nn.SiLU: _SILU, F.silu: _SILU,
    nn.Hardswish: _HARDSWISH, F.hardswish: _HARDSWISH,
}  # fmt: skip
_SUMS: Final = {operator.add, operator.iadd, torch.add, "add", "add_"}


@dataclass(frozen=True)
class _Convolution:
    """A convolution as its operator takes it, a batch norm folded in."""

    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @property
    def terms(self) -> int:
        """How many products an output is the sum of."""
        return self.weight[0].numel()

    def normalised(self, norm: nn.BatchNorm2d) -> _Convolution:
        """Followed by a batch norm in eval mode."""
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = torch.rsqrt(variance + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        bias = -mean if self.bias is None else self.bias - mean
        bias = bias * scale
        bias = bias if norm.bias is None else bias + norm.bias
        return replace(self, weight=self.weight * scale.view(-1, 1, 1, 1), bias=bias)


class _Fused(nn.Module):
    """A convolution, perhaps added to another value, then an activation.

    Args:
        convolution: with float32 weights.
        activation: at the end.
        precision: of weights, input and output; sums are taken in float32.
    """

    def __init__(
        self, convolution: _Convolution, activation: _Activation, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.precision = precision
        self._how = convolution
        self._activation = activation
        self.bias = None if convolution.bias is None else convolution.bias.to(precision)
        self.weight = convolution.weight.to(precision, memory_format=torch.channels_last)

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w)."""
        how = self._how
        outputs = F.conv2d(
            inputs.to(self.precision), self.weight, self.bias,
            how.stride, how.padding, how.dilation, how.groups,
        )  # fmt: skip
        if other is not None:
            outputs += other
        return self._activation.apply(outputs)


class _OneDnn(nn.Module):
    """The same as :class:`_Fused` in one call of oneDNN.

    Args:
        convolution, activation, precision: as there.
        sizes: of the input (C, H, W), and the batch sizes that the weights are laid out for.
        overwrites: what is added is needed by nothing else, so the sum may take its place.
    """

    def __init__(
        self,
        convolution: _Convolution,
        activation: _Activation,
        precision: torch.dtype,
        shape: Sequence[int],
        batch_size: int,
        overwrites: bool,
    ) -> None:
        super().__init__()
        self._precision = precision
        self._overwrites = overwrites
        self._how = (
            convolution.padding, convolution.stride, convolution.dilation, convolution.groups
        )  # fmt: skip
        self._after = activation.name, list(activation.scalars), ""
        self._bias = None if convolution.bias is None else convolution.bias.to(precision)
        weight = convolution.weight.to(precision)
        # The layout that is best for one sample may be another than that for many; a weight in the
        # wrong one is laid out anew at every call.
        one, many = (
            _onednn._reorder_convolution_weight(weight, *self._how, [size, *shape])
            for size in (1, batch_size)
        )
        layouts = [_onednn._get_mkldnn_serialized_md(packed) for packed in (one, many)]
        self._one, self._many = (many if torch.equal(*layouts) else one), many

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w)."""
        inputs = inputs.to(self._precision)
        weight = self._one if len(inputs) == 1 else self._many
        if other is None:
            outputs = _onednn._convolution_pointwise(
                inputs, weight, self._bias, *self._how, *self._after
            )
        else:
            fits = self._overwrites and other.dtype == self._precision
            add = _onednn._convolution_pointwise_ if fits else _onednn._convolution_pointwise
            other = other.to(self._precision)
            pair = (other, inputs) if fits else (inputs, other)
            outputs = add.binary(*pair, weight, self._bias, *self._how, "add", 1.0, *self._after)
        return cast(Tensor, outputs)


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
    convolution: _Convolution
    other: fx.Node | None = None
    activation: _Activation = _NONE


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
        ShapeProp(trunk).propagate(example)
        fused: dict[fx.Node, _Chain] = {}
        taken: set[fx.Node] = set()
        for node in list(trunk.graph.nodes):
            chain = _chain(trunk, node, taken)
            if chain is not None:
                taken.update(chain.nodes)
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


def _chain(trunk: fx.GraphModule, node: fx.Node, taken: set[fx.Node]) -> _Chain | None:
    """The convolution at a node and what follows it; None for any other node."""
    convolution = _convolution(trunk, node)
    if convolution is None:
        return None
    chain = _Chain([node], cast(fx.Node, node.args[0]), convolution)

    def following() -> fx.Node | None:
        users = list(chain.nodes[-1].users)
        return users[0] if len(users) == 1 and users[0] not in taken else None

    after = following()
    if after is not None and isinstance(norm := _module(trunk, after), nn.BatchNorm2d):
        chain.convolution = convolution.normalised(norm)
        chain.nodes.append(after)
        after = following()
    if after is not None and after.target in _SUMS and not after.kwargs:
        others = [value for value in after.args if value is not chain.nodes[-1]]
        # Of another shape, it would have to be spread over the outputs.
        if len(after.args) == 2 and len(others) == 1 and _shape(others[0]) == _shape(after):
            chain.other = cast(fx.Node, others[0])
            chain.nodes.append(after)
            after = following()
    activation = None if after is None else _activation(trunk, after)
    # After a sum, oneDNN has but this one.
    if activation is not None and (chain.other is None or activation is _RELU):
        chain.activation = activation
        chain.nodes.append(cast(fx.Node, after))
    return chain


def _convolution(trunk: fx.GraphModule, node: fx.Node) -> _Convolution | None:
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
    if not isinstance(given["weight"], Tensor) or any(isinstance(pair, str) for pair in pairs):
        return None
    stride, padding, dilation = (
        [pair, pair] if isinstance(pair, int) else list(pair) for pair in pairs
    )
    groups = given["groups"] or 1
    return _Convolution(given["weight"], given["bias"], stride, padding, dilation, groups)


# The arguments of a convolution, in order.
_CONVOLUTION: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _constant(trunk: fx.GraphModule, value: Any) -> Any:
    """A parameter that a node fetches; any other value as it is."""
    if not isinstance(value, fx.Node):
        return value
    if value.op != "get_attr":
        return None
    return operator.attrgetter(cast(str, value.target))(trunk)


def _module(trunk: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return trunk.get_submodule(cast(str, node.target)) if node.op == "call_module" else None


def _activation(trunk: fx.GraphModule, node: fx.Node) -> _Activation | None:
    module = _module(trunk, node)
    return _ACTIVATIONS.get(node.target if module is None else type(module))


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
    fused: dict[fx.Node, _Chain],
    order: dict[fx.Node, int],
    batch_size: int,
    kernels: Kernels,
) -> nn.Module:
    convolution = chain.convolution
    precision = kernels.precision if convolution.terms >= _LONG_SUM else torch.float32
    if not kernels.onednn:
        return _Fused(convolution, chain.activation, precision)
    shape = chain.inputs.meta["tensor_meta"].shape[1:]
    overwrites = len(node.args) == 2 and _last_use(node, fused, order)
    return _OneDnn(convolution, chain.activation, precision, shape, batch_size, overwrites)


def _last_use(node: fx.Node, fused: dict[fx.Node, _Chain], order: dict[fx.Node, int]) -> bool:
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
    """Give what has float32 parameters, and the caller, float32."""
    module = _module(trunk, node)
    # A batch norm takes either.
    has_own = module is not None and any(True for _ in module.parameters())
    if node.op == "output" or (has_own and not isinstance(module, nn.BatchNorm2d)):
        with trunk.graph.inserting_before(node):
            value = trunk.graph.call_method("float", (node.args[0],))
        node.args = (value, *node.args[1:])
