"""Repeated measurements -> medians with their spread, and what becomes of a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, interpolated linearly.

    NaN where there are no values.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares slope of y over x; 0 where x does not vary."""
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - middle_x) ** 2 for one in x)
    if spread == 0:
        return 0.0
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / spread


@dataclass(frozen=True)
class Summary:
    """Repetitions of one measurement: their median, and the least and the greatest."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(percentile(values, 0.5), min(values), max(values), tuple(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Summary:
    """The ratios of two peers' measurements, repetition by repetition.

    What slows the whole machine for a while slows both measurements of a repetition, so that their
    ratio is steadier than either of them.
    """
    pairs = zip(above, below, strict=True)
    return Summary.of([a / b if b else math.nan for a, b in pairs])


@dataclass(frozen=True)
class Target:
    """A ratio that is to be reached.

    Attributes:
        key: T1 to T7.
        says: what is divided by what.
        sense: whether the ratio is to be at least or at most ``bound``.
        bound: the target; None where a ratio is told for information.
    """

    key: str
    says: str
    sense: Literal[">=", "<="] = ">="
    bound: float | None = None

    def verdict(self, measured: float) -> str:
        """``met`` or ``missed``; nothing where there is no bound."""
        if self.bound is None:
            return ""
        met = measured >= self.bound if self.sense == ">=" else measured <= self.bound
        return "met" if met else "missed"


@dataclass(frozen=True)
class Result:
    """A target with what was measured for it.

    Attributes:
        ratio: over the repetitions.
        measured: the sides of the ratio by name, each in ``unit``.
    """

    target: Target
    ratio: Summary
    unit: str
    measured: dict[str, Summary]


def compared(
    target: Target,
    unit: str,
    above: tuple[str, Sequence[float]],
    below: tuple[str, Sequence[float]],
) -> Result:
    """The result for ``above`` divided by ``below``, each a name and its repetitions."""
    sides = {name: Summary.of(values) for name, values in (above, below)}
    return Result(target, ratio(above[1], below[1]), unit, sides)
