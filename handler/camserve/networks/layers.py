"""The modules of a network as layers to explain: by name, the usual one, and what their output is.

A map needs a grid over the photo: an output (N, K, h, w) whose last two axes are the photo's rows
and columns. A shape alone does not tell: attention over 197 tokens by 64 features has four axes,
and so has a Swin's (N, h, w, K). So it is tried: a change of the photo's upper or lower half must
move along the rows, one of its left or right half along the columns.
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

#: How far, as a share of an axis' length, the centre of what changes must move along the rows and
#: along the columns: at all, and of the farthest that it moves along any axis. Of torchvision's
#: classifiers with seeded weights the least is 0.04 (MaxViT, which mixes all places) and 0.7; along
#: 64 features it moves by 0.03 by chance.
_MIN_SHIFT: Final = 0.01
_MIN_RATIO: Final = 0.3
#: Movements that are all smaller tell nothing. A RepVGG that was never trained has 0.014.
_TELLING_SHIFT: Final = 0.03

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
    """The name of the last module whose output is a grid: the usual layer to explain.

    Of several modules that give that same output the outermost is taken; plain containers, pooling
    and what runs more than once are left aside: ``layer4.2`` in ResNet50, ``features.29`` in VGG16.

    Args:
        example: (1, 3, H, W).

    Raises:
        SettingsError: no module gives a (N, K, h, w) with h and w above 1, or what follows the last
            one works on tokens, as a vision transformer's blocks do.
    """
    pooling = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
    outputs: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs.append((name, tuple(output.shape) if isinstance(output, Tensor) else ()))

        return hook

    with torch.no_grad(), ExitStack() as hooks:
        for name, module in network.named_modules():
            if name and type(module) is not nn.Sequential and not isinstance(module, pooling):
                hooks.callback(module.register_forward_hook(note(name)).remove)
        network(example)
    ran = [name for name, _ in outputs]
    once = [(name, shape) for name, shape in outputs if ran.count(name) == 1]
    # Outer modules end after inner ones, so of several with the same output it is the outermost.
    grids = [n for n, (_, shape) in enumerate(once) if len(shape) == 4 and min(shape[2:]) > 1]
    if not grids:
        raise SettingsError("no module of the network gives a grid of activations to explain")
    tokens = [
        (name, shape) for name, shape in once[grids[-1] :] if len(shape) == 3 and shape[1] > 1
    ]
    if tokens:
        name, shape = tokens[-1]
        # Of a network that is all tokens, its grid is the patches of its very first layer.
        last = f"; the last one is {once[grids[-1]][0]!r}" if len(grids) > len(tokens) else ""
        raise SettingsError(
            f"the network's last layers give tokens ({name!r}: {shape}), as a vision transformer's "
            f"do, and tokens are not explained; {_ACCEPTED}, named by --layer (handler.layer){last}"
        )
    return once[grids[-1]][0]


def check_grid(name: str, outputs: Tensor, aspect: float = 1.0, layout: Layout = "auto") -> None:
    """Hold a layer's output to be a grid over the photo.

    Args:
        name: the layer's.
        outputs: (5, ..): of one photo; and of the same with its upper, lower, left and right half
            changed.
        aspect: the photo's height over its width.
        layout: ``grid`` where its shape alone is to tell.

    Raises:
        SettingsError: it is none, or one of a single cell.
    """
    shape = (1, *outputs.shape[1:])
    wrong = _why_no_shape(outputs)
    hint = ""
    if not wrong and layout == "auto":
        wrong = _why_no_grid(outputs.float(), aspect)
        hint = ". Where it is one all the same, --set handler.layout=grid says so"
    if wrong:
        raise SettingsError(
            f"layer {name!r} must give activations of shape (N, K, h, w), a grid over the photo, "
            f"not {shape}: {wrong}{hint}"
        )


def halves_changed(photo: Tensor, other: Tensor) -> Tensor:
    """(5, 3, H, W): a photo (1, 3, H, W), and it with each half from another one: as
    :func:`check_grid` has them.
    """
    height, width = photo.shape[2:]
    rows = torch.arange(height, device=photo.device).view(-1, 1) < height // 2
    columns = torch.arange(width, device=photo.device) < width // 2
    halves = [torch.where(half, other, photo) for half in (rows, ~rows, columns, ~columns)]
    return torch.cat([photo, *halves])


def _why_no_shape(outputs: Tensor) -> str:
    """What of its shape speaks against a grid; empty where nothing does."""
    if outputs.ndim == 3 and outputs.shape[1] > 1:
        return "these are tokens, as a vision transformer's, and tokens are not explained"
    if outputs.ndim != 4:
        return "it has no rows and columns"
    if outputs.shape[2:] == (1, 1):
        return "a single cell covers the whole photo, and a map of it shows nothing"
    return ""


def _why_no_grid(outputs: Tensor, aspect: float) -> str:
    """What of (5, K, h, w), as :func:`check_grid` has them, speaks against a grid; empty where
    nothing does.
    """
    unchanged, upper, lower, left, right = outputs
    down = _shift(upper - unchanged, lower - unchanged)
    across = _shift(left - unchanged, right - unchanged)
    if _lie_along(2, down, across, outputs):
        return ""
    if _lie_along(1, down, across, outputs):
        return "its axes are channels last, (N, h, w, K), and those are not explained"
    height, width = outputs.shape[2:]
    tells = max(map(abs, [*down, *across])) >= _TELLING_SHIFT and height * width > 4
    if not tells and 0.5 < height / width / aspect < 2:
        # What is the same everywhere, as in a network of zeros or one that was never trained, tells
        # nothing, and of two rows and columns chance tells too much: then the shape decides.
        return ""
    return "a change in a part of the photo does not move along its last two axes"


def _lie_along(rows: int, down: Sequence[float], across: Sequence[float], outputs: Tensor) -> bool:
    """Whether the photo's rows and columns are axes ``rows`` and ``rows + 1`` of ``outputs``.

    Args:
        down, across: how far changes move along each axis but the first, as :func:`_shift` has it,
            where they move down or across in the photo.
    """
    columns = rows + 1
    # Along an axis of length 1 nothing moves.
    right = [
        shifts[axis - 1]
        for axis, shifts in ((rows, down), (columns, across))
        if outputs.shape[axis] > 1
    ]
    # What the two photos show is not the same everywhere, so some moves along the other one too.
    crossed = abs(down[columns - 1]) + abs(across[rows - 1])
    farthest = max(map(abs, [*down, *across]))
    least = min(right, default=0.0)
    return least > max(_MIN_SHIFT, _MIN_RATIO * farthest) and sum(right) > crossed


def _shift(first: Tensor, second: Tensor) -> list[float]:
    """How far the centre of two changes (K, h, w) lies apart along each axis, of its length."""
    centres = [
        [float(_centre(change.square(), axis)) for axis in range(change.ndim)]
        for change in (first, second)
    ]
    return [after - before for before, after in zip(*centres, strict=True)]


def _centre(weights: Tensor, axis: int) -> Tensor:
    """The mean place of non-negative weights along an axis, from 0 at its beginning to 1."""
    along = weights.sum([other for other in range(weights.ndim) if other != axis])
    places = torch.linspace(0, 1, len(along), device=along.device)
    return (along * places).sum() / along.sum().clamp_min(torch.finfo(along.dtype).tiny)
