"""Layers by name, the default layer, and whether a layer's output is a grid over the photo."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from camserve.errors import SettingsError
from camserve.networks.architectures import build
from camserve.networks.layers import check_grid, get_layer, last_spatial_layer, replace_halves
from tests.support.small_networks import GRIDS, hooks_of, pictures


def outputs_of(network: nn.Module, layer: str, side: int) -> Tensor:
    """A layer's outputs for the five inputs of :func:`check_grid`."""
    calls: list[Tensor] = []
    hook = get_layer(network, layer).register_forward_hook(lambda *call: calls.append(call[2]))
    with torch.no_grad():
        network(replace_halves(*pictures(side)))
    hook.remove()
    (outputs,) = calls
    return outputs


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


def test_a_network_without_a_grid_has_no_default_layer() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    with pytest.raises(SettingsError, match=r"no module .* grid"):
        last_spatial_layer(network, GRIDS)
    assert hooks_of(network) == 0


def test_the_default_layer_of_a_swin_is_its_last_permute() -> None:
    network = build("swin_t", {}, 3).eval()
    assert last_spatial_layer(network, pictures(64)[0]) == "permute"


def test_a_vision_transformer_has_no_default_layer() -> None:
    network = models.vit_b_16(weights=None, num_classes=3, image_size=64).eval()
    with pytest.raises(SettingsError, match=r"tokens \('encoder': \(1, 17, 768\)\).*--layer"):
        last_spatial_layer(network, pictures(64)[0])
    assert hooks_of(network) == 0


# A grid


@pytest.mark.parametrize(
    ("arch", "layer", "side", "seed"),
    [
        *(
            (*case, 96, seed)
            for seed in range(3)
            for case in (
                ("resnet18", "layer4.1"),
                ("resnet18", "layer1.0"),
                ("mobilenet_v3_small", "features.12"),
                ("efficientnet_v2_s", "features.7"),
                ("regnet_x_400mf", "trunk_output.block4"),
                ("swin_t", "permute"),
            )
        ),
        # It mixes all positions of the photo.
        ("maxvit_t", "blocks.3", 224, 0),
        ("vit_b_16", "conv_proj", 224, 0),
        *(
            pytest.param(*case, 224, seed, marks=pytest.mark.slow)
            for seed in (1, 2)
            for case in (("maxvit_t", "blocks.3"), ("vit_b_16", "conv_proj"))
        ),
    ],
)
def test_layers_of_classifiers_are_grids(arch: str, layer: str, side: int, seed: int) -> None:
    torch.manual_seed(seed)
    network = build(arch, {}, 3).eval()
    check_grid(layer, outputs_of(network, layer, side))


def patches(side: int = 128) -> Tensor:
    """(5, 48, 8, 8): a patch embedding of the five inputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        embedding: Tensor = nn.Conv2d(3, 48, 16, 16)(replace_halves(*pictures(side)))
    return embedding


def attention(grid: Tensor) -> Tensor:
    """(5, 48, h, w) -> (5, 3, 1 + h * w, 16): heads, a class token and the others, features."""
    tokens = grid.flatten(2).transpose(1, 2)
    heads = tokens.reshape(len(grid), -1, 3, 16).transpose(1, 2)
    return torch.cat([torch.ones_like(heads[:, :, :1]), heads], dim=2)


NO_GRIDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "channels last": (lambda grid: grid.permute(0, 2, 3, 1), "channels last"),
    "attention": (attention, "does not move along its last two axes"),
    "attention, features first": (
        lambda grid: attention(grid).transpose(2, 3), "does not move along its last two axes"
    ),
    "columns first": (lambda grid: grid.transpose(2, 3), "does not move along its last two axes"),
    "rows in disorder": (
        lambda grid: grid[:, :, [3, 0, 6, 4, 1, 7, 2, 5]], "does not move along its last two axes"
    ),
    "tokens": (lambda grid: grid.flatten(2).transpose(1, 2), "tokens"),
    "a single cell": (lambda grid: grid.mean((2, 3), keepdim=True), "a single cell"),
    "a single cell, channels last": (
        lambda grid: grid.mean((2, 3))[:, None, None], "does not move along its last two axes"
    ),
    "a vector": (lambda grid: grid.mean((2, 3)), "no rows and columns"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_GRIDS)
def test_outputs_of_other_kinds_are_refused(kind: str) -> None:
    transform, message = NO_GRIDS[kind]
    outputs = transform(patches())
    shape = str((1, *outputs.shape[1:])).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(SettingsError, match=rf"'stem' must give .*, not {shape}: .*{message}"):
        check_grid("stem", outputs)


def test_with_layout_grid_the_shape_alone_is_checked() -> None:
    grid = patches()
    check_grid("stem", grid.transpose(2, 3), layout="grid")
    with pytest.raises(SettingsError, match=r"--set handler\.layout=grid says so"):
        check_grid("stem", grid.transpose(2, 3))
    for outputs in (grid.flatten(2), grid.mean((2, 3), keepdim=True)):
        with pytest.raises(SettingsError, match="must give activations"):
            check_grid("stem", outputs, layout="grid")


def test_grids_of_any_shape_and_scale_are_accepted() -> None:
    grid = patches()
    check_grid("stem", grid)
    check_grid("stem", grid[..., :5])
    check_grid("stem", grid[:, :1])
    # A single row, and a single column.
    check_grid("stem", grid.mean(2, keepdim=True))
    check_grid("stem", grid.mean(3, keepdim=True))
    check_grid("stem", 1e6 * grid)
    check_grid("stem", 1e-6 * grid)


def test_for_constant_outputs_the_shape_alone_decides() -> None:
    check_grid("stem", torch.zeros(5, 4, 3, 3))
    check_grid("stem", torch.zeros(5, 4, 3, 9), aspect=1 / 3)
    with pytest.raises(SettingsError, match="does not move"):
        check_grid("stem", torch.zeros(5, 3, 65, 16))
