"""The layers of a network that can be explained: by name, the default, and whether one is a grid.

A map needs a grid over the photo: an output (N, K, h, w) whose last two axes are the photo's rows
and columns. The shape alone does not decide: attention over 197 tokens by 64 features has four
axes, and so has a Swin's (N, h, w, K). So :func:`check_grid` measures it: a change in the photo's
upper or lower half must shift along the rows, a change in its left or right half along the columns.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.settings import Layout

#: The least shift of a change's centroid along rows and columns, as a share of the axis' length,
#: and as a share of the largest shift along any axis. Of torchvision's classifiers with seeded
#: weights the smallest are 0.04 (MaxViT, which mixes all positions) and 0.7. Along 64 features it
#: shifts by 0.03 by chance.
_MIN_SHIFT: Final = 0.01
_MIN_RATIO: Final = 0.3
#: Where all shifts are smaller, they decide nothing. An untrained RepVGG has 0.014.
_MIN_DECISIVE_SHIFT: Final = 0.03

_ACCEPTED: Final = (
    "accepted: a layer that gives activations of shape (N, K, h, w), a grid over the photo"
)


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


def last_spatial_layer(network: nn.Module, example: Tensor) -> str:
    """The name of the last module whose output is a grid, which is the default layer to explain.

    Of several modules with that same output it is the outermost. Plain containers, pooling layers
    and modules that are called more than once are skipped. ``layer4.2`` in ResNet50,
    ``features.29`` in VGG16.

    Args:
        network: in eval mode.
        example: (1, 3, H, W).

    Raises:
        SettingsError: no module gives a (N, K, h, w) with h and w above 1, or the modules after the
            last one work on tokens, as a vision transformer's blocks do.
    """
    pooling = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
    calls: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls.append((name, tuple(output.shape) if isinstance(output, Tensor) else ()))

        return hook

    with torch.no_grad(), ExitStack() as hooks:
        for name, module in network.named_modules():
            if name and type(module) is not nn.Sequential and not isinstance(module, pooling):
                hooks.callback(module.register_forward_hook(record(name)).remove)
        network(example)
    called = [name for name, _ in calls]
    shapes = [(name, shape) for name, shape in calls if called.count(name) == 1]
    # Outer modules return after inner ones, so the last of several with one output is outermost.
    grids = [n for n, (_, shape) in enumerate(shapes) if len(shape) == 4 and min(shape[2:]) > 1]
    if not grids:
        raise SettingsError("no module of the network gives a grid of activations to explain")
    tokens = [
        (name, shape) for name, shape in shapes[grids[-1] :] if len(shape) == 3 and shape[1] > 1
    ]
    if tokens:
        name, shape = tokens[-1]
        # In a network of tokens alone, the only grid is the patch embedding at its beginning.
        last = f"; the last one is {shapes[grids[-1]][0]!r}" if len(grids) > len(tokens) else ""
        raise SettingsError(
            f"the network's last layers give tokens ({name!r}: {shape}), as a vision transformer's "
            f"do, and tokens are not explained; {_ACCEPTED}, named by --layer (handler.layer){last}"
        )
    return shapes[grids[-1]][0]


def check_grid(name: str, outputs: Tensor, aspect: float = 1.0, layout: Layout = "auto") -> None:
    """Check that a layer's output is a grid over the photo, of more than one cell.

    Args:
        name: of the layer.
        outputs: (5, ..), the layer's output for the inputs of :func:`replace_halves`.
        aspect: the photo's height over its width.
        layout: ``grid`` to check the shape alone.

    Raises:
        SettingsError: it is not.
    """
    shape = (1, *outputs.shape[1:])
    problem = _shape_problem(outputs)
    hint = ""
    if not problem and layout == "auto":
        problem = _shift_problem(outputs.float(), aspect)
        hint = ". Where it is one all the same, --set handler.layout=grid says so"
    if problem:
        raise SettingsError(
            f"layer {name!r} must give activations of shape (N, K, h, w), a grid over the photo, "
            f"not {shape}: {problem}{hint}"
        )


def replace_halves(photo: Tensor, other: Tensor) -> Tensor:
    """The inputs for :func:`check_grid`, from two photos (1, 3, H, W).

    Returns:
        (5, 3, H, W): ``photo``, and copies with its upper, lower, left and right half replaced by
        ``other``'s.
    """
    height, width = photo.shape[2:]
    rows = torch.arange(height, device=photo.device).view(-1, 1) < height // 2
    columns = torch.arange(width, device=photo.device) < width // 2
    halves = [torch.where(half, other, photo) for half in (rows, ~rows, columns, ~columns)]
    return torch.cat([photo, *halves])


def _shape_problem(outputs: Tensor) -> str:
    """Why outputs of this shape are no grid, or an empty text."""
    if outputs.ndim == 3 and outputs.shape[1] > 1:
        return "these are tokens, as a vision transformer's, and tokens are not explained"
    if outputs.ndim != 4:
        return "it has no rows and columns"
    if outputs.shape[2:] == (1, 1):
        return "a single cell covers the whole photo, and a map of it shows nothing"
    return ""


def _shift_problem(outputs: Tensor, aspect: float) -> str:
    """Why outputs (5, K, h, w) of :func:`replace_halves`' inputs are no grid, or an empty text."""
    unchanged, upper, lower, left, right = outputs
    down = _shifts(upper - unchanged, lower - unchanged)
    across = _shifts(left - unchanged, right - unchanged)
    if _follow_axes(2, down, across, outputs):
        return ""
    if _follow_axes(1, down, across, outputs):
        return "its axes are channels last, (N, h, w, K), and those are not explained"
    height, width = outputs.shape[2:]
    decisive = max(map(abs, [*down, *across])) >= _MIN_DECISIVE_SHIFT and height * width > 4
    if not decisive and 0.5 < height / width / aspect < 2:
        # The shape decides where the output is the same everywhere, as of an untrained network, or
        # has two rows and columns, which shift by chance.
        return ""
    return "a change in a part of the photo does not move along its last two axes"


