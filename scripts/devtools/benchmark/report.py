"""What was measured: a table for a person, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from camserve_cli.serving.sizing import worker_summary
from devtools.benchmark.front_cost import GOAL_MS, HTTP, PLAIN, WITHOUT_FRONT, FrontCost
from devtools.benchmark.goals import GoalResult
from devtools.benchmark.in_process import BatchPoint
from devtools.benchmark.load_rig import RunNotes
from devtools.benchmark.request_profile import StageTime
from devtools.benchmark.served import DelayChoice, LoadPoint
from devtools.benchmark.worker_memory import MemoryUnderLoad
from devtools.machine import machine_caption
from devtools.measurements import percentile

#: Cores; an idle server that uses more than this is mentioned.
NOTABLE_CORES = 0.1


@dataclass
class BenchReport:
    """A run's results, as far as they were asked for.

    Attributes:
        machine: as :func:`devtools.machine.describe_machine` returns it.
        options: of the run.
        profile: of one request.
        served: how our server runs, as it describes itself.
        delays: the maxBatchDelay of each server.
        front: a request with the Open Inference front, and without.
    """

    machine: dict[str, Any]
    options: dict[str, Any]
    notes: RunNotes
    results: list[GoalResult] = field(default_factory=list)
    points: list[LoadPoint] = field(default_factory=list)
    batches: list[BatchPoint] = field(default_factory=list)
    growth: MemoryUnderLoad | None = None
    profile: list[StageTime] = field(default_factory=list)
    served: dict[str, Any] = field(default_factory=dict)
    delays: dict[str, DelayChoice] = field(default_factory=dict)
    front: list[FrontCost] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """Everything, as JSON objects."""
        return {
            "machine": self.machine,
            "options": self.options,
            "results": [_result_content(result) for result in self._sorted_results()],
            "connections": [asdict(point) for point in self.points],
            "batches": [asdict(point) for point in self.batches],
            "growth": asdict(self.growth) if self.growth else None,
            "profile_ms": {time.stage: time.ms for time in self.profile},
            "open_inference": [asdict(cost) for cost in self.front],
            "served": self.served,
            "max_batch_delay_ms": {name: choice.delay for name, choice in self.delays.items()},
            "tried_delays": {
                name: [asdict(trial) for trial in choice.trials]
                for name, choice in self.delays.items()
            },
            "loading_peak_mb": self.notes.loading_peak,
            "failures": dict(self.notes.failures),
            "idle_server_cores": self.notes.idle_cores,
            "other_processes_cores": self.notes.other_cores,
        }

    def write(self, folder: Path) -> Path:
        file = folder / "bench.json"
        file.write_text(json.dumps(_finite(self.content()), indent=2) + "\n")
        return file

    def show(self, console: Console) -> None:
        """Print the table, and below it the conditions under which it was measured."""
        table = Table("", "ratio", "measured", "spread", "target", "", "of")
        key = None
        for result in self._sorted_results():
            goal, ratio = result.goal, result.ratio
            if key not in (None, goal.key):
                table.add_section()
            bound = "" if goal.bound is None else f"{goal.sense} {goal.bound:g}"
            status = goal.status(ratio.median)
            table.add_row(
                goal.key if goal.key != key else "",
                goal.description,
                format_number(ratio.median),
                f"{format_number(ratio.low)} .. {format_number(ratio.high)}",
                bound,
                f"[{'green' if status == 'met' else 'red'}]{status}[/]" if status else "",
                " / ".join(format_number(summary.median) for summary in result.measured.values())
                + f" {result.unit}",
            )
            key = goal.key
        if self._sorted_results():
            console.print(table)
        if self.front:
            console.print(_front_table(self.front))
        for line in self.remarks():
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if self.notes.failures:
            console.print("[bold red]REQUESTS FAILED; do not use these figures:[/]")
            for label, count in self.notes.failures.items():
                console.print(f"{count:6} x {label}", style="red", markup=False, highlight=False)

    def remarks(self) -> list[str]:
        """Number of repetitions, the machine, and the conditions of the run."""
        remarks = [
            f"{machine_caption(self.machine)}; {self.options['arch']}; medians and ranges of "
            f"{self.options['repeat']} repetitions"
        ]
        if self.options["quick"]:
            remarks.append("a smoke run: these figures mean nothing")
        if self.delays:
            delays = ", ".join(f"{name} {choice.delay} ms" for name, choice in self.delays.items())
            remarks.append(f"maxBatchDelay: {delays}")
        if self.served:
            mode = "compiled" if self.served["compiled"] else "eager"
            reason = self.served["acceleration_notes"]
            mode = f"{self.served['precision']}, {mode}{f' ({reason})' if reason else ''}"
            workers = worker_summary(self.served["workers"], self.served["threads"])
            remarks.append(f"ours: {mode}, {workers}")
        if self.profile:
            times = ", ".join(f"{time.stage} {format_number(time.ms)}" for time in self.profile)
            remarks.append(f"one request, mean ms of each stage: {times}")
        if self.notes.loading_peak:
            peaks = ", ".join(f"{name} {mb:.0f} MB" for name, mb in self.notes.loading_peak.items())
            remarks.append(f"the workers' peak memory before their first request: {peaks}")
        if self.growth:
            growth = self.growth
            remarks.append(
                f"memory over {growth.requests} requests: {growth.begin:.1f} to {growth.end:.1f} "
                f"MB, {growth.slope:+.2f} MB per 1000 requests"
            )
        if self.notes.idle_cores > NOTABLE_CORES:
            remarks.append(
                f"the server that was not measured used up to {self.notes.idle_cores:.2f} cores"
            )
        if self.notes.other_cores:
            others = percentile(self.notes.other_cores, 0.5)
            remarks.append(
                f"other processes used {others:.2f} cores (median of the windows), "
                f"{max(self.notes.other_cores):.2f} at most"
            )
        return remarks

    def _sorted_results(self) -> Sequence[GoalResult]:
        return sorted(self.results, key=lambda result: result.goal.key)


def _front_table(costs: Sequence[FrontCost]) -> Table:
    """A request at one connection, in each way."""
    table = Table(
        *("one connection", "ms", "more than without the front", f"goal <= {GOAL_MS:g}"),
        *(f"more than {HTTP}", f"more than {PLAIN}"),
    )
    for cost in costs:
        added = cost.more_than[WITHOUT_FRONT[cost.way]] if cost.way in WITHOUT_FRONT else None
        table.add_row(
            cost.way,
            format_number(cost.ms),
            "" if added is None else f"{added:+.2f}",
            "" if added is None else "met" if added <= GOAL_MS else "missed",
            f"{cost.more_than[HTTP]:+.2f}",
            f"{cost.more_than[PLAIN]:+.2f}",
        )
    return table


def format_number(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def _result_content(result: GoalResult) -> dict[str, Any]:
    goal = result.goal
    return {
        "key": goal.key,
        "says": goal.description,
        "sense": goal.sense,
        "bound": goal.bound,
        "ratio": asdict(result.ratio),
        "verdict": goal.status(result.ratio.median),
        "unit": result.unit,
        "measured": {name: asdict(summary) for name, summary in result.measured.items()},
    }


def _finite(value: Any) -> Any:
    """A value that JSON can hold: NaN and infinity, of failed measurements, become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
