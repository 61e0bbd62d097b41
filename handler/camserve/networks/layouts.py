"""How a layer's output is a grid over the photo: (N, K, h, w), channels last, or tokens.

A map needs a grid whose rows and columns are the photo's. A convolution gives (N, K, h, w), a Swin
(N, h, w, K), a vision transformer (N, prefix + h * w, K): a token for each patch, in the order of
the rows, after tokens that belong to no patch (a class token, a distillation token, registers).

The shape alone does not decide: attention over 197 tokens by 64 features has four axes, too, and
261 tokens are 16 x 16 after 5, or 15 x 15 after 36. So :func:`find_layout` measures it: a change in
the photo's upper or lower half must shift along the rows, a change in its left or right half along
the columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from camserve.errors import SettingsError
from camserve.settings import Layout, LayoutKind

#: The least shift of a change's centroid along rows and columns, as a share of the axis' length,
#: and as a share of the largest shift along any axis. Of torchvision's classifiers with seeded
#: weights the smallest are 0.04 (MaxViT, which mixes all positions) and 0.7. Along 64 features it
#: shifts by 0.03 by chance.
_MIN_SHIFT: Final = 0.01
_MIN_RATIO: Final = 0.3
#: Where all shifts are smaller, they decide nothing. An untrained RepVGG has 0.014.
_MIN_DECISIVE_SHIFT: Final = 0.03
_ACCEPTED: Final = "(N, K, h, w), (N, h, w, K) or tokens (N, prefix + h * w, K)"


@dataclass(frozen=True)
class GridLayout:
    """How a layer's output is a grid over the photo.

    Attributes:
        kind: ``grid`` (N, K, h, w), ``channels_last`` (N, h, w, K) or ``tokens``
            (N, prefix + h * w, K).
        channels, height, width: K, h and w.
        prefix: the number of tokens before those of the grid.
    """

    kind: LayoutKind
    channels: int
    height: int
    width: int
    prefix: int = 0

    @property
    def channel_axis(self) -> int:
        """The axis of the layer's output that has its channels."""
        return {"grid": 1, "channels_last": 3, "tokens": 2}[self.kind]

    def to_grid(self, values: Tensor) -> Tensor:
        """A layer's output, or its gradient, as (N, K, h, w): without the prefix tokens."""
        match self.kind:
            case "grid":
                return values
            case "channels_last":
                return values.permute(0, 3, 1, 2)
            case "tokens":
                tokens = values[:, self.prefix :].transpose(1, 2)
                return tokens.reshape(*tokens.shape[:2], self.height, self.width)


def find_layout(
    name: str,
    outputs: Tensor,
    input_size: tuple[int, int],
    declared: Layout = "auto",
    grids: Collection[tuple[int, int]] = (),
) -> GridLayout:
    """Find how a layer's output is a grid over the photo, of more than one cell.

    Args:
        name: of the layer.
        outputs: (5, ..), the layer's output for the inputs of :func:`replace_halves`.
        input_size: height and width of the network's input, in pixels.
        declared: the kind that the operator says it is, which is not measured; ``auto`` to measure.
        grids: heights and widths that tokens may have besides those of square patches.

    Raises:
        SettingsError: it is none, or not of the declared kind.
    """
    layouts = [
        layout
        for layout in _possible_layouts(tuple(outputs.shape[1:]), input_size, grids)
        if declared in ("auto", layout.kind)
    ]
    problem = "" if layouts else _shape_problem(outputs, declared)
    hint = ""
    if layouts:
        changes = (outputs[1:].float() - outputs[:1].float()).square()
        shifts = {layout: _axis_shifts(changes, layout) for layout in layouts}
        following = [layout for layout in layouts if _follows_photo(shifts[layout])]
        if following:
            return max(following, key=lambda layout: min(shifts[layout].expected))
        if declared != "auto":
            return layouts[0]
        for layout in layouts:
            if _decides_by_shape(layout, shifts[layout], input_size):
                return layout
        problem = "a change in a part of the photo does not move along rows and columns of it"
        hint = f". Where it is one all the same, --set handler.layout={_kind_hint(outputs)} says so"
    raise SettingsError(
        f"layer {name!r} must give a grid over the photo, {_ACCEPTED}, not "
        f"{(1, *outputs.shape[1:])}: {problem}{hint}"
    )


def replace_halves(photo: Tensor, other: Tensor) -> Tensor:
    """The inputs for :func:`find_layout`, from two photos (1, C, H, W).

    Returns:
        (5, C, H, W): ``photo``, and copies with its upper, lower, left and right half replaced by
        ``other``'s.
    """
    height, width = photo.shape[2:]
    rows = torch.arange(height, device=photo.device).view(-1, 1) < height // 2
    columns = torch.arange(width, device=photo.device) < width // 2
    halves = [torch.where(half, other, photo) for half in (rows, ~rows, columns, ~columns)]
    return torch.cat([photo, *halves])


