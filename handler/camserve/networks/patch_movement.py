"""A patch that moves over the photo, and whether a layer's changes move with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

#: Where the patch of :func:`move_patch` is: from the top to the bottom, and at these columns. They
#: do not correlate with the rows, so that rows and columns cannot be taken for each other.
_COLUMNS: Final = (5, 10, 2, 6, 0, 11, 4, 8, 3, 7, 1, 9)
#: A patch's height and width, as a share of the photo's.
_PATCH: Final = 1 / 4
#: The least correlation of a patch's places with the centroids of the changes, and as a share of
#: that along the other axis; and how far these must move, as a share of the axis' length and of the
#: movement along any other axis. Of classifiers with seeded weights the smallest are those of
#: MaxViT, which mixes all positions; all others' correlations are above 0.8.
_MIN_CORRELATION: Final = 0.6
_MIN_CORRELATION_RATIO: Final = 0.75
#: From here on a movement along an axis is no chance: of twelve places 1 in 500 has it by chance.
_DECISIVE_CORRELATION: Final = 0.8
_MIN_RANGE: Final = 0.005
_MIN_RANGE_RATIO: Final = 0.3
#: The least overlap of the changes with the patch. Where along one axis little but the patch's own
#: cells changes, so it must be along the other: with rows in disorder, it is at most 0.55 of that.
_MIN_OVERLAP: Final = 0.15
_LOCAL_OVERLAP: Final = 0.85
_MIN_OVERLAP_RATIO: Final = 0.6
#: Unless the cells are in order all the same: a network that has learned edges, as those of a
#: caption, has most of its changes a cell beside the patch. Then the centroids correlate by at
#: least this much, and the cells answer, in the mean, for a place so near to their own.
_ORDERED_CORRELATION: Final = 0.9
_MAX_DISPLACEMENT: Final = 0.15
#: How far the share of the changes that are in prefix tokens may vary with the patch's place.
_MAX_PREFIX_RANGE: Final = 0.25
#: Smaller changes are rounding errors, as a share of the largest value.
_ROUNDING: Final = 1e-6
_TINY: Final = torch.finfo(torch.float32).tiny


def move_patch(photo: Tensor, other: Tensor) -> Tensor:
    """The inputs for :func:`~camserve.networks.layouts.find_layout`, from two photos (1, C, H, W).

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


def change_profiles(outputs: Tensor) -> list[Tensor]:
    """How the squared changes of outputs (13, ..) spread along each of their axes after the first.

    Returns:
        For each axis (12, length), sums over the other axes; zeros where all changes are rounding
        errors.
    """
    values = outputs.float()
    differences = values[1:] - values[:1]
    largest = differences.abs().max()
    if largest <= _ROUNDING * values.abs().max():
        differences = torch.zeros_like(differences)
    # Scaled, as squares of very small or large values leave the range of float32.
    squares = (differences / largest.clamp_min(_TINY)).square()
    axes = range(1, squares.ndim)
    return [squares.sum([other for other in axes if other != axis]).double().cpu() for axis in axes]


def moves_along_an_axis(profiles: Sequence[Tensor]) -> bool:
    """Whether changes move along any axis of the output with the patch, or against it."""
    centroids = [_centroids(profile) for profile in profiles]
    largest = max(map(_range, centroids))
    return any(
        abs(_correlation(along, torch.tensor(places).double())) > _DECISIVE_CORRELATION
        for along in centroids
        if _range(along) > max(_MIN_RANGE, _MIN_RANGE_RATIO * largest)
        for places in (range(len(_COLUMNS)), _COLUMNS)
    )


