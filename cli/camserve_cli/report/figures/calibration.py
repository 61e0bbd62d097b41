"""Whether a model is as often right as it is sure: reliability and expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose probability lies in one tenth.

    Attributes:
        low, high: of the tenth.
        count: how many.
        confidence: their mean probability; NaN where there are none.
        accuracy: the share that is right; NaN where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy are apart.

    Attributes:
        count: the predictions that were judged: one a photo, or one a photo and label where a
            photo has several.
        error: the expected calibration error in [0, 1]: the mean distance of confidence and
            accuracy over ten bins of the same width, by the photos in them. Guo et al. 2017,
            arXiv 1706.04599. NaN where nothing was judged.
        by_chance: the error that a model that is perfectly calibrated would have on so many photos
            in these bins, in 99 of 100 such samples: below it, the error says nothing.
        overconfident: mean confidence minus accuracy.
        bins: ten.
    """

    count: int
    error: float
    by_chance: float
    overconfident: float
    bins: tuple[ReliabilityBin, ...]


def measure_calibration(columns: ReportColumns) -> Calibration:
    """Of the predicted class's probability; with several labels of all labels' probabilities."""
    if columns.true_sets is not None and columns.probabilities is not None:
        known = columns.labelled
        probability = columns.probabilities[known].astype(np.float64).ravel()
        return calibrate(probability, columns.true_sets[known].ravel())
    known = columns.known
    return calibrate(columns.photos.probability[known], columns.right[known])


def calibrate(probability: Floats, right: NDArray[np.bool_]) -> Calibration:
    """Of probabilities (n,) in [0, 1], and whether each was right (n,)."""
    count = len(probability)
    edges = np.linspace(0, 1, BINS + 1)
    # The first bin has 0 too.
    place = np.clip(np.ceil(probability * BINS).astype(int) - 1, 0, BINS - 1)
    bins, distances = [], 0.0
    for index in range(BINS):
        inside = place == index
        size = int(inside.sum())
        confidence = float(probability[inside].mean()) if size else float("nan")
        accuracy = float(right[inside].mean()) if size else float("nan")
        if size:
            distances += size * abs(confidence - accuracy)
        bins.append(ReliabilityBin(edges[index], edges[index + 1], size, confidence, accuracy))
    return Calibration(
        count=count,
        error=distances / count if count else float("nan"),
        by_chance=_error_by_chance(probability, place) if count else float("nan"),
        overconfident=float(probability.mean() - right.mean()) if count else float("nan"),
        bins=tuple(bins),
    )


def _error_by_chance(probability: Floats, place: NDArray[np.int64]) -> float:
    """Simulated: each prediction is right as often as its probability says."""
    random = np.random.default_rng(0)
    sizes = np.bincount(place, minlength=BINS)
    confidence = np.bincount(place, probability, BINS) / np.maximum(sizes, 1)
    # A bin's count of right ones, as if each had the bin's mean probability.
    right = random.binomial(sizes, np.clip(confidence, 0, 1), (1000, BINS))
    errors = np.abs(right - sizes * confidence).sum(1) / len(probability)
    return float(np.quantile(errors, 0.99))
