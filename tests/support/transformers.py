"""Small seeded networks whose layers give tokens or channels last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models

CLASSES = 10
SIDE = 64


@dataclass(frozen=True)
class TokenNetwork:
    """A network, its default layer, others, and what pytorch-grad-cam calls reshape_transform."""

    create: Callable[[], nn.Module]
    default: str
    others: tuple[str, ...]
    reshape: Callable[[Tensor], Tensor]

    def build(self) -> nn.Module:
        """The seeded network in eval mode; its head is not zero, as torchvision's ViT has it."""
        torch.manual_seed(0)
        network = self.create().eval()
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        return network


def tokens(prefix: int, side: int) -> Callable[[Tensor], Tensor]:
    """(N, prefix + side * side, K) -> (N, K, side, side), as pytorch-grad-cam's examples do it."""

    def reshape(values: Tensor) -> Tensor:
        grid = values[:, prefix:, :].reshape(values.size(0), side, side, values.size(2))
        return grid.transpose(2, 3).transpose(1, 2)

    return reshape


def channels_last(values: Tensor) -> Tensor:
    """(N, h, w, K) -> (N, K, h, w)."""
    return values.transpose(2, 3).transpose(1, 2)


def of_timm(arch: str, **kwargs: Any) -> Callable[[], nn.Module]:
    def create() -> nn.Module:
        network: nn.Module = timm.create_model(arch, num_classes=CLASSES, **kwargs)
        return network

    return create


def vision_transformer() -> nn.Module:
    network: nn.Module = models.VisionTransformer(SIDE, 8, 3, 4, 48, 96, num_classes=CLASSES)
    return network


def swin(block: Any = None, downsample: Any = None) -> nn.Module:
    extra = {"block": block, "downsample_layer": downsample} if block else {}
    sizes: Any = ([2, 2], 24, [2, 2], [2, 2], [4, 4])
    network: nn.Module = models.SwinTransformer(*sizes, num_classes=CLASSES, **extra)
    return network


def swin_v2() -> nn.Module:
    parts = models.swin_transformer
    return swin(parts.SwinTransformerBlockV2, parts.PatchMergingV2)


def convnext() -> nn.Module:
    setting = [models.convnext.CNBlockConfig(16, 32, 2), models.convnext.CNBlockConfig(32, None, 2)]
    network: nn.Module = models.ConvNeXt(setting, num_classes=CLASSES)
    return network


#: By name. The others are in the order in which the network runs them.
NETWORKS: dict[str, TokenNetwork] = {
    "ViT": TokenNetwork(
        vision_transformer, "encoder.layers.encoder_layer_2.ln_1",
        ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1.ln_2"), tokens(1, 8),
    ),
    "Swin": TokenNetwork(swin, "norm", ("features.3.0",), channels_last),
    "Swin v2": TokenNetwork(swin_v2, "norm", ("features.3.0",), channels_last),
    "ConvNeXt": TokenNetwork(convnext, "features.3.1.block.2", ("features.1.0.block.2",),
                             channels_last),
    "timm ViT": TokenNetwork(
        of_timm("vit_tiny_patch16_224", img_size=SIDE, patch_size=8, depth=3), "blocks.2.norm1",
        ("blocks.0.norm1", "blocks.1"), tokens(1, 8),
    ),
    "timm DeiT": TokenNetwork(
        of_timm("deit_tiny_distilled_patch16_224", img_size=SIDE, depth=3), "blocks.2.norm1",
        ("blocks.0",), tokens(2, 4),
    ),
    "timm DINOv2 with registers": TokenNetwork(
        of_timm("vit_small_patch14_reg4_dinov2", img_size=SIDE, patch_size=8, depth=2,
                embed_dim=48, num_heads=4),
        "blocks.1.norm1", ("blocks.0.norm2",), tokens(5, 8),
    ),
    "timm Swin": TokenNetwork(
        of_timm("swin_tiny_patch4_window7_224", img_size=SIDE, window_size=4, depths=(2, 2),
                num_heads=(2, 2), embed_dim=24),
        "norm", ("layers.1.blocks.0",), channels_last,
    ),
    "timm Mixer": TokenNetwork(
        of_timm("mixer_s16_224", img_size=SIDE), "blocks.7.norm1", ("blocks.2",), tokens(0, 4),
    ),
}  # fmt: skip
