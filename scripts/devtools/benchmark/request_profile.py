"""Where the time of one request goes, as the running server's own metrics have it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from benchmark.rig import EXPLAINED, Rig
from camserve.runtime.stage_timer import STAGES

#: What neither the handler nor the queue accounts for.
REST = "TorchServe, and the way there and back"


@dataclass(frozen=True)
class Share:
    """A stage of a request, and its mean time in ms."""

    stage: str
    ms: float


def profile(rig: Rig) -> list[Share]:
    """Each stage's mean time at one connection; together they are the mean latency.

    At one connection a batch is one request, so a batch's stages are that request's.
    """
    side = rig.sides["ours"]
    before = _sums(side.metrics)
    # Nothing but what is measured may stand between the two readings of the metrics.
    window = rig.window(EXPLAINED, 1, warmup=0)
    after = _sums(side.metrics)
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    # The server has answered one more than the window counts: that which was under way at its end.
    requests = spent["count"]
    shares = [Share("queue", spent["queue"] / requests / 1000)]
    shares += [Share(stage, spent[stage] / requests * 1000) for stage in STAGES]
    whole = sum(window.latencies) / len(window.latencies)
    return [*shares, Share(REST, whole - sum(share.ms for share in shares))]


def _sums(address: str) -> dict[str, float]:
    """Seconds so far by stage, microseconds in the queue, and how many batches that were."""
    text = httpx.get(f"{address}/metrics").text
    sums = {
        stage: float(value)
        for stage, value in re.findall(r'^StageTime_sum\{.*?Stage="(\w+)".*\} (\S+)', text, re.M)
    }
    queue = re.search(r"^ts_queue_latency_microseconds\{.*\} (\S+)", text, re.M)
    count = re.search(r'^StageTime_count\{.*?Stage="read".*\} (\S+)', text, re.M)
    return sums | {
        name: float(found[1]) if found else 0.0
        for name, found in (("queue", queue), ("count", count))
    }
