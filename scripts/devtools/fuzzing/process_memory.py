"""The server's processes while it is under load: who lives, and how much memory each holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from benchmark.figures import percentile, slope
from benchmark.memory import MB

#: Minutes of load below which growth cannot be told from warming up.
WARM = 2.0
#: In MB, and as a share of what is held: twice what allocators' arenas were seen to come and go by.
#: Of 700 MB, 2.5 KB that each request leaves behind pass it in 20 minutes of 25 requests a second.
ALLOWED_MB, ALLOWED_SHARE = 30.0, 0.05
#: Of Java: its heap swells and shrinks as it is collected.
ALLOWED_JAVA_MB = 100.0


@dataclass(frozen=True)
class Sample:
    """Memory in MB; of the workers together.

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


def workers(pid: int) -> dict[int, float]:
    """The workers of a Java process by id, each with its start time."""
    found = {}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                if any("model_service_worker" in word for word in process.cmdline()):
                    found[process.pid] = process.create_time()
    return found


@dataclass
class Watch:
    """Samples a server whenever it is called, and counts the workers that are gone."""

    pid: int
    started: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    deaths: int = 0

    def __post_init__(self) -> None:
        self._known = workers(self.pid)

    def __call__(self) -> None:
        now = workers(self.pid)
        self.deaths += len(self._known.items() - now.items())
        self._known = now
        held = [0.0, 0.0, 0.0]
        java = 0.0
        with suppress(psutil.Error):
            for worker in now:
                memory = psutil.Process(worker).memory_full_info()
                for place, value in enumerate((memory.rss, memory.pss, memory.uss)):
                    held[place] += value / MB
            java = psutil.Process(self.pid).memory_info().rss / MB
            rss, pss, uss = held
            self.samples.append(Sample(time.monotonic() - self.started, rss, pss, uss, java))


@dataclass(frozen=True)
class Growth:
    """What became of memory over the latter two thirds of a run.

    Attributes:
        begin, end: MB, medians of the first and the last quarter of that time.
        slope: MB a minute, by least squares.
        allowed: MB.
        told: long enough to tell.
        grew: both the medians and the slope say that it grew by more than is allowed.
    """

    begin: float
    end: float
    slope: float
    allowed: float
    told: bool
    grew: bool


def growth(samples: Sequence[Sample]) -> Growth:
    """How the workers' unique memory grew."""
    return _growth([(one.seconds, one.uss) for one in samples], ALLOWED_MB)


def java_growth(samples: Sequence[Sample]) -> Growth:
    """How Java's resident memory grew."""
    return _growth([(one.seconds, one.java) for one in samples], ALLOWED_JAVA_MB)


def _growth(held: Sequence[tuple[float, float]], least: float) -> Growth:
    """How memory grew, of (seconds, MB).

    A leak lifts the last quarter over the first and the line through all of them; a peak that is
    given back, or one step of an allocator, moves one of the two.
    """
    length = held[-1][0] if held else 0.0
    late = [(seconds, megabytes) for seconds, megabytes in held if seconds >= length / 3]
    if len(late) < 4:
        return Growth(0, 0, 0, least, False, False)
    quarter = len(late) // 4
    of = [megabytes for _, megabytes in late]
    begin, end = percentile(of[:quarter], 0.5), percentile(of[-quarter:], 0.5)
    minutes = [seconds / 60 for seconds, _ in late]
    per_minute = slope(minutes, of)
    allowed = max(least, ALLOWED_SHARE * begin)
    told = length / 60 >= WARM
    over = min(end - begin, per_minute * (minutes[-1] - minutes[0]))
    return Growth(begin, end, per_minute, allowed, told, told and over > allowed)
