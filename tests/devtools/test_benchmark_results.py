"""How measurements become results, worked out by hand: goals, growth, report; and what is sent."""

from __future__ import annotations

import json
import math
import zipfile
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from devtools.benchmark.archives import batch_delay, with_batch_delay
from devtools.benchmark.goals import Goal, goal_result
from devtools.benchmark.load_rig import RunNotes
from devtools.benchmark.report import BenchReport, format_number
from devtools.benchmark.sample_photos import small_photo
from devtools.benchmark.served import DelayChoice, DelayTrial, LoadPoint, best_delay
from devtools.benchmark.timing import time_interleaved
from devtools.benchmark.worker_memory import memory_under_load


@pytest.mark.parametrize(
    ("sense", "bound", "measured", "status"),
    [
        (">=", 5, 5.0, "met"),
        (">=", 5, 4.99, "missed"),
        ("<=", 0.35, 0.35, "met"),
        ("<=", 0.35, 0.36, "missed"),
        ("<=", None, 1.0, ""),
        (">=", 5, math.nan, "missed"),
    ],
)
def test_a_goal_is_met_or_missed(
    sense: Any, bound: float | None, measured: float, status: str
) -> None:
    assert Goal("T1", "a / b", sense, bound).status(measured) == status


def test_the_windows_of_the_steps_are_interleaved() -> None:
    called: list[str] = []
    steps = {name: partial(called.append, name) for name in "ab"}
    times = time_interleaved(steps, repeat=2, seconds=0)
    # Each once to warm up; then for each window one call that is not timed and one that is.
    assert "".join(called) == "ab" + "aabb" + "bbaa"
    assert [len(times[name]) for name in "ab"] == [2, 2]
    assert all(time >= 0 for of_step in times.values() for time in of_step)


def test_memory_growth_leaves_the_warm_up_out() -> None:
    # One MB a second, 100 requests a second.
    samples = [(float(second), 100.0 + second) for second in range(11)]
    memory = memory_under_load(samples, 1000)
    assert (memory.begin, memory.end) == pytest.approx((101.5, 109.5))
    assert memory.slope == pytest.approx(10)
    assert memory.samples[1] == pytest.approx((100, 101))
    # Growth in the first tenth is warming up.
    flat = memory_under_load([(0, 50), (0.5, 80), *((float(s), 100.0) for s in range(1, 11))], 1000)
    assert (flat.begin, flat.end, flat.slope) == (100, 100, 0)


def test_the_shortest_delay_that_is_as_good_is_chosen() -> None:
    trials = [DelayTrial(1, 18.0, 50), DelayTrial(10, 19.5, 60), DelayTrial(50, 20.0, 99)]
    assert best_delay(trials) == 10
    assert best_delay(trials[:1]) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (5.678, "5.68"), (45.67, "45.7"), (123.4, "123"), (12345.0, "12345")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert format_number(value) == text


MACHINE = {"processor": "Abacus", "cores": 2, "flags": ["amx_bf16"], "versions": {"torch": "9"}}


def report_with(**failures: int) -> BenchReport:
    """Two results, the later goal first."""
    report = BenchReport(MACHINE, {"arch": "tiny", "repeat": 2, "quick": False}, RunNotes())
    report.notes.failures.update(failures)
    report.notes.other_cores += [0.5, 0.1, 0.2]
    report.delays["ours"] = DelayChoice(Path("ours.mar"), 10, [])
    for goal, ours in ((Goal("T3", "c / d", "<=", 0.35), 2), (Goal("T1", "a / b"), 6)):
        report.results.append(goal_result(goal, "ms", ("x", [ours, ours]), ("y", [2, 4])))
    return report


def printed(report: BenchReport) -> str:
    console = Console(width=200, record=True, file=StringIO())
    report.show(console)
    return console.export_text()


def test_the_table_has_ratio_spread_goal_and_status() -> None:
    text = printed(report_with())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    rows = [row for row in rows if row]
    assert rows == [
        ["T1", "a / b", "2.25", "1.50 .. 3.00", "", "", "6.00 / 3.00 ms"],
        ["T3", "c / d", "0.750", "0.500 .. 1.00", "<= 0.35", "missed", "2.00 / 3.00 ms"],
    ]
    assert "Abacus, 2 cores, amx_bf16; torch 9; tiny; medians" in text
    assert "maxBatchDelay: ours 10 ms" in text
    assert "other processes used 0.20 cores (median of the windows), 0.50 at most" in text
    assert "FAILED" not in text


def test_failures_are_printed_and_written(tmp_path: Path) -> None:
    report = report_with(**{"stock, 16 connections: status 503": 7})
    report.points.append(LoadPoint("stock", 16, 0.0, math.nan, math.nan))
    text = printed(report)
    assert "REQUESTS FAILED" in text
    assert "7 x stock, 16 connections: status 503" in text
    content = json.loads(report.write(tmp_path).read_text())
    assert content["failures"] == {"stock, 16 connections: status 503": 7}
    assert [result["key"] for result in content["results"]] == ["T1", "T3"]
    assert content["results"][1]["ratio"]["values"] == [1, 0.5]
    assert content["connections"][0]["p50"] is None


def test_an_archive_with_another_delay(tmp_path: Path) -> None:
    archive = tmp_path / "a.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("model-config.yaml", yaml.safe_dump({"batchSize": 8, "maxBatchDelay": 10}))
        packed.writestr("weights", b"\0\1")
    copy = with_batch_delay(archive, 50)
    assert (batch_delay(archive), batch_delay(copy)) == (10, 50)
    with zipfile.ZipFile(copy) as packed:
        assert packed.namelist() == ["model-config.yaml", "weights"]
        assert packed.read("weights") == b"\0\1"
        assert yaml.safe_load(packed.read("model-config.yaml"))["batchSize"] == 8


def test_the_small_photo(tmp_path: Path) -> None:
    path = small_photo(tmp_path)
    assert 45_000 < path.stat().st_size < 55_000
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("JPEG", (451, 300))
