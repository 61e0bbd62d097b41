"""The layers of a network that can be explained: by name, and the default."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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
#: So many candidates for the default layer are measured in one forward pass.
_MEASURED_AT_ONCE: Final = 12
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
    shapes = output_shapes(network, photo)
    candidates = _candidates(network, photo, other, shapes)
    grid = ""
    for candidate in candidates:
        grid = grid or candidate.name
        if candidate.has_tokens:
            # They may come in several sizes, as of a Swin.
            lengths = {
                shape[1]
                for name, (shape, *_) in shapes.items()
                if len(shape) == 3 and _is_norm(get_layer(network, name))
            }
            at_end = _same_grid(chain([candidate], candidates))
            if name := _token_layer(network, at_end, photo, len(lengths) > 1):
                return name
            break
        if _cell_gradients(network, candidate, photo) is not None:
            return candidate.name
    if grid:
        raise SettingsError(
            f"the network's scores do not change with any layer that could be explained, as "
            f"{grid!r}: their gradient there is zero or is cut off; accepted: scores that depend on"
            " the photo, without detach() (a softmax of a single score is always 1)"
        )
    raise SettingsError(
        "no module of the network gives a grid of activations over the photo to explain; accepted: "
        "a layer that gives (N, K, h, w), (N, h, w, K) or tokens (N, prefix + h * w, K), named by "
        "--layer (handler.layer)"
    )


def convolution_grids(
    network: nn.Module, shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> set[tuple[int, int]]:
    """The heights and widths of what a network's convolutions give, as of a patch embedding.

    Args:
        shapes: of its modules' outputs, as :func:`output_shapes`.
    """
    return {
        (shape[2], shape[3])
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
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


def output_shapes(network: nn.Module, photo: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """By name, the shapes that a network's modules return, for each call, in order of return."""
    modules = {name: module for name, module in network.named_modules() if name}
    with recorded_outputs(modules, lambda output: tuple(output.shape)) as shapes:
        run_network(network, photo)
    return shapes


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _candidates(
    network: nn.Module,
    photo: Tensor,
    other: Tensor,
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
) -> Iterator[_Candidate]:
    """The modules whose output is a grid over the photo, the last to return first.

    Outer modules return after inner ones, so of several with one output the first is outermost.
    Modules that are called more than once are left out.

    Args:
        shapes: of the modules' outputs for one photo.
    """
    modules = {
        name: get_layer(network, name)
        for name, (shape, *more) in shapes.items()
        if not more
        and (
            (len(shape) == 4 and max(min(shape[1:3]), min(shape[2:])) > 1)
            or (len(shape) == 3 and shape[1] > 1)
        )
    }
    names = [
        name
        for name, module in reversed(modules.items())
        if type(module) is not nn.Sequential and not isinstance(module, _SKIPPED)
    ]
    grids, inputs = convolution_grids(network, shapes), move_patch(photo, other)

    def layout(output: Tensor) -> GridLayout | None:
        # Of windows of a photo, each is a row of its own.
        if len(output) != len(inputs):
            return None
        try:
            return find_layout("", output, (photo.shape[2], photo.shape[3]), grids=grids)
        except SettingsError:
            return None

    # The default layer is among the last ones, and to measure all would take long.
    for start in range(0, len(names), _MEASURED_AT_ONCE):
        some = {name: modules[name] for name in names[start : start + _MEASURED_AT_ONCE]}
        with recorded_outputs(some, layout) as layouts:
            run_network(network, inputs)
        for name, module in some.items():
            (found,) = layouts[name]
            if found:
                yield _Candidate(name, found, _is_norm(module))


def _same_grid(candidates: Iterable[_Candidate]) -> Iterator[_Candidate]:
    """The first of some candidates, and those up to the first one of another height or width."""
    size = None
    for candidate in candidates:
        found = candidate.layout.height, candidate.layout.width
        size = size or found
        if found != size:
            return
        yield candidate


def _token_layer(
    network: nn.Module, candidates: Iterable[_Candidate], photo: Tensor, several_sizes: bool
) -> str:
    """The layer to explain of a network that ends in tokens; empty where there is none.

    Args:
        candidates: of the tokens' height and width, the last to return first.
        several_sizes: whether earlier stages have other numbers of tokens.
    """
    first, counting_alike = "", ""
    others = []
    for candidate in candidates:
        parent, _, _ = first.rpartition(".")
        if first and not candidate.name.startswith(f"{parent}."):
            break
        if not (candidate.has_tokens and candidate.is_norm):
            others.append(candidate)
            continue
        if first:
            first = candidate.name if candidate.parent == parent else first
            continue
        gradients = _cell_gradients(network, candidate, photo)
        if gradients is None or not _most_count(gradients):
            continue
        if not _all_alike(gradients):
            first = candidate.name
        elif not candidate.layout.prefix:
            # In the mean of all tokens. After a class token, it would tell nothing of attention.
            counting_alike = counting_alike or candidate.name
            if several_sizes:
                break
    if first or counting_alike:
        return first or counting_alike
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
