"""The layers of a network that can be explained: by name, and the default."""

from __future__ import annotations

import difflib
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.ops import Permute

from camserve.errors import SettingsError
from camserve.networks.forward import layer_gradient, recorded_outputs, run_network
from camserve.networks.layouts import GridLayout, find_layout, replace_halves

#: Modules whose output is no layer to explain: they pool, or hand on what another module gave.
_SKIPPED: Final = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.Unflatten, Permute,
)  # fmt: skip
#: The least share of a grid's cells that the scores must depend on.
_MIN_CELLS: Final = 0.5


def get_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        SettingsError: there is none; the nearest names are listed.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    modules.pop("")
    if name not in modules:
        nearest = difflib.get_close_matches(name, modules, n=5, cutoff=0.4) or list(modules)[-5:]
        raise SettingsError(
            f"the network has no layer {name!r}; the nearest names: {', '.join(nearest)}"
        )
    return modules[name]


def default_layer(network: nn.Module, photo: Tensor, other: Tensor) -> str:
    """The name of the layer that the literature explains.

    In a CNN this is the last module whose output is a grid, and of several with that same output
    the outermost: ``layer4.2`` in ResNet50, ``features.29`` in VGG16. In a network of tokens it is
    the last norm behind which every token counts: the last norm of a Swin, and in a vision
    transformer that classifies by a class token the first norm of the last block, since behind that
    block's attention only the class token counts.

    Args:
        network: in eval mode. It is changed: its parameters are frozen, and weights that are zero
            everywhere, as many heads' are before they are trained, get seeded values.
        photo, other: (1, C, H, W), two different inputs on the network's device.

    Raises:
        SettingsError: no module's output is a grid over the photo.
    """
    network.requires_grad_(False)
    _fill_zero_weights(network)
    candidates = _candidates(network, photo)
    found = ""
    for name in reversed(candidates):
        # Once a norm of tokens is found, only those before it in the same block come into question.
        if found and (_parent(name), candidates[name]) != (_parent(found), candidates[found]):
            continue
        layout = _measured_layout(network, name, photo, other)
        if layout and layout.kind != "tokens":
            return name
        if layout and _all_cells_count(network, get_layer(network, name), layout, photo):
            found = name
    if found:
        return found
    raise SettingsError(
        "no module of the network gives a grid of activations over the photo to explain; accepted: "
        "a layer that gives (N, K, h, w), (N, h, w, K) or tokens (N, prefix + h * w, K), named by "
        "--layer (handler.layer)"
    )


def _fill_zero_weights(network: nn.Module) -> None:
    """Give matrices and kernels that are zero everywhere seeded values: they pass no gradient."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def _candidates(network: nn.Module, photo: Tensor) -> dict[str, tuple[int, ...]]:
    """By name, the output shapes of modules that may be explained by default, in order of return.

    Outer modules return after inner ones, so of several with one output the last is outermost.
    Modules that are called more than once are left out. Of those that give tokens only norms stay:
    blocks, attention and their linear layers give tokens, too.
    """
    modules = {
        name: module
        for name, module in network.named_modules()
        if name and type(module) is not nn.Sequential and not isinstance(module, _SKIPPED)
    }
    with recorded_outputs(modules, lambda output: tuple(output.shape)) as outputs:
        run_network(network, photo)
    return {
        name: shape
        for name, (shape, *more) in outputs.items()
        if not more
        and (
            (len(shape) == 4 and max(min(shape[1:3]), min(shape[2:])) > 1)
            or (len(shape) == 3 and shape[1] > 1 and "Norm" in type(modules[name]).__name__)
        )
    }


def _measured_layout(
    network: nn.Module, name: str, photo: Tensor, other: Tensor
) -> GridLayout | None:
    """The layout of a layer's output; None where it is no grid over the photo."""
    with recorded_outputs({name: get_layer(network, name)}, torch.clone) as outputs:
        run_network(network, replace_halves(photo, other))
    try:
        return find_layout(name, outputs[name][0], (photo.shape[2], photo.shape[3]))
    except SettingsError:
        return None


def _parent(name: str) -> str:
    """The dotted name of the module that contains a module."""
    return name.rpartition(".")[0]


def _all_cells_count(
    network: nn.Module, layer: nn.Module, layout: GridLayout, photo: Tensor
) -> bool:
    """Whether the scores depend on the cells of a layer's grid.

    Where tokens stand before those of the grid, the cells must count through attention, each in its
    own way, and not only in a mean beside the class token.
    """
    gradient = layer_gradient(network, layer, photo)
    if gradient is None:
        return False
    cells = layout.to_grid(gradient).flatten(2)
    counting = cells.abs().amax(1) > 0
    if float(counting.float().mean()) < _MIN_CELLS:
        return False
    return not layout.prefix or not torch.allclose(cells, cells[:, :, :1], rtol=1e-4)
