"""The layers of a network that can be explained: by name, and the default."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.ops import Permute

from camserve.errors import SettingsError
from camserve.networks.forward import layer_gradient, recorded_outputs, run_network
from camserve.networks.layouts import GridLayout, find_layout
from camserve.networks.patch_movement import move_patch

#: Modules whose output is no layer to explain: they pool, or hand on what another module gave.
_SKIPPED: Final = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.Unflatten, Permute,
)  # fmt: skip
#: The least share of a grid's cells that the scores must depend on.
_MIN_CELLS: Final = 0.5
#: The least difference between cells' gradients that is no rounding error, as a share of the
#: largest gradient.
_MIN_DIFFERENCE: Final = 1e-4


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

    In a CNN, and in any network that ends in a grid of four axes, this is the last module whose
    output is such a grid, and of several with that same output the outermost: ``layer4.2`` in
    ResNet50, ``features.29`` in VGG16, the last norm in torchvision's Swin. In a network that ends
    in tokens, it is the last norm behind which each token counts in its own way: the first norm of
    the last block in a vision transformer, behind whose last attention only the class token counts,
    or all tokens count alike. Where earlier stages have more tokens, it is the last norm.

    Args:
        network: in eval mode. It is changed: its parameters are frozen, and weights that are zero
            everywhere, as many heads' are before they are trained, get seeded values.
        photo, other: (1, C, H, W), two different inputs on the network's device.

    Raises:
        SettingsError: no module's output is a grid over the photo that the scores depend on.
    """
    network.requires_grad_(False)
    _fill_zero_weights(network)
    candidates = _candidates(network, photo, other)
    name = _last_grid(network, candidates, photo) or _token_layer(network, candidates, photo)
    if name:
        return name
    raise SettingsError(
        "no module of the network gives a grid of activations over the photo to explain; accepted: "
        "a layer that gives (N, K, h, w), (N, h, w, K) or tokens (N, prefix + h * w, K), named by "
        "--layer (handler.layer)"
    )


def convolution_grids(network: nn.Module, photo: Tensor) -> set[tuple[int, int]]:
    """The heights and widths of what a network's convolutions give, as of a patch embedding.

    Args:
        network: in eval mode.
        photo: (1, C, H, W).
    """
    shapes = _output_shapes(network, photo)
    convolutions = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    ]
    return {
        (shape[2], shape[3])
        for name in convolutions
        for shape in shapes.get(name, [])
        if len(shape) == 4
    }


@dataclass(frozen=True)
class _Candidate:
    """A module that may be explained by default.

    Attributes:
        name: the dotted one.
        layout: of its output.
        is_norm: whether it normalises.
    """

    name: str
    layout: GridLayout
    is_norm: bool

    @property
    def has_tokens(self) -> bool:
        """Whether its output is tokens."""
        return self.layout.kind == "tokens"

    @property
    def parent(self) -> str:
        """The dotted name of the module that contains it."""
        return self.name.rpartition(".")[0]


def _fill_zero_weights(network: nn.Module) -> None:
    """Give matrices and kernels that are zero everywhere seeded values: they pass no gradient."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def _output_shapes(network: nn.Module, photo: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """By name, the shapes that a network's modules return, for each call, in order of return."""
    modules = {name: module for name, module in network.named_modules() if name}
    with recorded_outputs(modules, lambda output: tuple(output.shape)) as shapes:
        run_network(network, photo)
    return shapes


def _candidates(network: nn.Module, photo: Tensor, other: Tensor) -> list[_Candidate]:
    """The modules whose output is a grid over the photo, the last to return first.

    Outer modules return after inner ones, so of several with one output the first is outermost.
    Modules that are called more than once are left out.
    """
    shapes = _output_shapes(network, photo)
    modules = {
        name: get_layer(network, name)
        for name, (shape, *more) in shapes.items()
        if not more
        and (
            (len(shape) == 4 and max(min(shape[1:3]), min(shape[2:])) > 1)
            or (len(shape) == 3 and shape[1] > 1)
        )
    }
    modules = {
        name: module
        for name, module in modules.items()
        if type(module) is not nn.Sequential and not isinstance(module, _SKIPPED)
    }
    grids = convolution_grids(network, photo)

    inputs = move_patch(photo, other)

    def layout(output: Tensor) -> GridLayout | None:
        # Of windows of a photo, each is a row of its own.
        if len(output) != len(inputs):
            return None
        try:
            return find_layout("", output, (photo.shape[2], photo.shape[3]), grids=grids)
        except SettingsError:
            return None

    with recorded_outputs(modules, layout) as layouts:
        run_network(network, inputs)
    return [
        _Candidate(name, layout, "Norm" in type(modules[name]).__name__)
        for name, (layout, *_) in reversed(layouts.items())
        if layout
    ]


def _last_grid(network: nn.Module, candidates: Sequence[_Candidate], photo: Tensor) -> str:
    """The last grid of four axes; empty where tokens come after it."""
    for candidate in candidates:
        if candidate.has_tokens:
            return ""
        if _cell_gradients(network, candidate, photo) is not None:
            return candidate.name
    return ""


def _token_layer(network: nn.Module, candidates: Sequence[_Candidate], photo: Tensor) -> str:
    """The layer to explain of a network that ends in tokens; empty where there is none."""
    sizes = {(found.layout.height, found.layout.width) for found in candidates if found.has_tokens}
    last = next((found.layout for found in candidates if found.has_tokens), None)
    if last is None:
        return ""
    at_end = [
        found
        for found in candidates
        if (found.layout.height, found.layout.width) == (last.height, last.width)
    ]
    norms = [found for found in at_end if found.has_tokens and found.is_norm]
    counting = ""
    for n, candidate in enumerate(norms):
        gradients = _cell_gradients(network, candidate, photo)
        if gradients is None or not _most_count(gradients):
            continue
        if _all_alike(gradients):
            # In the mean of all tokens, or beside a class token that takes nothing from them.
            if not candidate.layout.prefix:
                counting = counting or candidate.name
            if len(sizes) > 1 and counting:
                return counting
            continue
        block = [found for found in norms[n:] if found.parent == candidate.parent]
        return block[-1].name
    others = (found for found in at_end if not (found.has_tokens and found.is_norm))
    if counting:
        return counting
    for candidate in others:
        gradients = _cell_gradients(network, candidate, photo)
        if gradients is not None and _most_count(gradients):
            return candidate.name
    return ""


def _cell_gradients(network: nn.Module, candidate: _Candidate, photo: Tensor) -> Tensor | None:
    """The gradient (1, K, h * w) at a candidate's cells; None where the scores depend on none."""
    gradient = layer_gradient(network, get_layer(network, candidate.name), photo)
    if gradient is None:
        return None
    cells = candidate.layout.to_grid(gradient).flatten(2)
    return cells if cells.any() else None


def _most_count(gradients: Tensor) -> bool:
    """Whether the scores depend on most cells."""
    return float(gradients.any(1).float().mean()) >= _MIN_CELLS


def _all_alike(gradients: Tensor) -> bool:
    """Whether all cells have the same gradient."""
    differences = (gradients - gradients[:, :, :1]).abs().max()
    return float(differences) <= _MIN_DIFFERENCE * float(gradients.abs().max())
