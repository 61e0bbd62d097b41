"""Workers against threads: the same server with one worker for all cores, and with one for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmark import memory, photos, servers
from benchmark.figures import Result, Target, compared
from benchmark.rig import Journal, Plan, Rig
from camserve.runtime.cores import usable_cores
from camserve_cli.serving.sizing import worker_summary

ONE, SEVERAL = "one worker", "a worker for each core"
_KEY = "workers"
_THROUGHPUT = Target(_KEY, f"throughput at 16 connections, {SEVERAL} / {ONE}")
_LATENCY = Target(_KEY, f"latency at one connection, {SEVERAL} / {ONE}")
_ALL = Target(_KEY, f"unique memory of all workers, {SEVERAL} / {ONE}")
_LARGEST = Target(_KEY, f"unique memory of the largest worker, {SEVERAL} / {ONE}")


def compare(
    archive: Path, plan: Plan, journal: Journal, say: Callable[[str], None]
) -> list[Result]:
    """Start both servers, and measure them in turn; nothing where there is one core.

    Args:
        archive: that both serve; their logs go beside it.
        say: told what is measured.
    """
    cores = usable_cores()
    if cores == 1:
        say("workers: there is one core, and so nothing to compare")
        return []
    photo = photos.small(archive.parent)
    with ExitStack() as running:
        sides = []
        for name, count in ((ONE, 1), (SEVERAL, cores)):
            say(f"starting the server of {name}")
            folder = archive.parent / "servers" / f"workers-{count}"
            side = servers.ours(archive, photo, folder, workers=str(count), name=name)
            sides.append(running.enter_context(side))
        return _measure(Rig(sides, photo, plan, journal, say))


def _measure(rig: Rig) -> list[Result]:
    """Explained throughput, latency and memory of the servers ``ONE`` and ``SEVERAL``, in turn."""
    throughput: dict[str, list[float]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    together: dict[str, list[float]] = defaultdict(list)
    largest: dict[str, list[float]] = defaultdict(list)
    for repetition in range(rig.plan.repeat):
        # What one leaves behind for the other, a hot processor say, falls on both.
        for name in (ONE, SEVERAL)[:: -1 if repetition % 2 else 1]:
            throughput[name].append(rig.window(name).throughput)
            held = [memory.unique(worker) for worker in rig.sides[name].workers()]
            together[name].append(sum(held))
            largest[name].append(max(held))
            latency[name].append(rig.window(name, 1).p50)
    told = {
        name: worker_summary(side.described["workers"], side.described["threads"])
        for name, side in rig.sides.items()
    }
    return [
        compared(target, unit, (told[SEVERAL], found[SEVERAL]), (told[ONE], found[ONE]))
        for target, unit, found in (
            (_THROUGHPUT, "requests/s", throughput),
            (_LATENCY, "ms", latency),
            (_ALL, "MB", together),
            (_LARGEST, "MB", largest),
        )
    ]
