"""Maps of a class that fall into groups: spectral clustering, as SpRAy has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from camserve_cli.report.explained_photos import Floats, Integers

#: Maps are compared on a grid of this side, as a ResNet has it.
GRID: Final = 7
#: At most as many maps take part in the eigenvalue problem; the others join the nearest one.
SAMPLE: Final = 1000
#: The most clusters that are looked for.
MOST: Final = 8
#: Fewer maps than these have no clusters.
FEWEST: Final = 8
#: Each map's neighbours in the graph: this part of all, and at least so many.
NEIGHBOURS: Final = 1 / 6
LEAST_NEIGHBOURS: Final = 7
#: Eigenvalues up to the first of these are near 0, one for each cluster; a gap of the second, up to
#: the next eigenvalue, parts them from the others. The greatest possible is 2.
NEAR_ZERO: Final = 0.04
LEAST_GAP: Final = 0.1
#: A watermark-like cluster: the share of its mean map's heat that lies in the outer cells, the part
#: of all cells that holds half of that heat, and the largest share of the class that it has.
OUTER_HEAT: Final = 0.6
HALF_OF_HEAT: Final = 0.12
SHARE_OF_CLASS: Final = 0.6


@dataclass(frozen=True)
class Clusters:
    """Groups of maps that are hot in the same places.

    Attributes:
        assignment: (n,) index of the cluster of each map, from 0, the largest first; -1 for a map
            without heat.
        count: how many clusters there are: 0 where no map has heat, 1 where the maps do not fall
            into groups.
        eigenvalues: of the graph's Laplacian, ascending, as many as were looked at.
        eigengap: the gap behind the ``count``-th eigenvalue; 0 where there is one cluster.
        means: (count, GRID, GRID) mean map of each, whose cells sum to 1.
        watermark_like: of each, whether it is a small part of the class and its heat lies in a few
            cells at the edge, as that of a watermark.
    """

    assignment: Integers
    count: int
    eigenvalues: Floats
    eigengap: float
    means: Floats
    watermark_like: tuple[bool, ...]


def cluster_maps(maps: NDArray[np.floating], *, seed: int = 0) -> Clusters:
    """Spectral clustering of the maps of one class; the eigengap says how many clusters.

    The maps are made smaller, and their cells' shares of heat compared. The affinity is that of the
    nearest neighbours, mutual or not; eigenvectors of the normalized Laplacian are clustered by
    k-means. Lapuschkin et al. 2019, arXiv 1902.10178; von Luxburg 2007, arXiv 0711.0189.

    Args:
        maps: (n, h, w), at least 0.
        seed: for the sample and for k-means.
    """
    shares = heat_shares(maps)
    hot = np.flatnonzero(shares.sum(axis=(1, 2)) > 0)
    assignment = np.full(len(maps), -1, np.int64)
    if len(hot) == 0:
        return Clusters(assignment, 0, np.zeros(0), 0.0, np.zeros((0, GRID, GRID)), ())
    points = shares[hot].reshape(len(hot), -1)
    sample = np.sort(np.random.default_rng(seed).permutation(len(points))[:SAMPLE])
    eigenvalues, vectors = _spectrum(points[sample])
    count, gap = _count_by_eigengap(eigenvalues)
    if count > 1:
        rows = vectors[:, :count]
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        of_sample = KMeans(count, n_init=10, random_state=seed).fit_predict(rows)
        nearest = NearestNeighbors(n_neighbors=1).fit(points[sample])
        found = of_sample[nearest.kneighbors(points, return_distance=False)[:, 0]]
        # k-means may leave a cluster empty where points are the same.
        present, members = np.unique(found, return_counts=True)
        order = present[np.argsort(-members, kind="stable")]
        assignment[hot] = np.argsort(order)[np.searchsorted(np.sort(order), found)]
        count, gap = len(present), gap if len(present) > 1 else 0.0
    else:
        assignment[hot] = 0
    means = np.stack([shares[assignment == cluster].mean(axis=0) for cluster in range(count)])
    sizes = np.bincount(assignment[hot], minlength=count) / len(maps)
    flags = tuple(
        bool(size <= SHARE_OF_CLASS and _is_compact_at_edge(mean))
        for size, mean in zip(sizes, means, strict=True)
    )
    return Clusters(assignment, count, eigenvalues, gap, means, flags)


def heat_shares(maps: NDArray[np.floating], grid: int = GRID) -> Floats:
    """(n, h, w) maps -> (n, grid, grid) shares of each map's heat; zeros where there is none."""
    shares = np.zeros((len(maps), grid, grid))
    for index, heat in enumerate(maps):
        heat = np.nan_to_num(np.asarray(heat, np.float32), posinf=0.0, neginf=0.0).clip(min=0)
        smaller = min(heat.shape) > grid
        small = cv2.resize(
            heat, (grid, grid), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        total = float(small.sum(dtype=np.float64))
        if total > 0:
            shares[index] = small / total
    return shares


def _spectrum(points: Floats) -> tuple[Floats, Floats]:
    """The least eigenvalues of the normalized Laplacian, ascending, and their eigenvectors."""
    n = len(points)
    if n < FEWEST:
        return np.zeros(1), np.ones((n, 1))
    neighbours = min(n - 1, max(LEAST_NEIGHBOURS, round(NEIGHBOURS * n)))
    graph = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors_graph().toarray()
    affinity = 0.5 * (graph + graph.T)
    scale = 1 / np.sqrt(affinity.sum(axis=1))
    laplacian = np.eye(n) - scale[:, None] * affinity * scale
    values, vectors = np.linalg.eigh(laplacian)
    return values[: MOST + 1].clip(min=0), vectors[:, : MOST + 1]


def _count_by_eigengap(eigenvalues: Floats) -> tuple[int, float]:
    """The number of clusters before the widest gap, and that gap; 1 and 0 where none is wide."""
    gaps = np.diff(eigenvalues)
    # The gap behind the first eigenvalue says that all maps are one cluster.
    near_zero = np.flatnonzero(eigenvalues[:-1] <= NEAR_ZERO)
    widest = int(near_zero[np.argmax(gaps[near_zero])]) if len(near_zero) else 0
    if widest == 0 or gaps[widest] < LEAST_GAP:
        return 1, 0.0
    return widest + 1, float(gaps[widest])


def _is_compact_at_edge(mean: Floats) -> bool:
    """Whether a few cells hold half of the heat, and most of it lies in the outer cells."""
    outer = 1 - float(mean[1:-1, 1:-1].sum())
    descending = np.sort(mean.ravel())[::-1].cumsum()
    cells = int(np.searchsorted(descending, 0.5 * descending[-1])) + 1
    return outer >= OUTER_HEAT and cells / mean.size <= HALF_OF_HEAT