def _possible_layouts(
    shape: Sequence[int], input_size: tuple[int, int], grids: Collection[tuple[int, int]]
) -> Iterator[GridLayout]:
    """The layouts that an output of this shape, without its first axis, may have."""
    match shape:
        case (first, second, third):
            # A single cell covers the whole photo, and a map of it shows nothing.
            if second * third > 1:
                yield GridLayout("grid", first, second, third)
            if first * second > 1:
                yield GridLayout("channels_last", third, first, second)
        case (tokens, channels):
            for height, width in _token_grids(tokens, input_size, grids):
                yield GridLayout("tokens", channels, height, width, tokens - height * width)


def _token_grids(
    tokens: int, input_size: tuple[int, int], grids: Collection[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The grids that so many tokens may have: of square patches, or given.

    Those that cover the whole photo come first, and of these those with most cells.
    """
    height, width = input_size
    whole, others = set(grids), set()
    for patch in range(1, max(height, width) + 1):
        cut, padded = (height // patch, width // patch), (-(-height // patch), -(-width // patch))
        if cut == padded:
            whole.add(cut)
        others |= {cut, padded}
    fitting = [size for size in whole | others if 1 < size[0] * size[1] <= tokens]
    return sorted(fitting, key=lambda size: (size in whole, size[0] * size[1]), reverse=True)


def _shape_problem(outputs: Tensor, declared: Layout) -> str:
    """Why no layout of the declared kind is possible for outputs of this shape."""
    if declared != "auto" and outputs.ndim in (3, 4):
        axes = {"grid": 4, "channels_last": 4, "tokens": 3}[declared]
        if outputs.ndim != axes:
            return f"handler.layout says {declared}, which has {axes} axes"
    if outputs.ndim in (3, 4):
        return "a single cell covers the whole photo, and a map of it shows nothing"
    return "it has no rows and columns"


def _kind_hint(outputs: Tensor) -> str:
    return "tokens" if outputs.ndim == 3 else "grid (or channels_last)"


@dataclass(frozen=True)
class _AxisShifts:
    """How far a change's centroid moves along the axes of a grid, as shares of their lengths.

    Attributes:
        expected: along the rows as the change moves down, along the columns as it moves across;
            without axes of length 1, along which nothing moves.
        crossed: the distances along the rows as it moves across and the reverse, added up. Photos
            vary from place to place, so it moves a little that way, too.
        largest: the greatest distance along any axis.
    """

    expected: tuple[float, ...]
    crossed: float
    largest: float


def _axis_shifts(changes: Tensor, layout: GridLayout) -> _AxisShifts:
    """The shifts of a layer's squared changes (4, ..) by the upper, lower, left and right half."""
    cells = layout.to_grid(changes.sum(layout.channel_axis, keepdim=True)).squeeze(1)
    row, column = _centroids(cells.sum(2)), _centroids(cells.sum(1))
    others = [axis for axis in range(1, changes.ndim) if axis != layout.channel_axis]
    channel = _centroids(changes.sum(others))
    expected = [
        shift
        for shift, length in (
            (row[1] - row[0], layout.height),
            (column[3] - column[2], layout.width),
        )
        if length > 1
    ]
    crossed = [column[1] - column[0], row[3] - row[2]]
    along_channels = [channel[1] - channel[0], channel[3] - channel[2]]
    return _AxisShifts(
        tuple(expected),
        sum(map(abs, crossed)),
        max(map(abs, [row[1] - row[0], column[3] - column[2], *crossed, *along_channels])),
    )


def _centroids(profiles: Tensor) -> list[float]:
    """The mean position along each of several profiles (n, length), from 0 at its beginning to 1."""
    positions = torch.linspace(0, 1, profiles.shape[1], device=profiles.device)
    total = profiles.sum(1).clamp_min(torch.finfo(profiles.dtype).tiny)
    return ((profiles * positions).sum(1) / total).tolist()


def _follows_photo(shifts: _AxisShifts) -> bool:
    """Whether the axes of a grid are the photo's rows and columns."""
    smallest = min(shifts.expected)
    return (
        smallest > max(_MIN_SHIFT, _MIN_RATIO * shifts.largest)
        and sum(shifts.expected) > shifts.crossed
    )


def _decides_by_shape(layout: GridLayout, shifts: _AxisShifts, input_size: tuple[int, int]) -> bool:
    """Whether a layout that was not measured is taken for its shape.

    So it is where the output is the same everywhere, as of an untrained network, or has two rows
    and columns, which shift by chance.
    """
    decisive = shifts.largest >= _MIN_DECISIVE_SHIFT and layout.height * layout.width > 4
    aspect = input_size[0] / input_size[1]
    return not decisive and 0.5 < layout.height / layout.width / aspect < 2
