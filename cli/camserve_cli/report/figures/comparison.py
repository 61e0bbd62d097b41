"""Two models on the same photos: what they predict, and where they look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats


@dataclass(frozen=True)
class Comparison:
    """The other model against the first.

    Attributes:
        name: of the other.
        photos: how many both have answered.
        labelled: of how many the truth is known.
        right, other_right: how many of these each predicts right.
        regressions: places of the photos that the first predicts right and the other wrong.
        improvements: the other way round.
        changed: places of the photos that they predict differently.
        distance: (N,) 1 - cosine of both maps, from 0 (they look at the same) to 1; NaN where one
            has no heat.
        furthest: places of the photos with the largest distance, the largest first.
    """

    name: str
    photos: int
    labelled: int
    right: int
    other_right: int
    regressions: tuple[int, ...]
    improvements: tuple[int, ...]
    changed: tuple[int, ...]
    distance: Floats
    furthest: tuple[int, ...]


def compare(columns: ReportColumns, name: str) -> Comparison | None:
    """The comparison; None where the other model has answered no photo."""
    both = columns.compared >= 0
    if columns.compared_maps is None or not both.any():
        return None
    photos = columns.photos
    known = columns.known & both
    right, other_right = columns.right & both, known & (columns.compared == photos.true)
    distance = map_distance(photos.maps, columns.compared_maps)
    distance[~both] = np.nan
    by_distance = np.argsort(-np.nan_to_num(distance, nan=-1), kind="stable")
    return Comparison(
        name=name,
        photos=int(both.sum()),
        labelled=int(known.sum()),
        right=int((right & known).sum()),
        other_right=int(other_right.sum()),
        regressions=_places(right & ~other_right, by_distance),
        improvements=_places(known & ~right & other_right, by_distance),
        changed=_places(both & (columns.compared != photos.predicted), by_distance),
        distance=distance,
        furthest=tuple(int(row) for row in by_distance if np.isfinite(distance[row])),
    )


def map_distance(one: NDArray[np.float16], other: NDArray[np.float16]) -> Floats:
    """1 - cosine of maps (N, h, w) and (N, h', w'), (N,); NaN where one is zero everywhere.

    Maps of another size are first resized to the first's by the mean of the cells they cover.
    """
    first = one.astype(np.float64).reshape(len(one), -1)
    second = _resized(other.astype(np.float64), one.shape[1:]).reshape(len(one), -1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.where(norms > 0, (first * second).sum(1) / norms, np.nan)
    return np.asarray(np.clip(1 - cosine, 0, 1))


def _resized(maps: Floats, shape: tuple[int, ...]) -> Floats:
    if maps.shape[1:] == shape:
        return maps
    down, across = (_weights(*sizes) for sizes in zip(maps.shape[1:], shape, strict=True))
    return np.asarray(np.einsum("nij,ki,lj->nkl", maps, down, across))


def _weights(cells: int, wanted: int) -> Floats:
    """(wanted, cells) the part of each cell in each wanted one; rows sum to 1."""
    edges, wanted_edges = np.linspace(0, 1, cells + 1), np.linspace(0, 1, wanted + 1)
    low = np.maximum(edges[None, :-1], wanted_edges[:-1, None])
    high = np.minimum(edges[None, 1:], wanted_edges[1:, None])
    return np.asarray(np.clip(high - low, 0, None) * wanted)


def _places(chosen: NDArray[np.bool_], order: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(row) for row in order if chosen[row])