@dataclass(frozen=True)
class PatchMovement:
    """How what changes in a layer's output moves as a patch of the photo does.

    Attributes:
        correlations: of the patch's places with the changes' centroids, along the rows and the
            columns; without an axis of length 1, along which nothing moves.
        overlaps: of the changes with the patch, along these axes; 1 where nothing but its own cells
            changes.
        displacements: how far, in the mean over the cells of these axes, the place for which a cell
            answers most is from its own, as a share of the length.
        ranges: from the smallest to the largest centroid along these axes, as shares of their
            lengths.
        largest: the greatest range along any axis, the channels' included.
        prefix_range: how far the share of the changes that are in prefix tokens varies.
    """

    correlations: tuple[float, ...]
    overlaps: tuple[float, ...]
    displacements: tuple[float, ...]
    ranges: tuple[float, ...]
    largest: float
    prefix_range: float

    @classmethod
    def measure(
        cls, rows: Tensor, columns: Tensor, channels: Tensor, before: Tensor | None = None
    ) -> PatchMovement:
        """Measure how changes move along a grid's axes.

        Args:
            rows, columns, channels: (12, length), how they spread along these axes.
            before: (12,), those in the tokens before those of the grid.
        """
        moving: list[tuple[Tensor, Sequence[int]]] = []
        if rows.shape[1] > 1:
            moving.append((rows, range(len(_COLUMNS))))
        if columns.shape[1] > 1:
            moving.append((columns, _COLUMNS))
        prefix_range = 0.0
        if before is not None:
            prefix_range = _range(before / (before + rows.sum(1)).clamp_min(_TINY))
        return cls(
            tuple(
                _correlation(_centroids(along), torch.tensor(places).double())
                for along, places in moving
            ),
            tuple(_overlap(along, places) for along, places in moving),
            tuple(_displacement(along, places) for along, places in moving),
            tuple(_range(_centroids(along)) for along, _ in moving),
            max(_range(_centroids(along)) for along in (rows, columns, channels)),
            prefix_range,
        )

    def follows_patch(self) -> bool:
        """Whether the axes of the grid are the photo's rows and columns."""
        correlation, overlap, range_ = min(self.correlations), min(self.overlaps), min(self.ranges)
        is_local = max(self.overlaps) > _LOCAL_OVERLAP
        in_order = (
            correlation > _ORDERED_CORRELATION and max(self.displacements) <= _MAX_DISPLACEMENT
        )
        least = _MIN_OVERLAP_RATIO * max(self.overlaps) if is_local else _MIN_OVERLAP
        return (
            correlation > max(_MIN_CORRELATION, _MIN_CORRELATION_RATIO * max(self.correlations))
            and (overlap > least or in_order)
            and range_ > max(_MIN_RANGE, _MIN_RANGE_RATIO * self.largest)
            and self.prefix_range < _MAX_PREFIX_RANGE
        )


def _overlap(profiles: Tensor, places: Sequence[int]) -> float:
    """How well changes (12, length) along an axis agree with the patch's places there, up to 1."""
    return _correlation(*_shares_and_cover(profiles, places))


def _displacement(profiles: Tensor, places: Sequence[int]) -> float:
    """How far the cells along an axis are from where their changes (12, length) say they are."""
    shares, covered = (F.normalize(one, dim=0) for one in _shares_and_cover(profiles, places))
    answered = (shares.T @ covered).argmax(1)
    return float((answered - torch.arange(len(answered))).abs().double().mean() / len(answered))


def _shares_and_cover(profiles: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For each place of the patch, each cell's share of the changes, and how much is covered of it.

    Both (12, length), and less their means over the places.
    """
    length = profiles.shape[1]
    starts = torch.tensor(places).double()[:, None] / (len(_COLUMNS) - 1) * (1 - _PATCH)
    cells = torch.arange(length).double() / length
    ends = torch.minimum(starts + _PATCH, cells + 1 / length)
    covered = (ends - torch.maximum(starts, cells)).clamp_min(0)
    shares = profiles / profiles.sum(1, keepdim=True).clamp_min(_TINY)
    return shares - shares.mean(0), covered - covered.mean(0)


def _centroids(profiles: Tensor) -> Tensor:
    """The mean position along each of several profiles (n, length), from 0 to 1: (n,)."""
    positions = torch.linspace(0, 1, profiles.shape[1], dtype=profiles.dtype)
    return profiles @ positions / profiles.sum(1).clamp_min(_TINY)


def _range(values: Tensor) -> float:
    return float(values.max() - values.min())


def _correlation(values: Tensor, others: Tensor) -> float:
    """Pearson's, of two tensors of one shape; 0 where one is constant."""
    first, second = values - values.mean(), others - others.mean()
    norm = float(first.norm() * second.norm())
    return float((first * second).sum()) / norm if norm > 0 else 0.0
