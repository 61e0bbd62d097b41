"""Two servers under load, one at a time: what is measured of them, and what happened meanwhile."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmark import load, machine
from benchmark.load import Window
from benchmark.servers import Side

FULL = 16
EXPLAINED, PLAIN, STOCK = "ours with explanation", "ours without", "stock"
#: The server of each of them; any other peer is a server's own name, and is asked to explain.
_SERVERS = {EXPLAINED: "ours", PLAIN: "ours", STOCK: "stock"}
_NO_EXPLANATION = {"X-Explain": json.dumps({"explain": False})}


@dataclass(frozen=True)
class Plan:
    """How long everything is measured.

    Attributes:
        repeat: repetitions, each with a window of every peer.
        seconds: of a window.
        warmup: seconds before each window.
        gradients: replies of stock /explanations in a repetition.
        soak: replies over which the memory is watched.
        connections: of the curve.
        sizes: of a batch, of the curve in process.
        delays, our_delays: maxBatchDelay in ms to choose from; the archive's own where none.
    """

    repeat: int
    seconds: float
    warmup: float
    gradients: int
    soak: int
    connections: Sequence[int]
    sizes: Sequence[int]
    delays: Sequence[int]
    our_delays: Sequence[int] = ()


@dataclass
class Journal:
    """What a run has to tell besides its results.

    Attributes:
        failures: how often requests failed, by what was measured and the reason.
        idle: the greatest use of a processor by the server that was not measured, in cores.
        others: the same of everything that is no part of the bench, one for each window.
        loading: by server, the most memory in MB that its largest worker held before it was
            measured.
    """

    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    idle: float = 0.0
    others: list[float] = field(default_factory=list)
    loading: dict[str, float] = field(default_factory=dict)


class Rig:
    """Servers, the photo that is sent to them, and the journal of what happened.

    Args:
        say: told what is measured.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        photo: Path,
        plan: Plan,
        journal: Journal,
        say: Callable[[str], None],
    ) -> None:
        self.sides = {side.name: side for side in sides}
        self.photo, self.plan, self.journal, self.say = photo, plan, journal, say

    def window(
        self,
        peer: str,
        connections: int = FULL,
        *,
        call: str = "predictions",
        tick: Callable[[], None] | None = None,
        requests: int | None = None,
        warmup: float | None = None,
    ) -> Window:
        """Load one peer and let the other servers rest.

        Args:
            peer: one of those above, or the name of a server that is asked for explanations.
            requests: how many replies end the window, rather than the plan's seconds.
        """
        side = self.sides[_SERVERS.get(peer, peer)]
        job = side.job(self.photo, connections, call=call)
        job = replace(
            job,
            headers={**job.headers, **(_NO_EXPLANATION if peer == PLAIN else {})},
            seconds=self.plan.seconds if requests is None else None,
            requests=requests,
            warmup=self.plan.warmup if warmup is None else warmup,
            expect={PLAIN: "predictions", STOCK: ""}.get(peer, "explanations"),
        )
        meter = machine.Meter({name: one.cpu_seconds for name, one in self.sides.items()})
        window = load.run(job, tick)
        cores = meter.cores()
        self.journal.others.append(cores["others"])
        resting = [cores[name] for name in self.sides if name != side.name]
        self.journal.idle = max([self.journal.idle, *resting])
        what = f"{peer} {call}, {connections} connection{'s' if connections > 1 else ''}"
        for reason, count in window.failures.items():
            self.journal.failures[f"{what}: {reason}"] += count
        self.say(f"{what}: {window.throughput:.1f}/s, p50 {window.p50:.0f} ms")
        return window
