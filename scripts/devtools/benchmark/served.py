"""T1 to T4 and T7: the two TorchServes under load, one at a time, their windows interleaved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from devtools.benchmark import worker_memory
from devtools.benchmark.archives import batch_delay, with_batch_delay
from devtools.benchmark.goals import Goal, GoalResult, goal_result
from devtools.benchmark.load_rig import EXPLAINED, PLAIN, STOCK, LoadRig
from devtools.benchmark.timing import alternating_order
from devtools.benchmark.worker_memory import MemoryUnderLoad, ResidentMemorySampler
from devtools.servers import ServerUnderTest

T1 = Goal("T1", "throughput, ours with explanation / stock prediction", ">=", 5)
T2 = Goal("T2", "throughput, ours with explanation / stock /explanations", ">=", 200)
T3 = Goal("T3", "latency at one connection, ours / stock prediction", "<=", 0.35)
T4 = Goal("T4", "throughput, ours with explanation / ours without", ">=", 0.9)
T7 = Goal("T7", "peak memory of the largest worker, ours / stock", "<=", 1.0)
T7_ALL = Goal("T7", "peak memory of all workers together, ours / stock")
T7_GROWTH = Goal("T7", "memory after / before", "<=", 1.02)

#: A delay with at least this share of the best throughput is as good as the best one.
_AS_GOOD = 0.97


@dataclass(frozen=True)
class DelayTrial:
    """A maxBatchDelay in ms that was tried.

    Attributes:
        throughput: requests/s at 16 connections.
        p50: median latency in ms at one connection.
    """

    delay: int
    throughput: float
    p50: float


@dataclass(frozen=True)
class DelayChoice:
    """The maxBatchDelay in ms that a server is measured with, and what was tried for it.

    Attributes:
        archive: the one that has this delay.
    """

    archive: Path
    delay: int
    trials: list[DelayTrial]


@dataclass(frozen=True)
class LoadPoint:
    """A point of the curves over the load: requests/s, ms, ms."""

    peer: str
    connections: int
    throughput: float
    p50: float
    p99: float


#: Starts a server with an archive: (archive, photo, folder) -> context manager.
Starter = Callable[[Path, Path, Path], AbstractContextManager[ServerUnderTest]]


def choose_delay(
    start: Starter,
    archive: Path,
    delays: Sequence[int],
    make_rig: Callable[[ServerUnderTest], LoadRig],
    folder: Path,
    photo: Path,
) -> DelayChoice:
    """Try an archive with several values of maxBatchDelay, and choose one by :func:`best_delay`.

    Args:
        delays: in ms; the archive's own where there are none.
        folder: for the servers' logs.
    """
    if not delays:
        return DelayChoice(archive, batch_delay(archive), [])
    archives = {delay: with_batch_delay(archive, delay) for delay in sorted(delays)}
    if len(archives) == 1:
        ((delay, copy),) = archives.items()
        return DelayChoice(copy, delay, [])
    trials = []
    for delay, copy in archives.items():
        with start(copy, photo, folder / copy.stem) as server:
            rig = make_rig(server)
            rig.log(f"{server.name} with maxBatchDelay {delay}")
            peer = STOCK if server.name == "stock" else EXPLAINED
            full, single = rig.measure(peer), rig.measure(peer, 1)
        trials.append(DelayTrial(delay, full.throughput, single.p50))
    best = best_delay(trials)
    return DelayChoice(archives[best], best, trials)


def best_delay(trials: Sequence[DelayTrial]) -> int:
    """The delay with the highest throughput; of several that are as good, the first.

    Trials are sorted by delay, and the shortest delay has the best latency at one connection.
    """
    highest = max(trial.throughput for trial in trials)
    return next(trial.delay for trial in trials if trial.throughput >= _AS_GOOD * highest)


def compare(rig: LoadRig, chosen: set[str]) -> list[GoalResult]:
    """Those of T1, T3, T4 and T7's peaks that are chosen, the windows of the peers interleaved."""
    throughput: dict[str, list[float]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    largest: dict[str, list[float]] = defaultdict(list)
    total: dict[str, list[float]] = defaultdict(list)
    under_full_load = [
        peer
        for peer, keys in ((EXPLAINED, {"T1", "T4", "T7"}), (STOCK, {"T1", "T7"}), (PLAIN, {"T4"}))
        if keys & chosen
    ]
    at_one_connection = [EXPLAINED, STOCK] if "T3" in chosen else []
    for repetition in range(rig.plan.repeat):
        for peer in alternating_order(under_full_load, repetition):
            server = rig.servers["stock" if peer == STOCK else "ours"]
            workers = server.workers()
            rig.notes.loading_peak.setdefault(server.name, max(map(worker_memory.peak, workers)))
            for worker in workers:
                worker_memory.reset_peak(worker)
            throughput[peer].append(rig.measure(peer).throughput)
            peaks = [worker_memory.peak(worker) for worker in workers]
            largest[peer].append(max(peaks))
            total[peer].append(sum(peaks))
        for peer in alternating_order(at_one_connection, repetition):
            latency[peer].append(rig.measure(peer, 1).p50)
    ratios = [
        (T1, "requests/s", throughput, EXPLAINED, STOCK),
        (T3, "ms", latency, EXPLAINED, STOCK),
        (T4, "requests/s", throughput, EXPLAINED, PLAIN),
        (T7, "MB", largest, EXPLAINED, STOCK),
        (T7_ALL, "MB", total, EXPLAINED, STOCK),
    ]
    return [
        goal_result(goal, unit, (above, values[above]), (below, values[below]))
        for goal, unit, values, above, below in ratios
        if goal.key in chosen
    ]


def compare_gradients(rig: LoadRig) -> GoalResult:
    """T2. It is measured last: a worker may keep the memory that integrated gradients need."""
    ours, stock = [], []
    rig.measure(STOCK, 1, endpoint="explanations", requests=1, warmup=0)
    for _ in range(rig.plan.repeat):
        ours.append(rig.measure(EXPLAINED).throughput)
        # One at a time: eight of them with 15 steps each would be one batch of 120 photos.
        replies = rig.plan.gradients
        result = rig.measure(STOCK, 1, endpoint="explanations", requests=replies, warmup=0)
        stock.append(result.throughput)
    return goal_result(T2, "requests/s", (EXPLAINED, ours), ("stock /explanations", stock))


def load_curve(rig: LoadRig) -> list[LoadPoint]:
    """Throughput and latency of each peer against the number of connections."""
    points = []
    for connections in rig.plan.connections:
        for peer in (EXPLAINED, PLAIN, STOCK):
            result = rig.measure(peer, connections)
            points.append(LoadPoint(peer, connections, result.throughput, result.p50, result.p99))
    return points


def measure_memory_growth(rig: LoadRig) -> MemoryUnderLoad:
    """T7's growth: our workers' memory over many requests at 16 connections."""
    sampler = ResidentMemorySampler(rig.servers["ours"].workers())
    sampler.sample()
    result = rig.measure(EXPLAINED, requests=rig.plan.soak, warmup=0, on_interval=sampler.sample)
    sampler.sample()
    return worker_memory.memory_under_load(sampler.samples, len(result.latencies))


def memory_growth_result(memory: MemoryUnderLoad) -> GoalResult:
    """T7: the memory after the requests, divided by that of the warm workers."""
    return goal_result(T7_GROWTH, "MB", ("after", [memory.end]), ("warm", [memory.begin]))
