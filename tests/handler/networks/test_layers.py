"""Layers by name, and the default layer of classifiers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import nn
from torchvision import models

from camserve.errors import SettingsError
from camserve.networks import ScoreReader, build, run_network
from camserve.networks.checks import check_network
from camserve.networks.layers import default_layer, get_layer
from tests.support.model_files import Logits
from tests.support.small_networks import hooks_of, pictures

CLASSES = 5

# By name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("layer4.9", "layer4.1"), ("layer_4.1", "layer4.1"), ("layer4[-1]", "layer4.1")],
)
def test_an_unknown_name_lists_the_nearest_names(name: str, nearest: str) -> None:
    network = build("resnet18", {}, 5).eval()
    with pytest.raises(SettingsError) as error:
        get_layer(network, name)
    listed = str(error.value).split("nearest names: ")[1].split(", ")
    assert nearest in listed
    assert all(network.get_submodule(near) for near in listed)


# The default

Build = Callable[[], nn.Module]
#: A network, the side of its input, its default layer, and that layer's kind and prefix tokens.
Case = tuple[Build, int, str, str, int]


def torchvision(arch: str, **kwargs: Any) -> Build:
    return lambda: build(arch, kwargs, CLASSES)


def of_timm(arch: str, **kwargs: Any) -> Build:
    def create() -> nn.Module:
        network: nn.Module = timm.create_model(arch, num_classes=CLASSES, **kwargs)
        return network

    return create


def of_hugging_face(kind: str, **kwargs: Any) -> Build:
    def create() -> nn.Module:
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **kwargs)
        return Logits(getattr(transformers, f"{kind}ForImageClassification")(config))

    return create


VIT = {"image_size": 64, "patch_size": 16, "num_layers": 3, "num_heads": 2, "hidden_dim": 32}
TIMM_VIT = {"img_size": 64, "depth": 3}
HF_VIT = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96,
    "image_size": 64, "patch_size": 8,
}  # fmt: skip
HF_SWIN = {
    "image_size": 64, "patch_size": 2, "embed_dim": 24, "depths": [1, 1, 2], "num_heads": [2, 2, 2],
    "window_size": 4,
}  # fmt: skip
HF_CNN = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}

QUICK: dict[str, Case] = {
    "ViT": (
        lambda: models.VisionTransformer(**VIT, mlp_dim=64, num_classes=CLASSES),
        64, "encoder.layers.encoder_layer_2.ln_1", "tokens", 1,
    ),
    "Swin": (
        lambda: models.SwinTransformer([2, 2], 24, [1, 2], [2, 2], [4, 4], num_classes=CLASSES),
        64, "norm", "channels_last", 0,
    ),
    "resnet18": (torchvision("resnet18"), 64, "layer4.1", "grid", 0),
    "vgg11": (lambda: models.VGG(models.vgg.make_layers(models.vgg.cfgs["A"]), CLASSES, False), 64,
              "features.19", "grid", 0),
    "squeezenet1_1": (torchvision("squeezenet1_1"), 64, "classifier.2", "grid", 0),
    "mobilenet_v3_small": (torchvision("mobilenet_v3_small"), 64, "features.12", "grid", 0),
    "shufflenet_v2_x0_5": (torchvision("shufflenet_v2_x0_5"), 64, "conv5.2", "grid", 0),
    "mnasnet0_5": (torchvision("mnasnet0_5"), 64, "layers.16", "grid", 0),
    "timm ViT": (
        of_timm("vit_tiny_patch16_224", **TIMM_VIT), 64, "blocks.2.norm1", "tokens", 1
    ),
    "timm ViT, pooled": (
        of_timm("vit_tiny_patch16_224", **TIMM_VIT, global_pool="avg"),
        64, "blocks.2.norm1", "tokens", 1,
    ),
    "timm ViT, pooled, without a class token": (
        of_timm("vit_tiny_patch16_224", **TIMM_VIT, global_pool="avg", class_token=False),
        64, "blocks.2.norm1", "tokens", 0,
    ),
    "timm DeiT": (
        of_timm("deit_tiny_distilled_patch16_224", **TIMM_VIT), 64, "blocks.2.norm1", "tokens", 2
    ),
    "timm DINOv2 with registers": (
        of_timm("vit_small_patch14_reg4_dinov2", img_size=56, depth=3),
        56, "blocks.2.norm1", "tokens", 5,
    ),
    "timm Mixer": (
        of_timm("mixer_s16_224", img_size=64), 64, "blocks.7.norm1", "tokens", 0
    ),
    "timm Swin": (
        of_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1),
                num_heads=(2, 2), embed_dim=24),
        64, "norm", "channels_last", 0,
    ),
    "timm ConvNeXt": (
        of_timm("convnext_atto", depths=(1, 1, 1, 1)), 64, "stages.3", "grid", 0
    ),
    "timm ResNet": (of_timm("resnet18"), 64, "layer4.1", "grid", 0),
    "Hugging Face ViT": (
        of_hugging_face("ViT", **HF_VIT), 64, "network.vit.layers.2.layernorm_before", "tokens", 1
    ),
    "Hugging Face DeiT": (
        of_hugging_face("DeiT", **HF_VIT), 64, "network.deit.layers.2.layernorm_before", "tokens", 2
    ),
    "Hugging Face DINOv2": (
        of_hugging_face("Dinov2", **HF_VIT), 64, "network.dinov2.encoder.layer.2.norm1", "tokens", 1
    ),
    "Hugging Face DINOv2 with registers": (
        of_hugging_face("Dinov2WithRegisters", **HF_VIT),
        64, "network.dinov2_with_registers.encoder.layer.2.norm1", "tokens", 5,
    ),
    "Hugging Face BEiT": (
        of_hugging_face("Beit", **HF_VIT), 64, "network.beit.layers.2.layernorm_before", "tokens", 1
    ),
    "Hugging Face Swin": (
        of_hugging_face("Swin", **HF_SWIN), 64, "network.swin.layernorm", "tokens", 0
    ),
    "Hugging Face ConvNeXt": (
        of_hugging_face("ConvNext", **HF_CNN), 64, "network.convnext.encoder.stages.3", "grid", 0
    ),
    "Hugging Face ResNet": (
        of_hugging_face("ResNet", **HF_CNN, embedding_size=16),
        64, "network.resnet.encoder.stages.3", "grid", 0,
    ),
}  # fmt: skip


def check_default(case: Case) -> None:
    create, side, layer, kind, prefix = case
    torch.manual_seed(0)
    network = create().eval()
    hooks = hooks_of(network)
    photo, other = pictures(side)
    assert default_layer(network, photo, other) == layer
    assert hooks_of(network) == hooks
    reader = ScoreReader.find("multiclass", "logits", CLASSES, run_network(network, photo))
    layout = check_network(network, reader, {layer: "auto"}, photo, other, 8).layouts[layer]
    assert (layout.kind, layout.prefix) == (kind, prefix)


@pytest.mark.parametrize("name", QUICK)
def test_the_default_layer_is_the_one_that_the_literature_explains(name: str) -> None:
    check_default(QUICK[name])
