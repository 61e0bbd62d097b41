"""How much memory workers take at most, and whether that grows with the requests they answer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmark.figures import percentile, slope

MB = 1e6


@dataclass(frozen=True)
class Growth:
    """What became of workers' memory under load, once they had warmed up.

    Attributes:
        requests: how many were answered.
        begin, end: resident memory in MB of all together, medians over the second tenth of the time
            and the last.
        slope: MB per 1000 requests, over all but the first tenth.
        samples: (requests answered, MB), from the first request to the last.
    """

    requests: int
    begin: float
    end: float
    slope: float
    samples: tuple[tuple[float, float], ...]


def peak(worker: psutil.Process) -> float:
    """The most resident memory, in MB, that a worker held since :func:`reset_peak`.

    The kernel's own count, which misses no moment. What the worker itself started counts, too.
    """
    return sum(_high_water(process.pid) for process in _family(worker))


def reset_peak(worker: psutil.Process) -> bool:
    """Let :func:`peak` begin anew, so that what loading took is left out.

    Returns:
        False where the kernel does not let us; then the peak is that of the whole life.
    """
    try:
        for process in _family(worker):
            # proc(5): 5 resets VmHWM to what is resident now.
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident(worker: psutil.Process) -> float:
    """The memory in MB that a worker, with what it started, holds now."""
    held = 0
    for process in _family(worker):
        with suppress(psutil.NoSuchProcess):
            held += process.memory_info().rss
    return held / MB


def unique(worker: psutil.Process) -> float:
    """The memory in MB that would be free without a worker, with what it started, now.

    Code and files that it shares with other processes, other workers among them, do not count.
    """
    return sum(process.memory_full_info().uss for process in _family(worker)) / MB


@dataclass
class Watch:
    """Samples workers' memory whenever it is called."""

    workers: Sequence[psutil.Process]
    started: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self) -> None:
        held = sum(resident(worker) for worker in self.workers)
        self.samples.append((time.monotonic() - self.started, held))


def growth(samples: Sequence[tuple[float, float]], requests: int) -> Growth:
    """What samples (seconds, MB), taken while so many requests were answered, come to.

    Requests are taken to have been answered evenly over the time.
    """
    length = samples[-1][0] or 1.0
    counted = [(seconds / length * requests, held) for seconds, held in samples]
    shares = [answered / requests if requests else 0.0 for answered, _ in counted]
    of = [held for _, held in counted]
    early = [held for share, held in zip(shares, of, strict=True) if 0.1 <= share <= 0.2]
    late = [held for share, held in zip(shares, of, strict=True) if share >= 0.9]
    warm = [one for share, one in zip(shares, counted, strict=True) if share >= 0.1]
    return Growth(
        requests,
        percentile(early or of[:1], 0.5),
        percentile(late, 0.5),
        slope([answered for answered, _ in warm], [held for _, held in warm]) * 1000,
        tuple(counted),
    )


def _family(worker: psutil.Process) -> list[psutil.Process]:
    return [worker, *worker.children(recursive=True)]


def _high_water(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status").read_text()
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) * 1024 / MB
    return 0.0
