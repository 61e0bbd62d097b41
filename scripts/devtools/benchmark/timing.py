"""Steps timed in this process, their windows interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from devtools.measurements import percentile

T = TypeVar("T")
Step = Callable[[], object]


def alternating_order(peers: Iterable[T], repetition: int) -> list[T]:
    """The peers in their order, reversed in every second repetition.

    So what one peer leaves behind for the next, a hot processor for instance, affects all of them.
    """
    return list(peers)[:: -1 if repetition % 2 else 1]


def time_interleaved(
    steps: Mapping[str, Step], repeat: int, seconds: float
) -> dict[str, list[float]]:
    """The time of each step in ms: for each repetition the median of some ``seconds`` of calls.

    Every step has a window in each repetition, the order reversed from one to the next.
    """
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repeat):
        for name in alternating_order(steps, repetition):
            times[name].append(_median_time(steps[name], seconds))
    return times


def _median_time(step: Step, seconds: float) -> float:
    step()  # The other steps may have evicted its data from the caches.
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1000)
    return percentile(times, 0.5)
