"""Metrics that are added up between emissions, and written as Prometheus' counters."""

from __future__ import annotations

import math
import time
from threading import Event
from typing import Any

import pytest

from camserve.errors import RequestError
from camserve.metrics import BUCKETS, MetricTotals, PeriodicEmission
from camserve.request_log import ExplanationRecord, PhotoSize, RequestRecord


def record(
    *photos: PhotoSize, errors: tuple[RequestError, ...] = (), evidence: bool = True
) -> RequestRecord:
    explanations = tuple(ExplanationRecord("gradcam", "predicted", evidence) for _ in photos)
    status = 400 if errors else 200
    return RequestRecord("id", "http", "plain", status, errors, photos, explanations)


def taken(totals: MetricTotals) -> dict[tuple[Any, ...], float]:
    """The increases by name and the values of labels."""
    return {(one.name, *one.labels.values()): one.value for one in totals.take()}


def test_requests_and_explanations_are_counted_by_label() -> None:
    totals = MetricTotals()
    photo = PhotoSize(1000, 100)
    batch = [
        record(photo),
        record(photo, evidence=False),
        record(errors=(RequestError("invalid_option", ""),)),
    ]
    totals.add_batch(batch, {})
    totals.add_batch(batch, {})
    found = taken(totals)
    assert found["camserve_requests_total", "answered", "none"] == 4
    assert found["camserve_requests_total", "refused", "invalid_option"] == 2
    assert found["camserve_explanations_total", "gradcam", "predicted"] == 4
    assert found["camserve_maps_without_evidence_total", "gradcam"] == 2
    assert found["camserve_batch_photos_sum",] == 4
    assert found["camserve_batch_photos_count",] == 2
    # They are increases: nothing is told twice.
    assert taken(totals) == {}


@pytest.mark.parametrize("name", BUCKETS)
def test_buckets_rise_and_count_all_up_to_their_bound(name: str) -> None:
    bounds = BUCKETS[name]
    assert list(bounds) == sorted(set(bounds))
    totals = MetricTotals()
    values = [bounds[0], bounds[1], (bounds[1] + bounds[2]) / 2, bounds[-1], bounds[-1] * 2]
    totals._observe(name, values)
    found = taken(totals)
    buckets = {float(labels[0]): value for (series, *labels), value in found.items() if labels}
    assert set(buckets) == {*bounds, math.inf}
    assert buckets[bounds[0]] == 1
    assert buckets[bounds[1]] == 2
    assert buckets[bounds[2]] == 3
    assert buckets[bounds[-1]] == 4
    assert buckets[math.inf] == found[f"{name}_count",] == len(values)
    assert found[f"{name}_sum",] == pytest.approx(sum(values))


def test_buckets_part_what_operators_ask_about() -> None:
    told_apart: dict[str, list[float]] = {
        "camserve_photo_pixels": [1e6, 4000 * 3000, 6000 * 4000, 8192 * 6144],
        "camserve_batch_photos": [1, 2, 4, 8, 16, 32, 64],
        "camserve_stage_seconds": [0.0001, 0.001, 0.01, 0.1, 1, 10],
        "camserve_photo_bytes": [50_000, 500_000, 5_000_000, 19_000_000],
    }
    for name, values in told_apart.items():
        places = [min(bound for bound in BUCKETS[name] if value <= bound) for value in values]
        assert len(set(places)) == len(values)


def test_stages_are_observed_by_name() -> None:
    totals = MetricTotals()
    totals.add_batch([record()], {"read": 0.0001, "forward": 0.02})
    found = taken(totals)
    assert found["camserve_stage_seconds_bucket", "read", "0.0001"] == 1
    assert found["camserve_stage_seconds_bucket", "forward", "0.025"] == 1
    assert ("camserve_stage_seconds_bucket", "forward", "0.01") not in found
    assert found["camserve_stage_seconds_sum", "forward"] == pytest.approx(0.02)


def test_emissions_are_gathered_and_the_last_is_not_forgotten() -> None:
    emitted: list[float] = []
    emission = PeriodicEmission(lambda: emitted.append(time.monotonic()), interval=0.2)
    for _ in range(50):
        emission.request()
    begin = time.monotonic()
    while not emitted:
        assert time.monotonic() - begin < 10
        time.sleep(0.01)
    time.sleep(0.5)
    assert len(emitted) == 1
    emission.request()
    emission.stop()
    while len(emitted) < 2:
        assert time.monotonic() - begin < 10
        time.sleep(0.01)


def test_an_emission_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    failed, done = Event(), Event()

    def emit() -> None:
        if failed.is_set():
            done.set()
            return
        failed.set()
        raise OSError("stdout is closed")

    emission = PeriodicEmission(emit, interval=0.01)
    emission.request()
    assert failed.wait(10)
    emission.request()
    assert done.wait(10)
    emission.stop()
    assert "metrics could not be emitted" in caplog.text
