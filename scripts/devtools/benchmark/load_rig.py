"""Two servers under load, one at a time: measures each and notes what happened meanwhile."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from devtools.benchmark import load_generator
from devtools.benchmark.cpu_meter import CpuMeter
from devtools.benchmark.load_generator import LoadJob, LoadResult
from devtools.benchmark.plan import MeasurementPlan
from devtools.servers import ServerUnderTest

FULL_LOAD = 16
EXPLAINED, PLAIN, STOCK = "ours with explanation", "ours without", "stock"
#: The server of each peer. Any other peer is the name of a server of ours, which explains.
_SERVERS = {EXPLAINED: "ours", PLAIN: "ours", STOCK: "stock"}
_NO_EXPLANATION = {"X-Explain": json.dumps({"explain": False})}


@dataclass
class RunNotes:
    """What a reader must know about a run besides its results.

    Attributes:
        failures: number of failed requests by what was measured and the reason.
        idle_cores: the maximum that a server used while another one was measured.
        other_cores: of each window, the cores used by what is no part of the benchmark.
        loading_peak: by server, the peak memory in MB of its largest worker before the first
            measured request.
    """

    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    idle_cores: float = 0.0
    other_cores: list[float] = field(default_factory=list)
    loading_peak: dict[str, float] = field(default_factory=dict)


class LoadRig:
    """Servers, the photo that is sent to them, and the notes of the run.

    Args:
        log: called with a line on each measurement.
    """

    def __init__(
        self,
        servers: Sequence[ServerUnderTest],
        photo: Path,
        plan: MeasurementPlan,
        notes: RunNotes,
        log: Callable[[str], None],
    ) -> None:
        self.servers = {server.name: server for server in servers}
        self.photo, self.plan, self.notes, self.log = photo, plan, notes, log

    def measure(
        self,
        peer: str,
        connections: int = FULL_LOAD,
        *,
        endpoint: str = "predictions",
        on_interval: Callable[[], None] | None = None,
        requests: int | None = None,
        warmup: float | None = None,
    ) -> LoadResult:
        """Load one peer while the other servers are idle.

        Args:
            peer: ``EXPLAINED``, ``PLAIN``, ``STOCK``, or the name of a server, which is asked for
                explanations.
            endpoint: ``predictions`` or ``explanations``.
            on_interval: called about twice a second meanwhile.
            requests: the window ends after so many replies instead of the plan's seconds.
            warmup: seconds; the plan's where it is None.
        """
        server = self.servers[_SERVERS.get(peer, peer)]
        address = urlsplit(server.base)
        headers = {**server.headers, "Content-Type": "image/jpeg"}
        job = LoadJob(
            host=str(address.hostname),
            port=int(address.port or 80),
            path=f"/{endpoint}/{server.model}",
            headers={**headers, **(_NO_EXPLANATION if peer == PLAIN else {})},
            body=str(self.photo),
            connections=connections,
            seconds=self.plan.seconds if requests is None else None,
            requests=requests,
            warmup=self.plan.warmup if warmup is None else warmup,
            expect={PLAIN: "predictions", STOCK: ""}.get(peer, "explanations"),
        )
        meter = CpuMeter({name: each.cpu_seconds for name, each in self.servers.items()})
        result = load_generator.run_in_subprocess(job, on_interval)
        cores = meter.cores()
        self.notes.other_cores.append(cores["others"])
        idle = [cores[name] for name in self.servers if name != server.name]
        self.notes.idle_cores = max([self.notes.idle_cores, *idle])
        label = f"{peer} {endpoint}, {connections} connection{'s' if connections > 1 else ''}"
        for reason, count in result.failures.items():
            self.notes.failures[f"{label}: {reason}"] += count
        self.log(f"{label}: {result.throughput:.1f}/s, p50 {result.p50:.0f} ms")
        return result
