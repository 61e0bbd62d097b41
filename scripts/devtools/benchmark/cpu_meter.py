"""How busy the machine is during a measurement, and with what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import psutil


class CpuMeter:
    """How many cores this machine's processes use on average, from when it is made.

    Args:
        parts: by name, a function that returns the processor seconds which a part of the benchmark
            has used so far. The benchmark's own process, with its children that have ended, is
            always one of the parts.
    """

    def __init__(self, parts: Mapping[str, Callable[[], float]] | None = None) -> None:
        self._parts = {"bench": lambda: sum(os.times()[:4]), **(parts or {})}
        self._before = self._read()

    def cores(self) -> dict[str, float]:
        """By part, in cores; ``others`` is what belongs to no part of the benchmark."""
        now = self._read()
        used = {name: now[name] - self._before[name] for name in now}
        clock, total = used.pop("clock"), used.pop("all")
        used["others"] = max(total - sum(used.values()), 0.0)
        return {name: seconds / clock for name, seconds in used.items()}

    def _read(self) -> dict[str, float]:
        times = psutil.cpu_times()
        # Linux counts the time of guests in the user's time, too.
        busy = (
            sum(times)
            - times.idle
            - sum(getattr(times, name, 0.0) for name in ("iowait", "guest", "guest_nice"))
        )
        parts = {name: read() for name, read in self._parts.items()}
        return {**parts, "all": busy, "clock": time.monotonic()}
