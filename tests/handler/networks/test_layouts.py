"""Layouts of a layer's output: which it is, found by a patch that moves, or refused in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks import GridLayout, build
from camserve.networks.layers import get_layer
from camserve.networks.layouts import find_layout
from camserve.networks.patch_movement import move_patch
from camserve.preprocess_settings import InputSize
from camserve.settings import Layout, Settings
from tests.support.small_networks import pictures


def embedded(height: int, width: int, cell: int = 16, channels: int = 48) -> Tensor:
    """(13, K, h, w): a patch embedding of the inputs of :func:`move_patch`."""
    inputs = move_patch(*pictures(InputSize(height * cell, width * cell)))
    torch.manual_seed(0)
    with torch.no_grad():
        embedding: Tensor = nn.Conv2d(3, channels, cell, cell)(inputs)
    return embedding


def tokens(grid: Tensor, prefix: int = 0) -> Tensor:
    """(N, K, h, w) -> (N, prefix + h * w, K); what stands before depends on the whole photo."""
    before = grid.mean((2, 3))[:, None].expand(-1, prefix, -1)
    return torch.cat([before, grid.flatten(2).transpose(1, 2)], dim=1)


def found(outputs: Tensor, height: int, width: int, declared: Layout = "auto") -> GridLayout:
    return find_layout("stem", outputs, (height * 16, width * 16), declared)


# Found


@pytest.mark.parametrize("prefix", [0, 1, 2, 5, 9, 16])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 7), (14, 14), (8, 16)])
def test_tokens_of_any_grid_after_any_prefix_are_found(
    height: int, width: int, prefix: int
) -> None:
    outputs = tokens(embedded(height, width), prefix)
    expected = GridLayout("tokens", 48, height, width, prefix)
    assert found(outputs, height, width) == expected


@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 7), (8, 16), (16, 8)])
def test_grids_and_channels_last_are_told_apart(height: int, width: int) -> None:
    grid = embedded(height, width)
    assert found(grid, height, width) == GridLayout("grid", 48, height, width)
    last = grid.permute(0, 2, 3, 1)
    assert found(last, height, width) == GridLayout("channels_last", 48, height, width)


def test_tokens_of_patches_that_are_no_squares_are_found_by_the_convolutions_grid() -> None:
    grid = embedded(8, 8)[:, :, ::2]
    layout = find_layout("stem", tokens(grid, 1), (128, 128), grids={(4, 8)})
    assert layout == GridLayout("tokens", 48, 4, 8, 1)


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(lambda grid: grid[:, :1], id="one channel"),
        pytest.param(lambda grid: grid.mean(2, keepdim=True), id="one row"),
        pytest.param(lambda grid: grid.mean(3, keepdim=True), id="one column"),
        pytest.param(lambda grid: 1e6 * grid, id="large"),
        pytest.param(lambda grid: 1e-30 * grid, id="tiny"),
        pytest.param(lambda grid: grid.double(), id="float64"),
        pytest.param(lambda grid: grid.bfloat16(), id="bfloat16"),
        pytest.param(lambda grid: grid + 20 * grid.mean((2, 3), keepdim=True), id="mixed"),
    ],
)
def test_grids_of_any_shape_scale_and_type_are_found(
    transform: Callable[[Tensor], Tensor],
) -> None:
    outputs = transform(embedded(8, 8))
    assert found(outputs, 8, 8) == GridLayout("grid", *outputs.shape[1:])


@pytest.mark.parametrize("axis", [2, 3])
def test_cells_that_answer_for_their_neighbours_are_a_grid(axis: int) -> None:
    # As those of a network that has learned the edges of captions.
    beside = embedded(8, 8).index_select(axis, torch.tensor([1, 0, 3, 2, 4, 6, 5, 7]))
    assert found(beside, 8, 8) == GridLayout("grid", 48, 8, 8)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (GridLayout("grid", 6, 3, 4), (2, 6, 3, 4)),
        (GridLayout("channels_last", 6, 3, 4), (2, 3, 4, 6)),
        (GridLayout("tokens", 6, 3, 4), (2, 12, 6)),
        (GridLayout("tokens", 6, 3, 4, prefix=5), (2, 17, 6)),
    ],
)
def test_a_layers_output_becomes_a_grid_without_a_copy(
    layout: GridLayout, shape: tuple[int, ...]
) -> None:
    values = torch.zeros(shape)
    grid = layout.to_grid(values)
    assert grid.shape == (2, 6, 3, 4)
    # Sample 1, channel 2, row 2, column 3.
    grid[1, 2, 2, 3] = 1
    place = {
        "grid": (1, 2, 2, 3),
        "channels_last": (1, 2, 3, 2),
        "tokens": (1, layout.prefix + 2 * 4 + 3, 2),
    }[layout.kind]
    assert values.nonzero().tolist() == [list(place)]


@pytest.mark.parametrize(
    ("arch", "layer", "side", "seed", "kind"),
    [
        *(
            (*case, 96, seed, "grid")
            for seed in range(2)
            for case in (
                ("resnet18", "layer4.1"),
                ("resnet18", "layer1.0"),
                ("mobilenet_v3_small", "features.12"),
                ("mnasnet0_5", "layers.16"),
                ("shufflenet_v2_x0_5", "conv5"),
            )
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("efficientnet_v2_s", "features.7", 96, 0, "grid"),
                ("convnext_tiny", "features.7.2.block.3", 96, 0, "channels_last"),
                ("swin_t", "features.5.3", 96, 0, "channels_last"),
            )
        ),
        # It mixes all positions of the photo.
        *(
            pytest.param("maxvit_t", layer, 224, seed, "grid", marks=pytest.mark.slow)
            for seed in range(3)
            for layer in ("blocks.3", "blocks.2")
        ),
    ],
)
def test_layers_of_classifiers_are_grids(
    arch: str, layer: str, side: int, seed: int, kind: str
) -> None:
    torch.manual_seed(seed)
    network = build(arch, {}, 3).eval()
    calls: list[Tensor] = []
    hook = get_layer(network, layer).register_forward_hook(lambda *call: calls.append(call[2]))
    with hook, torch.no_grad():
        network(move_patch(*pictures(side)))
    assert find_layout(layer, calls[0], (side, side)).kind == kind


# Refused


def attention(grid: Tensor) -> Tensor:
    """(N, 48, h, w) -> (N, 3, 1 + h * w, 16): heads, a class token and the others, features."""
    heads = tokens(grid).reshape(len(grid), -1, 3, 16).transpose(1, 2)
    return torch.cat([torch.ones_like(heads[:, :, :1]), heads], dim=2)


def windows(grid: Tensor) -> Tensor:
    """The cells of an 8 x 8 grid in the order of 4 x 4 windows: (N, 64, K)."""
    samples, channels, height, width = grid.shape
    blocks = grid.view(samples, channels, height // 4, 4, width // 4, 4)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(samples, -1, channels)


def shuffled(axis: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Puts the rows (axis 2) or columns (axis 3) in disorder."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    return lambda grid: grid.index_select(axis, order)


MOVES = "does not move along rows and columns with it"
NO_GRIDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "attention": (attention, MOVES),
    "attention, features first": (lambda grid: attention(grid).transpose(2, 3), MOVES),
    "columns first": (lambda grid: grid.transpose(2, 3), MOVES),
    "rows reversed": (lambda grid: grid.flip(2), MOVES),
    "columns reversed": (lambda grid: grid.flip(3), MOVES),
    "turned": (lambda grid: grid.flip(2, 3), MOVES),
    "rows in disorder": (lambda grid: grid[:, :, [3, 0, 6, 4, 1, 7, 2, 5]], MOVES),
    "rows of halves in disorder": (lambda grid: grid[:, :, [3, 2, 1, 0, 7, 6, 5, 4]], MOVES),
    "columns of halves in disorder": (lambda grid: grid[..., [2, 3, 0, 1, 7, 6, 5, 4]], MOVES),
    "tokens, columns first": (lambda grid: tokens(grid.transpose(2, 3), 1), MOVES),
    "tokens, windows": (windows, MOVES),
    "tokens, reversed": (lambda grid: tokens(grid).flip(1), MOVES),
    "tokens, rows in disorder": (
        lambda grid: tokens(grid[:, :, [3, 0, 6, 4, 1, 7, 2, 5]], 1), MOVES
    ),
    "tokens, the prefix last": (lambda grid: tokens(grid, 9).roll(-9, 1), MOVES),
    "tokens, channels first": (lambda grid: grid.flatten(2), MOVES),
    "channels last, columns first": (lambda grid: grid.permute(0, 3, 2, 1), MOVES),
    "a part of the columns": (lambda grid: grid[..., :5], MOVES),
    "a single cell": (lambda grid: grid.mean((2, 3), keepdim=True), MOVES),
    "a single cell, channels last": (lambda grid: grid.mean((2, 3))[:, None, None], MOVES),
    "a single cell of one channel": (lambda grid: grid.mean((1, 2, 3))[:, None, None, None],
                                     "a single cell"),
    "a single token": (lambda grid: grid.mean((2, 3))[:, None], "a single cell"),
    "a vector": (lambda grid: grid.mean((2, 3)), "no rows and columns"),
    "five axes": (lambda grid: grid[:, None], "no rows and columns"),
    "NaN": (lambda grid: grid * torch.nan, "no finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_GRIDS)
def test_outputs_of_other_kinds_are_refused(kind: str) -> None:
    transform, message = NO_GRIDS[kind]
    outputs = transform(embedded(8, 8))
    shape = str((1, *outputs.shape[1:])).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(SettingsError, match=rf"'stem' must give .*, not {shape}: .*{message}"):
        found(outputs, 8, 8)


@pytest.mark.parametrize("axis", [2, 3])
def test_rows_and_columns_in_any_disorder_are_refused(axis: int) -> None:
    grid = embedded(8, 8)
    accepted = []
    for seed in range(40):
        try:
            found(shuffled(axis, seed)(grid), 8, 8)
        except SettingsError:
            continue
        accepted.append(seed)
    assert accepted == []


# Declared


def test_with_a_declared_kind_the_shape_alone_is_checked() -> None:
    turned = embedded(8, 8).transpose(2, 3)
    assert found(turned, 8, 8, "grid") == GridLayout("grid", 48, 8, 8)
    assert found(turned, 8, 8, "channels_last") == GridLayout("channels_last", 8, 48, 8)
    assert found(windows(turned), 8, 8, "tokens") == GridLayout("tokens", 48, 8, 8)


@pytest.mark.parametrize(
    ("transform", "declared"),
    [
        (lambda grid: grid.transpose(2, 3), r"grid \(or channels_last\)"),
        (windows, "tokens"),
    ],
)
def test_a_refusal_names_the_setting_that_asserts_the_layout(
    transform: Callable[[Tensor], Tensor], declared: str
) -> None:
    with pytest.raises(SettingsError, match=rf"--set handler\.layout={declared} says so"):
        found(transform(embedded(8, 8)), 8, 8)


@pytest.mark.parametrize(
    ("transform", "declared", "message"),
    [
        (lambda grid: grid, "tokens", "handler.layout says tokens, which has 3 axes"),
        (tokens, "grid", "handler.layout says grid, which has 4 axes"),
        (tokens, "channels_last", "handler.layout says channels_last, which has 4 axes"),
        (lambda grid: grid.mean((2, 3), keepdim=True), "grid", "a single cell"),
        (lambda grid: grid.mean((2, 3)), "grid", "no rows and columns"),
    ],
)
def test_a_declared_kind_that_the_shape_cannot_have_is_refused(
    transform: Callable[[Tensor], Tensor], declared: Layout, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        found(transform(embedded(8, 8)), 8, 8, declared)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("auto", {"layer4.2": "auto", "layer3.5": "auto"}),
        ("tokens", {"layer4.2": "tokens", "layer3.5": "tokens"}),
        ({"layer3.5": "grid"}, {"layer4.2": "auto", "layer3.5": "grid"}),
    ],
)
def test_the_setting_is_one_value_or_a_mapping(layout: object, expected: dict[str, Layout]) -> None:
    settings = Settings.from_yaml({"handler": {"layers": ["layer3.5"], "layout": layout}})
    assert {name: settings.layout_of(name) for name in settings.served} == expected


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"layer9": "grid"}, r"handler\.layout: 'layer9' is not served; accepted: layer4\.2"),
        ("rows", r"handler\.layout: 'rows' is not accepted; accepted: auto, grid, channels_last"),
        ({"layer4.2": "rows"}, r"handler\.layout.*'rows'.* accepted: auto, grid, channels_last"),
    ],
)
def test_a_setting_that_is_not_accepted_is_named(layout: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_yaml({"handler": {"layout": layout}})


# Constant outputs


@pytest.mark.parametrize(
    ("shape", "input_size", "expected"),
    [
        ((4, 3, 3), (96, 96), GridLayout("grid", 4, 3, 3)),
        ((4, 3, 9), (32, 96), GridLayout("grid", 4, 3, 9)),
        ((7, 7, 64), (224, 224), GridLayout("channels_last", 64, 7, 7)),
        ((50, 64), (224, 224), GridLayout("tokens", 64, 7, 7, 1)),
    ],
)
def test_for_constant_outputs_the_shape_alone_decides(
    shape: tuple[int, ...], input_size: tuple[int, int], expected: GridLayout
) -> None:
    assert find_layout("stem", torch.ones(13, *shape), input_size) == expected
    # What rounding leaves.
    noise = 1 + 1e-7 * torch.randn(13, *shape, generator=torch.Generator().manual_seed(0))
    assert find_layout("stem", noise, input_size) == expected


def test_constant_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(SettingsError, match=MOVES):
        find_layout("stem", torch.zeros(13, 3, 65, 16), (128, 128))
