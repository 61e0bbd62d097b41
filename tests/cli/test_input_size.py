"""Networks are built for the size of their input, and weights of another size are not resampled."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from camserve.settings import Preprocess
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.input_size import check_trained_size, input_size_arguments
from tests.support.model_files import hf_network


def test_torchvisions_transformers_are_built_for_the_size_of_their_weights() -> None:
    kwargs = input_size_arguments("vit_b_16", {}, Preprocess(resize=384, crop=384))
    with torch.device("meta"):
        network = models.get_model("vit_b_16", **kwargs)
    assert network.encoder.pos_embedding.shape[1] == 1 + (384 // 16) ** 2


def torchvision_vit(side: int) -> nn.Module:
    network: nn.Module = models.VisionTransformer(side, 16, 1, 2, 32, 64, num_classes=5)
    return network


def timm_vit(side: int, name: str = "vit_tiny_patch16_224") -> nn.Module:
    network: nn.Module = timm.create_model(name, img_size=side, depth=1, num_classes=5)
    return network


def timm_dino(side: int) -> nn.Module:
    return timm_vit(side, "vit_small_patch14_reg4_dinov2")


def timm_deit(side: int) -> nn.Module:
    return timm_vit(side, "deit_tiny_distilled_patch16_224")


def hf_vit(side: int) -> nn.Module:
    network: nn.Module = hf_network("vit", image_size=side)
    return network


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize(
    ("build", "side", "trained"),
    [
        (torchvision_vit, 96, 128), (timm_vit, 224, 384), (timm_dino, 98, 224),
        (timm_deit, 224, 96), (hf_vit, 64, 96),
    ],
)  # fmt: skip
def test_weights_of_another_size_are_refused_with_the_settings_that_fit(
    build: Any, side: int, trained: int, prefix: str
) -> None:
    network, preprocess = build(side), Preprocess(resize=side, crop=side)
    tensors = {f"{prefix}{name}": value for name, value in build(trained).state_dict().items()}
    with pytest.raises(PackageError, match=f"were trained on inputs of {trained} x {trained}: "):
        check_trained_size(network, tensors, preprocess, ["batchSize=2"])
    # Who sets the crop wants them resampled.
    check_trained_size(network, tensors, preprocess, [f"handler.preprocess.crop={side}"])
    check_trained_size(network, network.state_dict(), preprocess, [])


@pytest.mark.parametrize(
    "build", [lambda: models.resnet18(num_classes=5), lambda: timm.create_model("convnext_atto")]
)
def test_networks_for_inputs_of_any_size_have_none_to_check(build: Any) -> None:
    network = build()
    check_trained_size(network, network.state_dict(), Preprocess(), [])


@pytest.mark.parametrize("shape", [(1, 3, 192), (1, 0, 192), (192,), (1, 577, 8)])
def test_position_embeddings_of_no_square_say_nothing_of_the_size(shape: tuple[int, ...]) -> None:
    network, preprocess = timm_vit(224), Preprocess(resize=224, crop=224)
    check_trained_size(network, {"pos_embed": torch.zeros(shape)}, preprocess, [])
