"""The model's metrics under Prometheus' conventions, added up between two emissions.

TorchServe's own histograms have fixed buckets, from 0.005 to 10. So a histogram is emitted as the
counters that it consists of in Prometheus' format: ``_bucket`` with the label ``le``, ``_sum`` and
``_count``. These are many; emitted for each batch, they would delay its replies.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final

from camserve.request_log import RequestRecord

logger = logging.getLogger("camserve")

#: Upper bounds of the buckets of each histogram; above them all is ``+Inf``. Stages take from
#: 0.1 ms to a request's timeout; photos of phones have 12, 24 or 50 megapixels.
BUCKETS: Final[Mapping[str, tuple[float, ...]]] = {
    "camserve_stage_seconds": (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
        5, 10, 60,
    ),
    "camserve_batch_photos": (1, 2, 4, 8, 16, 32, 64),
    "camserve_photo_pixels": (
        100_000, 300_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 12_500_000, 16_000_000,
        24_500_000, 36_000_000, 50_500_000,
    ),
    "camserve_photo_bytes": (
        10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 12_000_000,
        16_000_000, 20_000_000, 28_000_000,
    ),
}  # fmt: skip
#: Seconds between two emissions.
INTERVAL: Final = 1.0

#: A name, and its labels in the order in which metrics.yaml declares them.
_Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class CounterIncrease:
    """By how much a counter has grown since the last emission.

    Attributes:
        name, labels: as metrics.yaml declares them, without those that every metric has.
    """

    name: str
    labels: Mapping[str, str]
    value: float


class MetricTotals:
    """Counters that threads add to, until their increases are taken."""

    def __init__(self) -> None:
        self._counts: Counter[_Series] = Counter()
        self._sums: defaultdict[_Series, float] = defaultdict(float)
        #: The number of values in each bucket alone, by the bucket's place in BUCKETS.
        self._buckets: Counter[tuple[_Series, int]] = Counter()
        self._lock = Lock()

    def add_batch(
        self, records: Sequence[RequestRecord], stage_seconds: Mapping[str, float]
    ) -> None:
        """Add the requests of a batch, and the seconds that it spent in each stage."""
        photos = [photo for record in records for photo in record.photos]
        explanations = [one for record in records for one in record.explanations]
        with self._lock:
            for record in records:
                self._count("requests", outcome=record.outcome, code=record.code)
            for one in explanations:
                self._count("explanations", method=one.method, target_kind=one.target_kind)
                if not one.evidence:
                    self._count("maps_without_evidence", method=one.method)
            for stage, seconds in stage_seconds.items():
                self._observe("camserve_stage_seconds", [seconds], stage=stage)
            self._observe("camserve_batch_photos", [len(photos)])
            self._observe("camserve_photo_pixels", [photo.pixels for photo in photos])
            self._observe("camserve_photo_bytes", [photo.file_bytes for photo in photos])

    def take(self) -> list[CounterIncrease]:
        """The increases since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            sums, self._sums = self._sums, defaultdict(float)
            alone, self._buckets = self._buckets, Counter()
        up_to: Counter[_Series] = Counter()
        for ((name, labels), place), count in alone.items():
            for bound in [*map(_bound_text, BUCKETS[name]), "+Inf"][place:]:
                up_to[f"{name}_bucket", (*labels, ("le", bound))] += count
        return [
            CounterIncrease(name, dict(labels), value)
            for (name, labels), value in [*counts.items(), *sums.items(), *up_to.items()]
        ]

    def _count(self, name: str, **labels: str) -> None:
        self._counts[f"camserve_{name}_total", tuple(labels.items())] += 1

    def _observe(self, name: str, values: Iterable[float], **labels: str) -> None:
        series = tuple(labels.items())
        for value in values:
            self._buckets[(name, series), bisect_left(BUCKETS[name], value)] += 1
            self._sums[f"{name}_sum", series] += value
            self._counts[f"{name}_count", series] += 1


class PeriodicEmission:
    """Calls a function in a thread of its own, at most once in an interval, after a request for it.

    What was requested last is emitted an interval later, even if nothing follows. An exception of
    the function is logged and ends nothing.

    Args:
        emit: to call.
        interval: in seconds.
    """

    def __init__(self, emit: Callable[[], None], interval: float = INTERVAL) -> None:
        self._emit = emit
        self._interval = interval
        self._requested = Event()
        self._stopped = Event()
        Thread(target=self._run, name="metrics", daemon=True).start()

    def request(self) -> None:
        """Have the function called within the interval."""
        self._requested.set()

    def stop(self) -> None:
        """End the thread after what was requested."""
        self._stopped.set()
        self._requested.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._requested.wait()
            self._stopped.wait(self._interval)
            self._requested.clear()
            try:
                self._emit()
            except Exception:
                logger.exception("metrics could not be emitted")


def _bound_text(bound: float) -> str:
    """A bound as Prometheus writes it: without an exponent, and with a decimal point."""
    return f"{float(bound):f}".rstrip("0") + "0" * float(bound).is_integer()
