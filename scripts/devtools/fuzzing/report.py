"""What a run found: a table for a person, JSON for everything else, a plot of the memory."""

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

from benchmark.figures import percentile
from soaking.traffic import Tally
from soaking.vitals import Growth, Sample

_LINES = (("rss", "workers, RSS", "#0072B2", "-"), ("pss", "PSS", "#56B4E9", "--"),
          ("uss", "USS", "#009E73", ":"), ("java", "Java, RSS", "#D55E00", "-"))  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A run's outcome.

    Attributes:
        options: as it was asked for.
        machine: what it ran on.
        seconds: how long requests were sent.
        deaths: workers that ended.
        growth, java: of the workers' memory, and of Java's.
    """

    options: dict[str, Any]
    machine: dict[str, Any]
    seconds: float
    tally: Tally
    deaths: int
    samples: Sequence[Sample]
    growth: Growth
    java: Growth

    @property
    def failures(self) -> list[str]:
        """Why the run failed; nothing where it passed."""
        found = []
        if self.tally.problems:
            found.append(f"{self.tally.problems} wrong answers")
        if self.deaths:
            found.append(f"{self.deaths} workers ended")
        if not self.tally.good:
            found.append("no good photo was answered")
        for whose, growth in (("the workers'", self.growth), ("Java's", self.java)):
            if growth.grew:
                found.append(
                    f"{whose} memory grew from {growth.begin:.0f} to {growth.end:.0f} MB, more "
                    f"than {growth.allowed:.0f} MB"
                )
        return found

    def write(self, file: Path) -> Path:
        """Everything as JSON."""
        tally, of = self.tally, self.tally.latencies
        content = {
            "options": self.options,
            "machine": self.machine,
            "seconds": self.seconds,
            "requests": tally.sent,
            "good": tally.good,
            "problems": tally.problems,
            "worker_deaths": self.deaths,
            "failures": self.failures,
            "families": dict(tally.families.most_common()),
            "outcomes": dict(tally.outcomes.most_common()),
            "frontend_faults": dict(tally.faults.most_common()),
            "findings": [asdict(one) for one in tally.findings],
            "latency_ms": {f"p{p}": percentile(of, p / 100) for p in (50, 90, 99)} if of else {},
            "growth": asdict(self.growth),
            "java_growth": asdict(self.java),
            "samples": [asdict(one) for one in self.samples],
        }
        file.write_text(json.dumps(content, indent=2))
        return file

    def show(self, console: Console) -> None:
        """Print the table, and what failed."""
        tally, of = self.tally, self.tally.latencies
        table = Table("outcome", "answers")
        for outcome, count in tally.outcomes.most_common():
            table.add_row(outcome, str(count))
        console.print(table)
        console.print(
            f"{tally.sent} requests in {self.seconds:.0f} s, "
            f"{tally.good} good photos answered right"
        )
        if of:
            p50, p99 = percentile(of, 0.5), percentile(of, 0.99)
            console.print(f"good photos: median {p50:.0f} ms, p99 {p99:.0f} ms")
        if self.samples:
            last = self.samples[-1]
            console.print(
                f"workers hold {last.rss:.0f} MB ({last.uss:.0f} MB unique), "
                f"Java {last.java:.0f} MB; medians {self.growth.begin:.0f} to "
                f"{self.growth.end:.0f} and {self.java.begin:.0f} to {self.java.end:.0f} MB"
                + ("" if self.growth.told else " (too short to tell growth)")
            )
        for fault, count in tally.faults.most_common():
            console.print(f"TorchServe's frontend by itself: {count} x {fault}")
        for finding in tally.findings:
            console.print(
                f"index {finding.index}, {finding.family}: {finding.problem} ({finding.file})",
                markup=False,
            )
        console.print("FAILED: " + "; ".join(self.failures) if self.failures else "passed")


def plot(samples: Sequence[Sample], caption: str, file: Path) -> Path:
    """Memory over time."""
    figure, axis = plt.subplots(figsize=(8, 4.4))
    minutes = [one.seconds / 60 for one in samples]
    for name, label, colour, line in _LINES:
        values = [getattr(one, name) for one in samples]
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
