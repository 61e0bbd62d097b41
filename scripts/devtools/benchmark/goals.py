"""The goals of the benchmark, T1 to T8: ratios of two measurements, each with its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from devtools.measurements import Summary, ratio


@dataclass(frozen=True)
class Goal:
    """A ratio that is to be reached.

    Attributes:
        key: T1 to T8.
        description: what is divided by what.
        sense: whether the ratio is to be at least or at most ``bound``.
        bound: the limit; None where a ratio is reported for information only.
    """

    key: str
    description: str
    sense: Literal[">=", "<="] = ">="
    bound: float | None = None

    def status(self, measured: float) -> str:
        """``met`` or ``missed``; empty where there is no bound."""
        if self.bound is None:
            return ""
        met = measured >= self.bound if self.sense == ">=" else measured <= self.bound
        return "met" if met else "missed"


@dataclass(frozen=True)
class GoalResult:
    """A goal with what was measured for it.

    Attributes:
        ratio: over the repetitions.
        measured: numerator and denominator by name, each in ``unit``.
    """

    goal: Goal
    ratio: Summary
    unit: str
    measured: dict[str, Summary]


def goal_result(
    goal: Goal,
    unit: str,
    numerator: tuple[str, Sequence[float]],
    denominator: tuple[str, Sequence[float]],
) -> GoalResult:
    """The result for two measurements, each given as its name and its repetitions."""
    measured = {name: Summary.of(values) for name, values in (numerator, denominator)}
    return GoalResult(goal, ratio(numerator[1], denominator[1]), unit, measured)
