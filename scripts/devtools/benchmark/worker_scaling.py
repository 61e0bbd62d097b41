"""Workers against threads: the same server with one worker for all cores, and with one for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from camserve.runtime import usable_cores
from camserve_cli.serving.sizing import worker_summary
from devtools.benchmark import worker_memory
from devtools.benchmark.goals import Goal, GoalResult, goal_result
from devtools.benchmark.load_rig import LoadRig, RunNotes
from devtools.benchmark.plan import MeasurementPlan
from devtools.benchmark.sample_photos import small_photo
from devtools.benchmark.timing import alternating_order
from devtools.servers import camserve_server

ONE, SEVERAL = "one worker", "a worker for each core"
_KEY = "workers"
_THROUGHPUT = Goal(_KEY, f"throughput at 16 connections, {SEVERAL} / {ONE}")
_LATENCY = Goal(_KEY, f"latency at one connection, {SEVERAL} / {ONE}")
_ALL = Goal(_KEY, f"unique memory of all workers, {SEVERAL} / {ONE}")
_LARGEST = Goal(_KEY, f"unique memory of the largest worker, {SEVERAL} / {ONE}")


def compare(
    archive: Path, plan: MeasurementPlan, notes: RunNotes, log: Callable[[str], None]
) -> list[GoalResult]:
    """Start both servers and measure them in turn; no results on a machine with one core.

    Args:
        archive: served by both; their logs go beside it.
        log: called with a line on each measurement.
    """
    cores = usable_cores()
    if cores == 1:
        log("workers: there is one core, and so nothing to compare")
        return []
    photo = small_photo(archive.parent)
    with ExitStack() as running:
        servers = []
        for name, count in ((ONE, 1), (SEVERAL, cores)):
            log(f"starting the server of {name}")
            folder = archive.parent / "servers" / f"workers-{count}"
            server = camserve_server(archive, photo, folder, workers=str(count), name=name)
            servers.append(running.enter_context(server))
        return _measure(LoadRig(servers, photo, plan, notes, log))


def _measure(rig: LoadRig) -> list[GoalResult]:
    """Explained throughput, latency and memory of the servers ``ONE`` and ``SEVERAL``, in turn."""
    throughput: dict[str, list[float]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    total: dict[str, list[float]] = defaultdict(list)
    largest: dict[str, list[float]] = defaultdict(list)
    for repetition in range(rig.plan.repeat):
        for name in alternating_order((ONE, SEVERAL), repetition):
            throughput[name].append(rig.measure(name).throughput)
            memory = [worker_memory.unique(worker) for worker in rig.servers[name].workers()]
            total[name].append(sum(memory))
            largest[name].append(max(memory))
            latency[name].append(rig.measure(name, 1).p50)
    labels = {
        name: worker_summary(server.description["workers"], server.description["threads"])
        for name, server in rig.servers.items()
    }
    return [
        goal_result(goal, unit, (labels[SEVERAL], values[SEVERAL]), (labels[ONE], values[ONE]))
        for goal, unit, values in (
            (_THROUGHPUT, "requests/s", throughput),
            (_LATENCY, "ms", latency),
            (_ALL, "MB", total),
            (_LARGEST, "MB", largest),
        )
    ]
