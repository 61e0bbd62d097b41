"""Whether errors and heat go with a property of the photos: brightness, blur, size, camera.

Properties are compared among photos of the same class alone. Otherwise a class that is often
predicted wrong, and whose photos are dark by nature, would make darkness look like a cause.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats
from camserve_cli.report.figures.chance import rank_correlation

#: What is held against each property.
OUTCOMES = ("error", "confidence", "border")
#: Cameras with fewer photos are not judged.
_LEAST_OF_CAMERA = 10


@dataclass(frozen=True)
class PropertyEffect:
    """How one property goes with one outcome.

    Attributes:
        name: of the property.
        outcome: ``error`` (the prediction is wrong), ``confidence`` (its probability) or
            ``border`` (the share of heat in the border).
        rho: Spearman's correlation of the property's rank within the photo's class and of the
            outcome's distance from the class's mean.
        p: how likely one as far from zero is by chance, times the number of tests (Bonferroni), at
            most 1.
        count: the photos with both.
        low, high: the mean outcome in the lowest and in the highest fifth of each class's photos
            by the property.
    """

    name: str
    outcome: str
    rho: float
    p: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class CameraEffect:
    """How often a model is wrong on the photos of a camera, and of all others.

    Attributes:
        camera: its maker and model.
        photos, wrong: of it, of those whose truth is known.
        other_photos, other_wrong: of all other photos, with a camera named or none.
        p: Fisher's exact test, times the number of cameras, at most 1.
    """

    camera: str
    photos: int
    wrong: int
    other_photos: int
    other_wrong: int
    p: float


def property_effects(columns: ReportColumns) -> list[PropertyEffect]:
    """Each property against each outcome that is known, the surest first."""
    photos = columns.photos
    classes = np.where(columns.known, photos.true, photos.predicted)
    error = np.where(columns.known, columns.wrong.astype(np.float64), np.nan)
    outcomes = dict(zip(OUTCOMES, (error, photos.probability, photos.border), strict=True))
    tests = []
    for name, values in photos.properties.items():
        for outcome, target in outcomes.items():
            ranks, distances = _within_classes(values, target, classes)
            tests.append((name, outcome, rank_correlation(ranks, distances), ranks, target))
    effects = [
        PropertyEffect(
            name,
            outcome,
            found.rho,
            min(1.0, found.p * len(tests)),
            found.photos,
            *_ends(ranks, target),
        )
        for name, outcome, found, ranks, target in tests
        if found.photos
    ]
    return sorted(effects, key=lambda one: (one.p, -abs(one.rho)))


def camera_effects(columns: ReportColumns) -> list[CameraEffect]:
    """The cameras with enough photos whose truth is known, the surest first."""
    from scipy.stats import fisher_exact

    known, wrong = columns.known, columns.wrong
    groups = []
    for index, name in enumerate(columns.camera_names):
        own = (columns.cameras == index) & known
        if own.sum() >= _LEAST_OF_CAMERA and (known & ~own).sum() >= _LEAST_OF_CAMERA:
            groups.append((name, own))
    effects = []
    for name, own in groups:
        others = known & ~own
        table = [
            [int((wrong & own).sum()), int((own & ~wrong).sum())],
            [int((wrong & others).sum()), int((others & ~wrong).sum())],
        ]
        p = min(1.0, float(fisher_exact(table).pvalue) * len(groups))
        counts = (int(own.sum()), table[0][0], int(others.sum()), table[1][0])
        effects.append(CameraEffect(name, *counts, p))
    return sorted(effects, key=lambda one: (one.p, one.camera))


def _within_classes(
    values: Floats, target: Floats, classes: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """The rank of each value in its class, in (0, 1), and the target minus the class's mean.

    NaN where one of both is unknown.
    """
    from scipy.stats import rankdata

    both = np.isfinite(values) & np.isfinite(target)
    ranks, distances = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for index in np.unique(classes[both]):
        rows = np.flatnonzero(both & (classes == index))
        ranks[rows] = (rankdata(values[rows]) - 0.5) / len(rows)
        distances[rows] = target[rows] - target[rows].mean()
    return ranks, distances


def _ends(ranks: Floats, target: Floats) -> tuple[float, float]:
    """The target's mean in the lowest and in the highest fifth of the ranks."""
    known = np.isfinite(ranks) & np.isfinite(target)
    ranks, target = ranks[known], target[known]
    low, high = np.quantile(ranks, (0.2, 0.8))
    return float(target[ranks <= low].mean()), float(target[ranks >= high].mean())
