"""Where a model looks: the mean map of each class, and where its heat is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats

#: Of heat that is spread evenly: the outer seventh on each side, and where two of these meet.
EVEN_BORDER, EVEN_CORNERS = 1 - (5 / 7) ** 2, (2 / 7) ** 2
#: The middle third of each side.
CENTRE = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class ClassLocation:
    """Where the heat is in photos that are predicted as a class.

    Attributes:
        label: of the class; empty for all photos.
        photos: how many are predicted so.
        without_evidence: how many of them have no heat at all.
        mean_map: (h, w) the mean of their maps, each of the same weight; all zero where none has
            heat.
        border, corners: the mean shares of heat there; NaN where none has heat.
        centre: the mean share of heat in the middle ninth of the photo.
    """

    label: str
    photos: int
    without_evidence: int
    mean_map: Floats
    border: float
    corners: float
    centre: float


@dataclass(frozen=True)
class Location:
    """Of all photos, and of each class that is predicted, the most frequent first."""

    overall: ClassLocation
    classes: tuple[ClassLocation, ...]


def locate_heat(columns: ReportColumns) -> Location:
    """Where the heat is, by predicted class."""
    photos = columns.photos
    everywhere = np.ones(len(photos), np.bool_)
    classes, counts = np.unique(photos.predicted, return_counts=True)
    order = np.lexsort((classes, -counts))
    by_class = [
        _locate(columns, photos.classes[index], photos.predicted == index)
        for index in classes[order]
    ]
    return Location(_locate(columns, "", everywhere), tuple(by_class))


def _locate(columns: ReportColumns, label: str, chosen: NDArray[np.bool_]) -> ClassLocation:
    photos = columns.photos
    shown = chosen & photos.evidence
    maps = photos.maps[shown].astype(np.float64)
    has_heat = bool(shown.any())
    return ClassLocation(
        label=label,
        photos=int(chosen.sum()),
        without_evidence=int((chosen & ~photos.evidence).sum()),
        mean_map=maps.mean(0) if has_heat else np.zeros(photos.maps.shape[1:]),
        border=_mean(photos.border[shown]),
        corners=_mean(photos.corners[shown]),
        centre=float(centre_share(maps).mean()) if has_heat else float("nan"),
    )


def centre_share(maps: Floats) -> Floats:
    """The share of heat of each map (n, h, w) in the middle third of both sides, (n,)."""
    down, across = (_overlap(cells) for cells in maps.shape[1:])
    total = np.maximum(maps.sum((1, 2)), 1e-12)
    inside: Floats = np.einsum("nij,i,j->n", maps, down, across) / total
    return inside


def _overlap(cells: int) -> Floats:
    """(cells,) which part of each cell of a side lies in its middle third."""
    edges = np.linspace(0, 1, cells + 1)
    low, high = np.clip(edges[:-1], *CENTRE), np.clip(edges[1:], *CENTRE)
    return np.asarray((high - low) * cells)


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
