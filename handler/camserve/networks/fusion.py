"""Fuses each convolution of a traced trunk with the operations that follow it.

Batch norms are folded into the weights; residual sums and activations become part of the
convolution's module (:class:`~camserve.networks.fused_conv.FusedConv2d`).
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

# Sums of fewer products stay in float32.
_MIN_BF16_PRODUCTS: Final = 64
_ADDITIONS: Final = {operator.add, operator.iadd, torch.add, "add", "add_"}
# The parameters of F.conv2d, in order.
_CONV2D_PARAMETERS: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@dataclass
class _FusionGroup:
    """A convolution and the nodes that are fused with it.

    Attributes:
        nodes: of the graph, in order.
        inputs: of the convolution.
        convolution: with its batch norm folded in.
        residual: what is added before the activation, or None.
        activation: the last operation, or None.
    """

    nodes: list[fx.Node]
    inputs: fx.Node
    convolution: ConvParameters
    residual: fx.Node | None = None
    activation: Activation | None = None

    @property
    def next_node(self) -> fx.Node | None:
        """The only node that reads the group's value; None where several or none do."""
        return _sole_user(self.nodes[-1])


def fuse(trunk: fx.GraphModule, example: Tensor, dtype: torch.dtype) -> fx.GraphModule:
    """Rewrite a trunk so that it computes the same with fewer kernels.

    Args:
        trunk: traced, in eval mode; (N, C, H, W) -> a tensor or several. It is changed in place.
        example: (1, C, H, W).
        dtype: float32 or bfloat16, for the convolutions that are safe in it.

    Returns:
        The trunk; its outputs are float32.
    """
    with torch.no_grad():
        # Two samples: a tensor without a batch axis then has another shape than one with it.
        ShapeProp(trunk).propagate(example.expand(2, -1, -1, -1))
        groups: dict[fx.Node, _FusionGroup] = {}
        for node in list(trunk.graph.nodes):
            group = _fusion_group(trunk, node)
            if group is not None:
                groups[_replace(trunk, group, f"fused_{len(groups)}")] = group
        for node, group in groups.items():
            safe = _is_bf16_safe(node, group, groups)
            fused = FusedConv2d(group.convolution, group.activation, dtype, safe)
            trunk.add_submodule(cast(str, node.target), fused)
    if dtype is not torch.float32:
        for node in list(trunk.graph.nodes):
            if node not in groups:
                _insert_float32_casts(trunk, node)
    trunk.graph.lint()
    trunk.delete_all_unused_submodules()
    trunk.recompile()
    return trunk


def fused_convolutions(trunk: nn.Module) -> list[FusedConv2d]:
    """All fused convolutions of a trunk."""
    return [module for module in trunk.modules() if isinstance(module, FusedConv2d)]


