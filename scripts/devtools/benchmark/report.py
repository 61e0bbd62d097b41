"""What was measured: a table for a person, JSON for everything else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark.figures import Result, percentile
from benchmark.inprocess import BatchPoint
from benchmark.machine import caption
from benchmark.memory import Growth
from benchmark.profile import Share
from benchmark.rig import Journal
from benchmark.through import Candidate, Point
from camserve_cli.serving.sizing import worker_summary

#: More than this of a processor, used by what should rest, is worth a word; in cores.
NOTABLE = 0.1


@dataclass
class Report:
    """A run's results, as far as they were asked for.

    Attributes:
        machine: what :func:`machine.describe` said.
        options: of the run.
        profile: of one request.
        served: how our server says that it runs.
        delays: the maxBatchDelay that each server had, in ms, and what was tried for it.
    """

    machine: dict[str, Any]
    options: dict[str, Any]
    journal: Journal
    results: list[Result] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    batches: list[BatchPoint] = field(default_factory=list)
    growth: Growth | None = None
    profile: list[Share] = field(default_factory=list)
    served: dict[str, Any] = field(default_factory=dict)
    delays: dict[str, int] = field(default_factory=dict)
    tried: dict[str, list[Candidate]] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "machine": self.machine,
            "options": self.options,
            "results": [
                {
                    **asdict(result.target),
                    "ratio": asdict(result.ratio),
                    "verdict": result.target.verdict(result.ratio.median),
                    "unit": result.unit,
                    "measured": {name: asdict(one) for name, one in result.measured.items()},
                }
                for result in self._ordered()
            ],
            "connections": [asdict(point) for point in self.points],
            "batches": [asdict(point) for point in self.batches],
            "growth": asdict(self.growth) if self.growth else None,
            "profile_ms": {share.stage: share.ms for share in self.profile},
            "served": self.served,
            "max_batch_delay_ms": self.delays,
            "tried_delays": {
                name: [asdict(one) for one in candidates] for name, candidates in self.tried.items()
            },
            "loading_peak_mb": self.journal.loading,
            "failures": dict(self.journal.failures),
            "idle_server_cores": self.journal.idle,
            "other_processes_cores": self.journal.others,
        }

    def write(self, folder: Path) -> Path:
        file = folder / "bench.json"
        file.write_text(json.dumps(_finite(self.content()), indent=2) + "\n")
        return file

    def show(self, console: Console) -> None:
        """The table, and under it what a reader must know to believe it."""
        table = Table("", "ratio", "measured", "spread", "target", "", "of")
        key = None
        for result in self._ordered():
            target, found = result.target, result.ratio
            if key not in (None, target.key):
                table.add_section()
            bound = "" if target.bound is None else f"{target.sense} {target.bound:g}"
            verdict = target.verdict(found.median)
            table.add_row(
                target.key if target.key != key else "",
                target.says,
                number(found.median),
                f"{number(found.low)} .. {number(found.high)}",
                bound,
                f"[{'green' if verdict == 'met' else 'red'}]{verdict}[/]" if verdict else "",
                " / ".join(number(one.median) for one in result.measured.values())
                + f" {result.unit}",
            )
            key = target.key
        console.print(table)
        for line in self.remarks():
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if self.journal.failures:
            console.print("[bold red]REQUESTS FAILED; these figures are not to be used:[/]")
            for what, count in self.journal.failures.items():
                console.print(f"{count:6} x {what}", style="red", markup=False, highlight=False)

    def remarks(self) -> list[str]:
        """Medians of how many repetitions, on what, under which conditions."""
        remarks = [
            f"{caption(self.machine)}; {self.options['arch']}; medians and least to greatest of "
            f"{self.options['repeat']} repetitions"
        ]
        if self.options["quick"]:
            remarks.append("a smoke run: these figures mean nothing")
        if self.delays:
            told = ", ".join(f"{name} {delay} ms" for name, delay in self.delays.items())
            remarks.append(f"maxBatchDelay: {told}")
        if self.served:
            how = "compiled" if self.served["compiled"] else "eager"
            why = self.served["not_faster_because"]
            told = f"{self.served['precision']}, {how}{f' ({why})' if why else ''}"
            workers = worker_summary(self.served["workers"], self.served["threads"])
            remarks.append(f"ours: {told}, {workers}")
        if self.profile:
            told = ", ".join(f"{share.stage} {number(share.ms)}" for share in self.profile)
            remarks.append(f"one request, mean ms of each stage: {told}")
        if self.journal.loading:
            told = ", ".join(f"{name} {held:.0f} MB" for name, held in self.journal.loading.items())
            remarks.append(f"the workers' peak memory up to their first request: {told}")
        if self.growth:
            grown = self.growth
            remarks.append(
                f"memory over {grown.requests} requests: {grown.begin:.1f} to {grown.end:.1f} MB, "
                f"{grown.slope:+.2f} MB per 1000 requests"
            )
        if self.journal.idle > NOTABLE:
            remarks.append(
                f"the server that was not measured used up to {self.journal.idle:.2f} cores"
            )
        if self.journal.others:
            others = percentile(self.journal.others, 0.5)
            remarks.append(
                f"other processes used {others:.2f} cores (median of the windows), "
                f"{max(self.journal.others):.2f} at most"
            )
        return remarks

    def _ordered(self) -> Sequence[Result]:
        return sorted(self.results, key=lambda result: result.target.key)


def _finite(value: Any) -> Any:
    """What JSON can hold: null for what a failed measurement has instead of a number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
