"""Where the time of one request goes, from the metrics of the running server."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from camserve.runtime import STAGES
from devtools.benchmark.load_rig import EXPLAINED, LoadRig

#: The time that neither the handler's stages nor the queue account for.
REST = "TorchServe, and the way there and back"


@dataclass(frozen=True)
class StageTime:
    """A stage of a request, and its mean time in ms."""

    stage: str
    ms: float


def profile_request(rig: LoadRig) -> list[StageTime]:
    """The mean time of each stage at one connection; their sum is the mean latency.

    At one connection a batch is one request, so a batch's stages are that request's.
    """
    server = rig.servers["ours"]
    before = _read_sums(server.metrics)
    # Nothing but what is measured may run between the two readings of the metrics.
    result = rig.measure(EXPLAINED, 1, warmup=0)
    after = _read_sums(server.metrics)
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    # The server has answered one more than the window counts: the one in flight at its end.
    requests = spent["count"]
    times = [StageTime("queue", spent["queue"] / requests / 1000)]
    times += [StageTime(stage, spent[stage] / requests * 1000) for stage in STAGES]
    mean_latency = sum(result.latencies) / len(result.latencies)
    return [*times, StageTime(REST, mean_latency - sum(time.ms for time in times))]


def _read_sums(address: str) -> dict[str, float]:
    """Seconds so far by stage, ``queue`` in microseconds, and the ``count`` of batches."""
    text = httpx.get(f"{address}/metrics").text
    sums = {
        stage: float(value)
        for stage, value in re.findall(r'^StageTime_sum\{.*?Stage="(\w+)".*\} (\S+)', text, re.M)
    }
    queue = re.search(r"^ts_queue_latency_microseconds\{.*\} (\S+)", text, re.M)
    count = re.search(r'^StageTime_count\{.*?Stage="read".*\} (\S+)', text, re.M)
    return sums | {
        name: float(match[1]) if match else 0.0
        for name, match in (("queue", queue), ("count", count))
    }
