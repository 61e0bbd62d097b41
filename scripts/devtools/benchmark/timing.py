"""Steps timed in this process, each in turn with the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from benchmark.figures import percentile

Step = Callable[[], object]


def alternate(steps: Mapping[str, Step], repeat: int, seconds: float) -> dict[str, list[float]]:
    """The time of each step in ms, in each repetition the median of some ``seconds`` of calls.

    Every step has a window in each repetition, the order reversed from one to the next.
    """
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repeat):
        for name in list(steps)[:: -1 if repetition % 2 else 1]:
            found[name].append(_window(steps[name], seconds))
    return found


def _window(step: Step, seconds: float) -> float:
    step()  # Its data may have left the caches.
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1000)
    return percentile(times, 0.5)
