"""The outcome of a run: a table for a person, JSON for programs, a plot of the memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from devtools.fuzzing.process_memory import MemoryGrowth, MemorySample
from devtools.fuzzing.results import FuzzResults
from devtools.measurements import percentile

_SERIES = (("rss", "workers, RSS", "#0072B2", "-"), ("pss", "PSS", "#56B4E9", "--"),
          ("uss", "USS", "#009E73", ":"), ("java", "Java, RSS", "#D55E00", "-"))  # fmt: skip


@dataclass(frozen=True)
class FuzzReport:
    """A run's outcome.

    Attributes:
        options: of the run.
        machine: as :func:`devtools.machine.describe_machine` returns it.
        seconds: how long calls were sent.
        worker_deaths: number of workers that ended.
        growth, java_growth: of the workers' memory, and of Java's.
    """

    options: dict[str, Any]
    machine: dict[str, Any]
    seconds: float
    results: FuzzResults
    worker_deaths: int
    samples: Sequence[MemorySample]
    growth: MemoryGrowth
    java_growth: MemoryGrowth

    @property
    def failures(self) -> list[str]:
        """Why the run failed; empty where it passed."""
        failures = []
        if self.results.problems:
            failures.append(f"{self.results.problems} wrong answers")
        if self.worker_deaths:
            failures.append(f"{self.worker_deaths} workers ended")
        if not self.results.valid_answered:
            failures.append("no valid photo was answered")
        for owner, growth in (("the workers'", self.growth), ("Java's", self.java_growth)):
            if growth.grew:
                failures.append(
                    f"{owner} memory grew from {growth.begin:.0f} to {growth.end:.0f} MB, more "
                    f"than {growth.allowed:.0f} MB"
                )
        return failures

    def write(self, file: Path) -> Path:
        """Everything as JSON."""
        results, latencies = self.results, self.results.latencies
        content = {
            "options": self.options,
            "machine": self.machine,
            "seconds": self.seconds,
            "requests": results.sent,
            "good": results.valid_answered,
            "problems": results.problems,
            "worker_deaths": self.worker_deaths,
            "failures": self.failures,
            "families": dict(results.kinds.most_common()),
            "outcomes": dict(results.outcomes.most_common()),
            "frontend_faults": dict(results.frontend_faults.most_common()),
            "findings": [
                {
                    "index": finding.index,
                    "family": finding.kind,
                    "problem": finding.problem,
                    "file": finding.file,
                }
                for finding in results.findings
            ],
            "latency_ms": {
                f"p{p}": percentile(latencies, p / 100) for p in (50, 90, 99) if latencies
            },
            "growth": self.growth.to_json(),
            "java_growth": self.java_growth.to_json(),
            "samples": [asdict(sample) for sample in self.samples],
        }
        file.write_text(json.dumps(content, indent=2))
        return file

    def show(self, console: Console) -> None:
        """Print the table, and what failed."""
        results, latencies = self.results, self.results.latencies
        table = Table("outcome", "answers")
        for outcome, count in results.outcomes.most_common():
            table.add_row(outcome, str(count))
        console.print(table)
        console.print(
            f"{results.sent} requests in {self.seconds:.0f} s, "
            f"{results.valid_answered} valid photos answered correctly"
        )
        if latencies:
            p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
            console.print(f"valid photos: median {p50:.0f} ms, p99 {p99:.0f} ms")
        if self.samples:
            last, java = self.samples[-1], self.java_growth
            console.print(
                f"workers use {last.rss:.0f} MB ({last.uss:.0f} MB unique), "
                f"Java {last.java:.0f} MB; medians {self.growth.begin:.0f} to "
                f"{self.growth.end:.0f} and {java.begin:.0f} to {java.end:.0f} MB"
                + ("" if self.growth.conclusive else " (too short to tell growth)")
            )
        for fault, count in results.frontend_faults.most_common():
            console.print(f"by TorchServe's frontend alone: {count} x {fault}")
        for finding in results.findings:
            console.print(
                f"index {finding.index}, {finding.kind}: {finding.problem} ({finding.file})",
                markup=False,
            )
        console.print("FAILED: " + "; ".join(self.failures) if self.failures else "passed")


def plot_memory(samples: Sequence[MemorySample], caption: str, file: Path) -> Path:
    """Memory over time."""
    figure, axis = plt.subplots(figsize=(8, 4.4))
    minutes = [sample.seconds / 60 for sample in samples]
    for name, label, colour, line in _SERIES:
        values = [getattr(sample, name) for sample in samples]
        axis.plot(minutes, values, color=colour, linestyle=line, label=label)
    axis.set_xlabel("minutes")
    axis.set_ylabel("MB")
    axis.set_ylim(bottom=0)
    axis.grid(color="#DDDDDD")
    axis.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    figure.text(0.01, 0.01, caption, fontsize=8)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
