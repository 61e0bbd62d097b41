"""How a layer's output is a grid over the photo: (N, K, h, w), channels last, or tokens.

A map needs a grid whose rows and columns are the photo's. A convolution gives (N, K, h, w), a Swin
(N, h, w, K), a vision transformer (N, prefix + h * w, K): a token for each patch, in the order of
the rows, after tokens that belong to no patch (a class token, a distillation token, registers).

The shape alone does not decide: attention over 197 tokens by 64 features has four axes, too, and
261 tokens are 16 x 16 after 5, or 15 x 15 after 36. So :func:`find_layout` measures it: as a patch
of the photo moves, what changes in the layer's output must move along the rows and columns with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from camserve.errors import SettingsError
from camserve.settings import Layout, LayoutKind

#: Where the patch of :func:`move_patch` is: from the top to the bottom, and at these columns, whose
#: order has no correlation with that of the rows. So rows and columns cannot be taken for each other.
_COLUMNS: Final = (5, 10, 2, 6, 0, 11, 4, 8, 3, 7, 1, 9)
#: A patch's height and width, as a share of the photo's.
_PATCH: Final = 1 / 4
#: The least correlation of a patch's places with the centroids of the changes, and as a share of
#: that along the other axis; and how far these must move, as a share of the axis' length and of the
#: movement along any other axis. Of classifiers with seeded weights the smallest are those of
#: MaxViT, which mixes all positions; all others' correlations are above 0.9.
_MIN_CORRELATION: Final = 0.6
_MIN_CORRELATION_RATIO: Final = 0.75
_MIN_RANGE: Final = 0.005
_MIN_RANGE_RATIO: Final = 0.3
#: Smaller changes are rounding errors, as a share of the largest value.
_ROUNDING: Final = 1e-6
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
                return tokens.view(*tokens.shape[:2], self.height, self.width)


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
        outputs: (13, ..), the layer's output for the inputs of :func:`move_patch`.
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
        changes = _squared_changes(outputs)
        movements = {layout: _Movement.measure(changes, layout) for layout in layouts}
        following = [layout for layout in layouts if movements[layout].follows_patch()]
        if following:
            return max(following, key=lambda layout: min(movements[layout].correlations))
        if declared != "auto":
            return layouts[0]
        # As of an untrained network: nothing was measured, so the shape decides.
        if not changes.any():
            for layout in layouts:
                if _has_aspect(layout, input_size):
                    return layout
        problem = "what a patch of the photo changes does not move along rows and columns with it"
        hint = f". Where it is one all the same, --set handler.layout={_kind_hint(outputs)} says so"
    raise SettingsError(
        f"layer {name!r} must give a grid over the photo, {_ACCEPTED}, not "
        f"{(1, *outputs.shape[1:])}: {problem}{hint}"
    )


def move_patch(photo: Tensor, other: Tensor) -> Tensor:
    """The inputs for :func:`find_layout`, from two photos (1, C, H, W).

    Returns:
        (13, C, H, W): ``photo``, and copies of it with a patch of ``other`` at twelve places.
    """
    height, width = photo.shape[2:]
    rows, columns = max(1, round(height * _PATCH)), max(1, round(width * _PATCH))
    copies = [photo]
    for row, column in enumerate(_COLUMNS):
        top = round(row / (len(_COLUMNS) - 1) * (height - rows))
        left = round(column / (len(_COLUMNS) - 1) * (width - columns))
        patch = slice(None), slice(None), slice(top, top + rows), slice(left, left + columns)
        copies.append(photo.clone())
        copies[-1][patch] = other[patch]
    return torch.cat(copies)


def _squared_changes(outputs: Tensor) -> Tensor:
    """(13, ..) -> (12, ..): the squares of the changes, up to 1; zeros where they are rounding errors."""
    values = outputs.double()
    differences = values[1:] - values[:1]
    largest = differences.abs().max()
    if largest <= _ROUNDING * values.abs().max():
        return torch.zeros_like(differences)
    return (differences / largest).square()


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


def _has_aspect(layout: GridLayout, input_size: tuple[int, int]) -> bool:
    """Whether a grid's cells are about square."""
    return 0.5 < layout.height / layout.width * input_size[1] / input_size[0] < 2


@dataclass(frozen=True)
class _Movement:
    """How what changes in a layer's output moves as a patch of the photo does.

    Attributes:
        correlations: of the patch's places with the changes' centroids, along the rows and the
            columns; without an axis of length 1, along which nothing moves.
        ranges: from the smallest to the largest centroid along these axes, as shares of their
            lengths.
        largest: the greatest range along any axis, the channels' included.
    """

    correlations: tuple[float, ...]
    ranges: tuple[float, ...]
    largest: float

    @classmethod
    def measure(cls, changes: Tensor, layout: GridLayout) -> _Movement:
        """The movement of a layer's squared changes (12, ..) by the patch at each of its places."""
        cells = layout.to_grid(changes.sum(layout.channel_axis, keepdim=True)).squeeze(1)
        others = [axis for axis in range(1, changes.ndim) if axis != layout.channel_axis]
        rows, columns = _centroids(cells.sum(2)), _centroids(cells.sum(1))
        places = torch.arange(len(_COLUMNS)), torch.tensor(_COLUMNS)
        moving = [
            (centroids, place)
            for centroids, place, length in zip(
                (rows, columns), places, (layout.height, layout.width), strict=True
            )
            if length > 1
        ]
        all_centroids = (rows, columns, _centroids(changes.sum(others)))
        return cls(
            tuple(_correlation(centroids, place) for centroids, place in moving),
            tuple(_range(centroids) for centroids, _ in moving),
            max(map(_range, all_centroids)),
        )

    def follows_patch(self) -> bool:
        """Whether the axes of the grid are the photo's rows and columns."""
        smallest, range_ = min(self.correlations), min(self.ranges)
        return smallest > max(
            _MIN_CORRELATION, _MIN_CORRELATION_RATIO * max(self.correlations)
        ) and range_ > max(_MIN_RANGE, _MIN_RANGE_RATIO * self.largest)


def _centroids(profiles: Tensor) -> Tensor:
    """The mean position along each of several profiles (n, length), from 0 to 1: (n,), on the CPU."""
    positions = torch.linspace(0, 1, profiles.shape[1], device=profiles.device)
    total = profiles.sum(1).clamp_min(torch.finfo(profiles.dtype).tiny)
    return ((profiles * positions).sum(1) / total).cpu()


def _range(values: Tensor) -> float:
    return float(values.max() - values.min())


def _correlation(values: Tensor, others: Tensor) -> float:
    """Pearson's, of two vectors; 0 where one is constant."""
    first, second = values.double() - values.double().mean(), others - others.double().mean()
    norm = float(first.norm() * second.norm())
    return float(first @ second) / norm if norm > 0 else 0.0
