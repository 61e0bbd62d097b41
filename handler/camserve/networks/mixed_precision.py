"""Splits a fused trunk into the part that needs float32 and the part that is safe in bfloat16."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from camserve.networks.fused_conv import FusedConv2d
from camserve.networks.fusion import called_module, fused_convolutions
from camserve.networks.partition import split_graph


def has_bf16(trunk: nn.Module) -> bool:
    """Whether a fused trunk computes any convolution in bfloat16."""
    return any(fused.dtype is torch.bfloat16 for fused in fused_convolutions(trunk))


def split_before_bf16(trunk: fx.GraphModule) -> tuple[fx.GraphModule | None, fx.GraphModule]:
    """Split a fused trunk before its first convolution that is safe in bfloat16.

    The first convolution of a VGG sums 27 products and needs float32; all others are safe. A vision
    transformer is safe as a whole.

    Returns:
        The float32 part, or None where the trunk needs none, and the bfloat16 part.

    Raises:
        ValueError: the second part has a convolution that is not safe in bfloat16, or reads more
            than one value of the first.
    """
    if _is_transformer(trunk):
        return None, trunk
    safe = {node for node in trunk.graph.nodes if _is_bf16_safe(trunk, node)}
    before: set[fx.Node] = set()
    after: set[fx.Node] = set()
    for node in trunk.graph.nodes:
        if node.op in ("output", "get_attr"):
            continue
        depends = not after.isdisjoint(node.all_input_nodes)
        (after if depends or node in safe else before).add(node)
    modules = (called_module(trunk, node) for node in after - safe)
    if not safe or any(isinstance(module, FusedConv2d) for module in modules):
        raise ValueError("not all of the trunk's convolutions are safe in bfloat16")
    boundary = [node for node in before if not after.isdisjoint(node.users)]
    if len(boundary) != 1 or not after.issuperset(trunk.graph.output_node().all_input_nodes):
        raise ValueError("more than one value connects the trunk's float32 and bfloat16 parts")
    (value,) = boundary
    if value.op == "placeholder":
        return None, trunk
    return split_graph(trunk, before, [value], [value], after)


def _is_bf16_safe(trunk: fx.GraphModule, node: fx.Node) -> bool:
    module = called_module(trunk, node)
    return isinstance(module, FusedConv2d) and module.bf16_safe


def _is_transformer(trunk: fx.GraphModule) -> bool:
    """Whether layer norms are all that a trunk has besides linear layers, and a patch embedding.

    Each block of it reads normalised values and adds to the sum of all blocks before it, so that
    rounding errors do not grow from block to block. It has convolutions only on the photo itself.
    """
    nodes = list(trunk.graph.nodes)
    modules = [(node, called_module(trunk, node)) for node in nodes]
    convolutions = [
        node
        for node, module in modules
        if isinstance(module, FusedConv2d | nn.Conv2d) or node.target in (F.conv2d, torch.conv2d)
    ]
    embeds_only = all(node.all_input_nodes[0].op == "placeholder" for node in convolutions)
    return embeds_only and any(
        isinstance(module, nn.LayerNorm) or node.target is F.layer_norm for node, module in modules
    )