def _follow_axes(
    rows: int, down: Sequence[float], across: Sequence[float], outputs: Tensor
) -> bool:
    """Whether the photo's rows and columns are axes ``rows`` and ``rows + 1`` of ``outputs``.

    Args:
        rows: an axis.
        down, across: the shifts along each axis but the first for a change that moves down or
            across in the photo, as of :func:`_shifts`.
        outputs: (5, ..).
    """
    columns = rows + 1
    # Nothing shifts along an axis of length 1.
    expected = [
        shifts[axis - 1]
        for axis, shifts in ((rows, down), (columns, across))
        if outputs.shape[axis] > 1
    ]
    # Both photos vary from place to place, so changes also shift a little along the other axis.
    crossed = abs(down[columns - 1]) + abs(across[rows - 1])
    largest = max(map(abs, [*down, *across]))
    smallest = min(expected, default=0.0)
    return smallest > max(_MIN_SHIFT, _MIN_RATIO * largest) and sum(expected) > crossed


def _shifts(first: Tensor, second: Tensor) -> list[float]:
    """The distance of two changes' centroids along each axis, as a share of its length.

    Args:
        first, second: (K, h, w), changes of a layer's output.
    """
    centroids = [
        [float(_centroid(change.square(), axis)) for axis in range(change.ndim)]
        for change in (first, second)
    ]
    return [after - before for before, after in zip(*centroids, strict=True)]


def _centroid(weights: Tensor, axis: int) -> Tensor:
    """The mean position of non-negative weights along an axis, from 0 at its beginning to 1."""
    profile = weights.sum([other for other in range(weights.ndim) if other != axis])
    positions = torch.linspace(0, 1, len(profile), device=profile.device)
    return (profile * positions).sum() / profile.sum().clamp_min(torch.finfo(profile.dtype).tiny)
