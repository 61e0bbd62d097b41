"""The server's processes under load: which workers live, and how much memory they use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from devtools.measurements import percentile, slope
from devtools.processes import MB, worker_processes

#: Minutes of load below which growth cannot be told from warming up.
MIN_MINUTES = 2.0
#: Growth of the workers' memory that is allowed, in MB and as a share of what they use: twice the
#: fluctuation that was seen from the arenas of allocators. Of 700 MB, a leak of 2.5 KB a request
#: exceeds it in 20 minutes of 25 requests a second.
ALLOWED_MB, ALLOWED_SHARE = 30.0, 0.05
#: Of Java: its heap grows and shrinks with garbage collection.
ALLOWED_JAVA_MB = 100.0


@dataclass(frozen=True)
class MemorySample:
    """Memory in MB; that of the workers is their sum.

    Attributes:
        seconds: since the start.
        rss, pss, uss: resident, proportional and unique memory of the workers.
        java: resident memory of the Java process.
    """

    seconds: float
    rss: float
    pss: float
    uss: float
    java: float


@dataclass
class MemorySampler:
    """Samples the memory of a server's processes, and counts the workers that ended meanwhile.

    Args:
        pid: of the Java process.
    """

    pid: int
    started: float = field(default_factory=time.monotonic)
    samples: list[MemorySample] = field(default_factory=list)
    worker_deaths: int = 0

    def __post_init__(self) -> None:
        self._alive = set(worker_processes(self.pid))

    def sample(self) -> None:
        """Take a sample; none where a process ends meanwhile."""
        workers = worker_processes(self.pid)
        # psutil compares processes by id and start time.
        self.worker_deaths += len(self._alive - set(workers))
        self._alive = set(workers)
        with suppress(psutil.Error):
            used = [worker.memory_full_info() for worker in workers]
            rss, pss, uss = (
                sum(getattr(memory, name) for memory in used) / MB for name in ("rss", "pss", "uss")
            )
            java = psutil.Process(self.pid).memory_info().rss / MB
            seconds = time.monotonic() - self.started
            self.samples.append(MemorySample(seconds, rss, pss, uss, java))


@dataclass(frozen=True)
class MemoryGrowth:
    """How memory changed over the last two thirds of a run.

    Attributes:
        begin, end: MB, medians of the first and the last quarter of that time.
        slope: MB a minute, by least squares.
        allowed: MB.
        conclusive: the run was long enough to tell growth.
        grew: both the medians and the slope say that it grew by more than is allowed.
    """

    begin: float
    end: float
    slope: float
    allowed: float
    conclusive: bool
    grew: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "begin": self.begin,
            "end": self.end,
            "slope": self.slope,
            "allowed": self.allowed,
            "told": self.conclusive,
            "grew": self.grew,
        }


def worker_growth(samples: Sequence[MemorySample]) -> MemoryGrowth:
    """How the workers' unique memory grew."""
    return _growth([(sample.seconds, sample.uss) for sample in samples], ALLOWED_MB)


def java_growth(samples: Sequence[MemorySample]) -> MemoryGrowth:
    """How Java's resident memory grew."""
    return _growth([(sample.seconds, sample.java) for sample in samples], ALLOWED_JAVA_MB)


def _growth(memory: Sequence[tuple[float, float]], min_allowed: float) -> MemoryGrowth:
    """The growth of memory given as (seconds, MB).

    A leak raises the median of the last quarter over that of the first, and the line fitted through
    all samples. A peak that is given back, or one step of an allocator, moves only one of the two.
    """
    length = memory[-1][0] if memory else 0.0
    late = [(seconds, megabytes) for seconds, megabytes in memory if seconds >= length / 3]
    if len(late) < 4:
        return MemoryGrowth(0, 0, 0, min_allowed, False, False)
    quarter = len(late) // 4
    values = [megabytes for _, megabytes in late]
    begin, end = percentile(values[:quarter], 0.5), percentile(values[-quarter:], 0.5)
    minutes = [seconds / 60 for seconds, _ in late]
    per_minute = slope(minutes, values)
    allowed = max(min_allowed, ALLOWED_SHARE * begin)
    conclusive = length / 60 >= MIN_MINUTES
    growth = min(end - begin, per_minute * (minutes[-1] - minutes[0]))
    return MemoryGrowth(
        begin, end, per_minute, allowed, conclusive, conclusive and growth > allowed
    )
