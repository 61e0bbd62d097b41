"""The clusters of each class's maps: how large, how accurate, and which photos show them best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats

#: Classes with fewer photos with evidence are not clustered.
LEAST_PHOTOS = 12
#: So many classes are clustered, those with most photos.
MOST_CLASSES = 200
#: So many photos of a cluster are shown.
NEAREST = 6


@dataclass(frozen=True)
class MapCluster:
    """Photos predicted as one class whose maps are hot in the same places.

    Attributes:
        size: how many.
        labelled, right: of how many the truth is known, and how many of these are right.
        mean_map: (h, w) the mean of their maps.
        nearest: places of the photos whose maps are nearest to the mean, the nearest first.
        watermark_like: whether the heat lies in a few cells at the edge, as that of a watermark.
    """

    size: int
    labelled: int
    right: int
    mean_map: Floats
    nearest: tuple[int, ...]
    watermark_like: bool


@dataclass(frozen=True)
class ClassClusters:
    """The clusters of a class, the largest first; one alone where the maps fall into no groups."""

    label: str
    photos: int
    eigengap: float
    clusters: tuple[MapCluster, ...]


def cluster_classes(columns: ReportColumns) -> tuple[list[ClassClusters], NDArray[np.int64]]:
    """The clusters of each predicted class that has enough photos.

    Returns:
        Of each class, those with most clusters first; and (N,) the cluster of each photo, from 0,
        -1 where its class has none.
    """
    from camserve_cli.report.figures.clusters import cluster_maps

    photos = columns.photos
    assignment = np.full(len(photos), -1, np.int64)
    shown = photos.evidence
    classes, counts = np.unique(photos.predicted[shown], return_counts=True)
    order = np.lexsort((classes, -counts))[:MOST_CLASSES]
    found = []
    for index in classes[order][counts[order] >= LEAST_PHOTOS]:
        rows = np.flatnonzero(shown & (photos.predicted == index))
        maps = photos.maps[rows].astype(np.float32)
        clusters = cluster_maps(maps)
        if clusters.count > 1:
            assignment[rows] = clusters.assignment
        members = [
            _cluster(
                columns,
                rows[clusters.assignment == number],
                maps[clusters.assignment == number],
                clusters.watermark_like[number],
            )
            for number in range(clusters.count)
        ]
        found.append(
            ClassClusters(
                photos.classes[index], len(rows), float(clusters.eigengap), tuple(members)
            )
        )
    found.sort(key=lambda one: (len(one.clusters) == 1, -one.photos))
    return found, assignment


def _cluster(
    columns: ReportColumns,
    rows: NDArray[np.int64],
    maps: NDArray[np.float32],
    watermark_like: bool,
) -> MapCluster:
    mean = maps.mean(0).astype(np.float64)
    distance = ((maps - mean) ** 2).sum((1, 2))
    nearest = rows[np.argsort(distance, kind="stable")[:NEAREST]]
    return MapCluster(
        size=len(rows),
        labelled=int(columns.known[rows].sum()),
        right=int(columns.right[rows].sum()),
        mean_map=mean,
        nearest=tuple(int(row) for row in nearest),
        watermark_like=watermark_like,
    )
