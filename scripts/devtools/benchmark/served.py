"""T1 to T4 and T7: the two TorchServes under load, one at a time, in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmark import memory
from benchmark.figures import Result, Target, compared
from benchmark.networks import delay_of, delayed
from benchmark.rig import EXPLAINED, PLAIN, STOCK, Rig
from benchmark.servers import Side

T1 = Target("T1", "throughput, ours with explanation / stock prediction", ">=", 5)
T2 = Target("T2", "throughput, ours with explanation / stock /explanations", ">=", 200)
T3 = Target("T3", "latency at one connection, ours / stock prediction", "<=", 0.35)
T4 = Target("T4", "throughput, ours with explanation / ours without", ">=", 0.9)
T7 = Target("T7", "peak memory of the largest worker, ours / stock", "<=", 1.0)
T7_ALL = Target("T7", "peak memory of all workers together, ours / stock")
T7_GROWTH = Target("T7", "memory after / before", "<=", 1.02)

#: A candidate this near to the best one, and with a shorter delay, is as good.
_AS_GOOD = 0.97


@dataclass(frozen=True)
class Candidate:
    """A maxBatchDelay in ms that was tried: requests/s at 16 connections, ms at one."""

    delay: int
    throughput: float
    p50: float


@dataclass(frozen=True)
class Point:
    """A point of the curves: requests/s, ms, ms."""

    peer: str
    connections: int
    throughput: float
    p50: float
    p99: float


Starter = Callable[[Path, Path, Path], AbstractContextManager[Side]]


def best_delay(
    start: Starter,
    archive: Path,
    delays: Sequence[int],
    rig: Callable[[Side], Rig],
    folder: Path,
    photo: Path,
) -> tuple[Path, int, list[Candidate]]:
    """The archive with the maxBatchDelay that gives the most requests/s at 16 connections.

    Of several that are as good, the shortest: it is the better one at one connection.

    Returns:
        The archive to serve, its delay in ms, and what was tried.
    """
    if not delays:
        return archive, delay_of(archive), []
    archives = {delay: delayed(archive, delay) for delay in sorted(delays)}
    if len(archives) == 1:
        ((only, copy),) = archives.items()
        return copy, only, []
    tried = []
    for delay, copy in archives.items():
        with start(copy, photo, folder / copy.stem) as side:
            trial = rig(side)
            trial.say(f"{side.name} with maxBatchDelay {delay}")
            peer = STOCK if side.name == "stock" else EXPLAINED
            full, single = trial.window(peer), trial.window(peer, 1)
        tried.append(Candidate(delay, full.throughput, single.p50))
    best = fastest(tried)
    return archives[best], best, tried


def fastest(tried: Sequence[Candidate]) -> int:
    """The delay with the most requests/s, or a shorter one that is as good."""
    most = max(one.throughput for one in tried)
    return next(one.delay for one in tried if one.throughput >= _AS_GOOD * most)


def compare(rig: Rig, chosen: set[str]) -> list[Result]:
    """T1, T3, T4 and T7's peak, as far as they are chosen, each window in turn."""
    throughput: dict[str, list[float]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, list[float]] = defaultdict(list)
    together: dict[str, list[float]] = defaultdict(list)
    full = [
        peer
        for peer, keys in ((EXPLAINED, {"T1", "T4", "T7"}), (STOCK, {"T1", "T7"}), (PLAIN, {"T4"}))
        if keys & chosen
    ]
    single = [EXPLAINED, STOCK] if "T3" in chosen else []
    for repetition in range(rig.plan.repeat):
        # What one peer leaves behind for the next, a hot processor say, falls on both.
        order = slice(None, None, -1 if repetition % 2 else 1)
        for peer in full[order]:
            side = rig.sides["stock" if peer == STOCK else "ours"]
            workers = side.workers()
            rig.journal.loading.setdefault(side.name, max(map(memory.peak, workers)))
            for worker in workers:
                memory.reset_peak(worker)
            throughput[peer].append(rig.window(peer).throughput)
            held = [memory.peak(worker) for worker in workers]
            peaks[peer].append(max(held))
            together[peer].append(sum(held))
        for peer in single[order]:
            latency[peer].append(rig.window(peer, 1).p50)
    sides = [
        ("T1", T1, "requests/s", throughput, EXPLAINED, STOCK),
        ("T3", T3, "ms", latency, EXPLAINED, STOCK),
        ("T4", T4, "requests/s", throughput, EXPLAINED, PLAIN),
        ("T7", T7, "MB", peaks, EXPLAINED, STOCK),
        ("T7", T7_ALL, "MB", together, EXPLAINED, STOCK),
    ]
    return [
        compared(target, unit, (above, found[above]), (below, found[below]))
        for key, target, unit, found, above, below in sides
        if key in chosen
    ]


def gradients(rig: Rig) -> Result:
    """T2. It comes last: what integrated gradients take of memory, a worker may keep."""
    ours, stock = [], []
    rig.window(STOCK, 1, call="explanations", requests=1, warmup=0)
    for _ in range(rig.plan.repeat):
        ours.append(rig.window(EXPLAINED).throughput)
        # One at a time: eight of them with 15 steps each would be one batch of 120 photos.
        found = rig.window(STOCK, 1, call="explanations", requests=rig.plan.gradients, warmup=0)
        stock.append(found.throughput)
    return compared(T2, "requests/s", (EXPLAINED, ours), ("stock /explanations", stock))


def curves(rig: Rig) -> list[Point]:
    """Throughput and latency of each peer against the number of connections."""
    points = []
    for connections in rig.plan.connections:
        for peer in (EXPLAINED, PLAIN, STOCK):
            window = rig.window(peer, connections)
            points.append(Point(peer, connections, window.throughput, window.p50, window.p99))
    return points


def soak(rig: Rig) -> memory.Growth:
    """T7's growth: our workers' memory over many requests at 16 connections."""
    watch = memory.Watch(rig.sides["ours"].workers())
    watch()
    window = rig.window(EXPLAINED, requests=rig.plan.soak, warmup=0, tick=watch)
    watch()
    return memory.growth(watch.samples, len(window.latencies))


def flatness(growth: memory.Growth) -> Result:
    """T7: what the memory was after the requests, over what it was once the workers were warm."""
    return compared(T7_GROWTH, "MB", ("after", [growth.end]), ("warm", [growth.begin]))