def called_module(trunk: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None for a node that calls none."""
    return trunk.get_submodule(cast(str, node.target)) if node.op == "call_module" else None


def _fusion_group(trunk: fx.GraphModule, node: fx.Node) -> _FusionGroup | None:
    """The convolution at a node with all that can be fused with it; None for other nodes."""
    convolution = _conv_parameters(trunk, node)
    if convolution is None:
        return None
    group = _FusionGroup([node], cast(fx.Node, node.args[0]), convolution)
    if (
        (after := group.next_node)
        and isinstance(norm := called_module(trunk, after), nn.BatchNorm2d)
        and norm.running_mean is not None
    ):
        group.convolution = convolution.fold_batch_norm(norm)
        group.nodes.append(after)
    after = group.next_node
    if after and (residual := _residual_operand(group.nodes[-1], after)):
        group.residual = residual
        group.nodes.append(after)
        after = group.next_node
    if after and (activation := _activation(trunk, after)):
        group.activation = activation
        group.nodes.append(after)
    return group


def _residual_operand(value: fx.Node, node: fx.Node) -> fx.Node | None:
    """The tensor that a node adds to a value; None where it is not such a sum."""
    if node.target not in _ADDITIONS or node.kwargs or len(node.args) != 2:
        return None
    operand = next((arg for arg in node.args if arg is not value), None)
    # Operands of different shapes would have to be broadcast.
    if isinstance(operand, fx.Node) and _shape(operand) == _shape(value) == _shape(node):
        return operand
    return None


def _conv_parameters(trunk: fx.GraphModule, node: fx.Node) -> ConvParameters | None:
    """The parameters of the convolution at a node.

    None for other nodes, and for convolutions that are not fused: with computed weights, or with
    padding of another mode than zeros or given as a name.
    """
    module = called_module(trunk, node)
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        values = {name: getattr(module, name) for name in _CONV2D_PARAMETERS[1:]}
    elif node.target in (F.conv2d, torch.conv2d):
        arguments = {**dict(zip(_CONV2D_PARAMETERS, node.args, strict=False)), **node.kwargs}
        values = {
            name: _resolve_attribute(trunk, arguments.get(name)) for name in _CONV2D_PARAMETERS[1:]
        }
    else:
        return None
    pairs = [values["stride"] or 1, values["padding"] or 0, values["dilation"] or 1]
    weight, bias = values["weight"], values["bias"]
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
        return None
    if any(isinstance(pair, str) for pair in pairs):
        return None
    stride, padding, dilation = (
        [pair, pair] if isinstance(pair, int) else list(pair) for pair in pairs
    )
    return ConvParameters(weight, bias, stride, padding, dilation, values["groups"] or 1)


def _resolve_attribute(trunk: fx.GraphModule, value: Any) -> Any:
    """The parameter that a ``get_attr`` node reads; any other value unchanged."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return value
    return operator.attrgetter(cast(str, value.target))(trunk)


def _activation(trunk: fx.GraphModule, node: fx.Node) -> Activation | None:
    module = called_module(trunk, node)
    return ACTIVATIONS.get(node.target if module is None else type(module))


def _sole_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _shape(value: Any) -> Any:
    metadata = value.meta.get("tensor_meta") if isinstance(value, fx.Node) else None
    return None if metadata is None else metadata.shape


def _replace(trunk: fx.GraphModule, group: _FusionGroup, name: str) -> fx.Node:
    """Replace a group's nodes by one, which calls a placeholder module of that name.

    The fused module depends on the nodes that follow, so it is added once all are replaced.
    """
    last = group.nodes[-1]
    inputs = (group.inputs,) if group.residual is None else (group.inputs, group.residual)
    trunk.add_submodule(name, nn.Identity())
    with trunk.graph.inserting_before(last):
        fused_node = trunk.graph.call_module(name, inputs)
    fused_node.meta = dict(last.meta)
    last.replace_all_uses_with(fused_node)
    for node in reversed(group.nodes):
        trunk.graph.erase_node(node)
    return fused_node


def _is_bf16_safe(
    node: fx.Node, group: _FusionGroup, groups: Mapping[fx.Node, _FusionGroup]
) -> bool:
    """Whether a convolution can be computed in bfloat16 without a change of the network's answers.

    Two rules. It sums many products, so that rounding errors average out: a depthwise convolution
    sums 9, the inner ones of a ResNet 64 to 4608. And an activation follows, at once or after the
    residual sum that it is an operand of: without one, as at the end of a block of MobileNet or
    EfficientNet, few channels carry all information from block to block, and are added up. Without
    both rules EfficientNet-Lite0's probabilities differ by up to 0.06, with them by less than 0.01.
    """
    if group.convolution.weight[0].numel() < _MIN_BF16_PRODUCTS:
        return False
    user = _sole_user(node)
    if user in groups and node in cast(fx.Node, user).args[1:]:
        return groups[cast(fx.Node, user)].activation is not None
    return group.activation is not None


def _may_be_bf16(value: fx.Node) -> bool:
    """Whether a value may be in bfloat16: not a parameter, nor indices."""
    metadata = value.meta.get("tensor_meta")
    return value.op != "get_attr" and metadata is not None and metadata.dtype.is_floating_point


def _insert_float32_casts(trunk: fx.GraphModule, node: fx.Node) -> None:
    """Cast a node's inputs to float32 where it has or reads parameters, or is the output."""
    module = called_module(trunk, node)
    # A batch norm accepts bfloat16 inputs with float32 parameters.
    has_parameters = not isinstance(module, nn.BatchNorm2d | None) and any(
        True for _ in module.parameters()
    )
    reads_parameters = any(value.op == "get_attr" for value in node.all_input_nodes)
    if has_parameters or reads_parameters or node.op == "output":
        for value in node.all_input_nodes:
            if not _may_be_bf16(value):
                continue
            with trunk.graph.inserting_before(node):
                cast_node = trunk.graph.call_method("float", (value,))
            cast_node.meta = dict(value.meta)
            node.replace_input_with(value, cast_node)
