"""Sets of pictures, and whether a report found what was planted in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from devtools.shortcuts.marks import FURTHER_MARKS, MARKS

#: Shares of the marked class's pictures that carry the mark.
SHARES: Final = (1.0, 0.9, 0.5)
#: Findings that say that a model looks at the wrong thing.
SHORTCUT_KINDS: Final = frozenset(
    {"corner", "border", "cluster", "image_property", "outside_box", "no_evidence"}
)
CLEAN: Final = "clean"


@dataclass(frozen=True)
class SetPlan:
    """One set of pictures to make.

    Attributes:
        mark: the name of one, or ``clean``.
        share: of the marked class's pictures that carry it; 0 where there is none.
        seed: of everything in it.
    """

    mark: str
    share: float
    seed: int


@dataclass(frozen=True)
class SetResult:
    """What became of a set.

    Attributes:
        plan: of it.
        marked: the classes that carry the mark.
        accuracy: of the network, on pictures that it was not trained on.
        used: the share of other classes' pictures that the network takes for a marked class once
            they carry the mark; 0 where there is none.
        findings: the entries of findings.json.
        seconds: for training, packaging and the report.
    """

    plan: SetPlan
    marked: tuple[str, ...]
    accuracy: float
    used: float
    findings: Sequence[Mapping[str, Any]]
    seconds: float

    @property
    def found(self) -> bool:
        """Whether a finding names a marked class and a kind that fits the mark."""
        fitting = fitting_kinds(self.plan.mark)
        return any(one["class"] in self.marked and one["kind"] in fitting for one in self.findings)

    @property
    def accused(self) -> bool:
        """Whether a finding says of a class that carries no mark that it is a shortcut's."""
        return any(
            one["class"] not in self.marked and one["kind"] in SHORTCUT_KINDS
            for one in self.findings
        )

    @classmethod
    def from_json(cls, text: str) -> SetResult:
        """What ``dataclasses.asdict`` gave, as JSON."""
        told = json.loads(text)
        plan, marked = SetPlan(**told.pop("plan")), tuple(told.pop("marked"))
        return cls(plan=plan, marked=marked, **told)

    def line(self) -> str:
        """For a log."""
        told = ", ".join(f"{one['kind']} {one['class']}" for one in self.findings) or "nothing"
        plan, marked = self.plan, " ".join(self.marked) or "-"
        return (
            f"{plan.mark} {plan.share:.0%} seed {plan.seed}: marked {marked}, "
            f"accuracy {self.accuracy:.2f}, used {self.used:.2f}; report: {told} "
            f"({self.seconds:.0f} s)"
        )


def fitting_kinds(mark: str) -> frozenset[str]:
    """The kinds of findings that name a mark; none where nothing was planted."""
    all_marks = {**MARKS, **FURTHER_MARKS}
    return all_marks[mark][1] if mark in all_marks else frozenset()


def plan_sets(
    seed: int, marks: Iterable[str], sets: int, clean: int, shares: Sequence[float] = SHARES
) -> list[SetPlan]:
    """So many sets of each mark and share, and so many clean ones, each with a seed of its own."""
    wanted = [(mark, share) for mark in marks for share in shares for _ in range(sets)]
    wanted += [(CLEAN, 0.0)] * clean
    seeds = np.random.SeedSequence(seed).generate_state(len(wanted))
    plans = [
        SetPlan(mark, share, int(own)) for (mark, share), own in zip(wanted, seeds, strict=True)
    ]
    # In another order, so that what is done by some time is like the whole.
    return [plans[index] for index in np.random.default_rng(seed).permutation(len(plans))]


def table(results: Sequence[SetResult]) -> list[str]:
    """The lines of a Markdown table: marks in rows, shares in columns, clean sets below."""
    shares = sorted({one.plan.share for one in results if one.plan.mark != CLEAN}, reverse=True)
    lines = []
    if shares:
        heads = " | ".join(f"found, {share:.0%} marked" for share in shares)
        lines += [
            f"| mark | {heads} | used, median |",
            "| --- |" + " --- |" * (len(shares) + 1),
        ]
    marks = {one.plan.mark for one in results} - {CLEAN}
    for mark in [name for name in (*MARKS, *FURTHER_MARKS) if name in marks]:
        own = [one for one in results if one.plan.mark == mark]
        cells = [_found([one for one in own if one.plan.share == share]) for share in shares]
        used = float(np.median([one.used for one in own]))
        lines.append(f"| {mark.replace('_', ' ')} | {' | '.join(cells)} | {used:.0%} |")
    planted = [one for one in results if one.plan.mark != CLEAN]
    clean = [one for one in results if one.plan.mark == CLEAN]
    if planted:
        wrongly = sum(one.accused for one in planted)
        lines += ["", f"Planted: found {_found(planted)}; {wrongly} also accuse an unmarked class."]
    if clean:
        lines += ["", f"Clean: accused {sum(one.accused for one in clean)} of {len(clean)}."]
    return lines


def _found(results: Sequence[SetResult]) -> str:
    return f"{sum(one.found for one in results)} of {len(results)}" if results else "-"
