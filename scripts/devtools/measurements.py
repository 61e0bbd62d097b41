"""Statistics of repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, interpolated linearly.

    NaN where there are no values.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares slope of y over x; 0 where x does not vary."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((value - mean_x) ** 2 for value in x)
    if spread == 0:
        return 0.0
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


@dataclass(frozen=True)
class Summary:
    """Repetitions of one measurement: their median, minimum and maximum."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(percentile(values, 0.5), min(values), max(values), tuple(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Summary:
    """The ratios of two series of measurements, repetition by repetition.

    What slows the whole machine for a while slows both measurements of a repetition. So their ratio
    varies less than either of them. NaN where a denominator is 0.
    """
    pairs = zip(numerators, denominators, strict=True)
    return Summary.of([a / b if b else math.nan for a, b in pairs])
