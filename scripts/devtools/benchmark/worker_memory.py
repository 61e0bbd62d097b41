"""How much memory workers use at most, and whether that grows with the requests they answer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from devtools.measurements import percentile, slope
from devtools.processes import MB, process_tree


@dataclass(frozen=True)
class MemoryUnderLoad:
    """The memory of workers under load, from when they had warmed up.

    Attributes:
        requests: how many were answered.
        begin, end: resident memory of all workers together in MB, medians over the second and the
            last tenth of the time.
        slope: MB per 1000 requests, over all but the first tenth.
        samples: (requests answered, MB), from the first request to the last.
    """

    requests: int
    begin: float
    end: float
    slope: float
    samples: tuple[tuple[float, float], ...]


def peak(worker: psutil.Process) -> float:
    """The maximum resident memory in MB of a worker and its children since :func:`reset_peak`.

    It is the kernel's own count, which misses no moment.
    """
    return sum(_high_water(process.pid) for process in process_tree(worker))


def reset_peak(worker: psutil.Process) -> bool:
    """Have :func:`peak` start again, so that what loading the model took is left out.

    Returns:
        False where the kernel does not permit it; then the peak is that of the process's life.
    """
    try:
        for process in process_tree(worker):
            # proc(5): 5 resets VmHWM to what is resident now.
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident(worker: psutil.Process) -> float:
    """The resident memory in MB of a worker and its children now."""
    total = 0
    for process in process_tree(worker):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / MB


def unique(worker: psutil.Process) -> float:
    """The memory in MB that ending a worker and its children would free now.

    Code and files that it shares with other processes, other workers among them, do not count.
    """
    return sum(process.memory_full_info().uss for process in process_tree(worker)) / MB


@dataclass
class ResidentMemorySampler:
    """Samples of the resident memory of workers, (seconds, MB)."""

    workers: Sequence[psutil.Process]
    started: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, float]] = field(default_factory=list)

    def sample(self) -> None:
        total = sum(resident(worker) for worker in self.workers)
        self.samples.append((time.monotonic() - self.started, total))


def memory_under_load(samples: Sequence[tuple[float, float]], requests: int) -> MemoryUnderLoad:
    """The memory over a number of requests, from samples (seconds, MB) taken meanwhile.

    It assumes that the requests were answered evenly over the time.
    """
    length = samples[-1][0] or 1.0
    by_requests = [(seconds / length * requests, used) for seconds, used in samples]
    shares = [answered / requests if requests else 0.0 for answered, _ in by_requests]
    memory = [used for _, used in by_requests]
    early = [used for share, used in zip(shares, memory, strict=True) if 0.1 <= share <= 0.2]
    late = [used for share, used in zip(shares, memory, strict=True) if share >= 0.9]
    warm = [point for share, point in zip(shares, by_requests, strict=True) if share >= 0.1]
    return MemoryUnderLoad(
        requests,
        percentile(early or memory[:1], 0.5),
        percentile(late, 0.5),
        slope([answered for answered, _ in warm], [used for _, used in warm]) * 1000,
        tuple(by_requests),
    )


def _high_water(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status").read_text()
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) * 1024 / MB
    return 0.0
