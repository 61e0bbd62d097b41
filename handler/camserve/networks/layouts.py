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
from camserve.networks.patch_movement import (
    PatchMovement,
    change_profiles,
    moves_along_an_axis,
)
from camserve.settings import Layout, LayoutKind

#: So few cells may each see the whole photo, and what moves along their rows moves by chance.
_FEW_CELLS: Final = 4
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
    def shape(self) -> tuple[int, int, int]:
        """(K, h, w) of the grid."""
        return self.channels, self.height, self.width

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

    def shuffled(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """A layer's output without prefix tokens, its cells in another order."""
        grid = self.to_grid(values).flatten(2)
        order = torch.randperm(grid.shape[2], generator=generator).to(grid.device)
        cells = grid[:, :, order].view(*grid.shape[:2], self.height, self.width)
        match self.kind:
            case "grid":
                return cells
            case "channels_last":
                return cells.permute(0, 2, 3, 1)
            case "tokens":
                return cells.flatten(2).transpose(1, 2)


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
        outputs: (13, ..), the layer's output for the inputs of ``move_patch``.
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
    if not outputs.isfinite().all():
        problem = "it has values that are no finite numbers (NaN or infinity)"
    elif layouts:
        profiles = change_profiles(outputs)
        movements = {layout: _movement(profiles, layout) for layout in layouts}
        following = [layout for layout in layouts if movements[layout].follows_patch()]
        if following:
            return max(following, key=lambda layout: min(movements[layout].correlations))
        if declared != "auto":
            return layouts[0]
        for layout in layouts:
            if _decides_by_shape(layout, profiles, input_size):
                return layout
        problem = "what a patch of the photo changes does not move along rows and columns with it"
        hint = f". Where it is one all the same, --set handler.layout={_kind_hint(outputs)} says so"
    raise SettingsError(
        f"layer {name!r} must give a grid over the photo, {_ACCEPTED}, not "
        f"{(1, *outputs.shape[1:])}: {problem}{hint}"
    )


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
                # More of them would leave most of the tokens out.
                if (prefix := tokens - height * width) <= height * width:
                    yield GridLayout("tokens", channels, height, width, prefix)


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


def _decides_by_shape(
    layout: GridLayout, profiles: Sequence[Tensor], input_size: tuple[int, int]
) -> bool:
    """Whether a layout that cannot be measured is taken for its shape: its cells are about square.

    So it is where the output is constant, as of an untrained network. So it is for the few cells at
    the end of a deep network, each of which sees the whole photo.
    """
    constant = not any(profile.any() for profile in profiles)
    few_cells = layout.height * layout.width <= _FEW_CELLS
    unmeasurable = layout.kind != "tokens" and (few_cells or not moves_along_an_axis(profiles))
    aspect = layout.height / layout.width * input_size[1] / input_size[0]
    return (constant or unmeasurable) and 0.5 < aspect < 2


def _movement(profiles: Sequence[Tensor], layout: GridLayout) -> PatchMovement:
    """How a layer's changes, given as :func:`change_profiles`, move along a layout's axes."""
    match layout.kind:
        case "grid":
            channels, rows, columns = profiles
        case "channels_last":
            rows, columns, channels = profiles
        case "tokens":
            tokens, channels = profiles
            before, cells = tokens[:, : layout.prefix], tokens[:, layout.prefix :]
            grid = cells.reshape(-1, layout.height, layout.width)
            return PatchMovement.measure(grid.sum(2), grid.sum(1), channels, before.sum(1))
    return PatchMovement.measure(rows, columns, channels)
