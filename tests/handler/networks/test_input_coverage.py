"""A layer that sees only a part of the network's input is refused, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks import ScoreReader, check_network, run_network
from camserve.networks.layers import default_layer
from tests.support.model_files import HF_MODELS, Logits, hf_network
from tests.support.small_networks import hooks_of, pictures, with_batchnorm_statistics
from tests.support.transformers import NETWORKS

SIDE = 64


class Prepared(nn.Module):
    """Grids of 16 x 16 over what ``prepare`` makes of photos of 64 x 64."""

    def __init__(self, prepare: Callable[[Tensor], Tensor], *, padding: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prepare = prepare
        self.stem = nn.Conv2d(3, 8, 3, 2, padding)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding), nn.ReLU())
        self.fc = nn.Linear(8, 3)
        self.eval()

    def forward(self, photos: Tensor) -> Any:
        return self.fc(self.body(self.stem(self.prepare(photos))).mean((2, 3)))


def check(network: nn.Module, *layers: str, side: int = SIDE, classes: int = 3) -> None:
    photo, other = pictures(side)
    reader = ScoreReader.find("multiclass", "logits", classes, run_network(network, photo))
    check_network(network, reader, dict.fromkeys(layers, "auto"), photo, other, 8)


@pytest.mark.parametrize(
    ("prepare", "part", "crop"),
    [
        pytest.param(
            lambda photos: photos[:, :, 16:48, 16:48], "rows 16 to 47 and columns 16 to 47",
            "[32, 32]", id="the-middle",
        ),
        pytest.param(
            lambda photos: photos[:, :, :48], "rows 0 to 47 and columns 0 to 63", "[48, 64]",
            id="not-the-bottom",
        ),
        pytest.param(
            lambda photos: photos[..., 8:], "rows 0 to 63 and columns 8 to 63", "[64, 56]",
            id="not-the-left",
        ),
        pytest.param(
            lambda photos: F.interpolate(photos[:, :, 8:56, 8:56], SIDE),
            "rows 8 to 55 and columns 8 to 55", "[48, 48]", id="enlarged",
        ),
        pytest.param(
            lambda photos: photos * F.pad(photos.new_ones(40, 40), (12, 12, 12, 12)),
            "rows 12 to 51 and columns 12 to 51", "[40, 40]", id="black-margins",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layer", ["stem", "body"])
def test_a_layer_that_sees_a_part_of_the_input_is_refused(
    prepare: Callable[[Tensor], Tensor], part: str, crop: str, layer: str
) -> None:
    network = Prepared(prepare)
    with pytest.raises(SettingsError) as caught:
        check(network, layer)
    (message,) = caught.value.args
    assert message.startswith(f"layer {layer!r} sees only ")
    assert f"{part} of the network's input of 64 x 64 pixels" in message
    assert f"handler.preprocess.crop={crop}" in message
    assert hooks_of(network) == 0


@torch.no_grad()
def without_gradients(photos: Tensor) -> Tensor:
    return photos[:, :, 16:48, 16:48]


def test_a_crop_under_no_grad_is_found() -> None:
    with pytest.raises(SettingsError, match="sees only rows 16 to 47"):
        check(Prepared(without_gradients), "body")


def test_each_layer_that_is_served_is_checked() -> None:
    network = Prepared(lambda photos: photos)
    network.body.register_forward_pre_hook(lambda module, args: args[0][:, :, 8:24, 8:24])
    check(network, "stem")
    with pytest.raises(SettingsError, match="layer 'body' sees only rows"):
        check(network, "stem", "body")


def dark(network: Prepared) -> Prepared:
    """Few of its activations are above zero, and for a photo they are in a part of it."""
    with torch.no_grad():
        network.stem.bias.sub_(0.8)  # type: ignore[union-attr]
    return network


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Prepared(lambda photos: photos), id="all-of-it"),
        # Of 64 rows and columns 63 are read.
        pytest.param(Prepared(lambda photos: photos, padding=0), id="not-padded"),
        pytest.param(Prepared(lambda photos: photos[:, :, 1:, :-2]), id="less-than-a-cell"),
        pytest.param(Prepared(lambda photos: F.interpolate(photos, 40)), id="made-smaller"),
        pytest.param(Prepared(lambda photos: photos[:, :, ::2, ::2]), id="every-other-pixel"),
        pytest.param(dark(Prepared(lambda photos: photos)), id="few-activations"),
        # No gradient leads through: what they see is not known.
        pytest.param(Prepared(lambda photos: (photos * 8).round() / 8), id="rounded"),
        pytest.param(Prepared(lambda photos: photos.detach()), id="detached"),
    ],
)
def test_a_layer_that_sees_all_of_the_input_is_accepted(network: nn.Module) -> None:
    check(network, "body")
    assert hooks_of(network) == 0
    assert all(parameter.grad is None for parameter in network.parameters())


class NoGradient(torch.autograd.Function):
    """An operation of which no gradient is known."""

    @staticmethod
    def forward(ctx: Any, photos: Tensor) -> Tensor:
        return photos * 1

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError


def test_a_trunk_without_gradients_is_accepted() -> None:
    check(Prepared(NoGradient.apply), "body")


@pytest.mark.parametrize(
    "arch",
    [
        "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "maxvit_t",
        "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnet50", "shufflenet_v2_x0_5",
        "squeezenet1_1", "swin_t", "vgg11", "vit_b_16",
    ],
)  # fmt: skip
@pytest.mark.slow
def test_torchvisions_networks_are_accepted(arch: str) -> None:
    network = with_batchnorm_statistics(arch, 10) if "vit" not in arch else untrained(arch)
    photo, other = pictures(224)
    check(network, default_layer(network, photo, other), side=224, classes=10)


def untrained(arch: str) -> nn.Module:
    """A torchvision network for inputs of 224 x 224 alone."""
    from camserve.networks import build

    torch.manual_seed(0)
    return build(arch, {}, 10).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_tokens_are_accepted(name: str) -> None:
    case = NETWORKS[name]
    check(case.build(), case.default, *case.others, side=64, classes=10)


@pytest.mark.parametrize("model_type", HF_MODELS)
def test_transformers_classifiers_are_accepted(model_type: str) -> None:
    network = Logits(hf_network(model_type))
    photo, other = pictures(56 if model_type.startswith("dinov2") else SIDE)
    layer = default_layer(network, photo, other)
    check(network, layer, side=photo.shape[2], classes=5)
