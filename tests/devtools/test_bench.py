"""scripts/bench.py: a smoke run's shape, never its speed; its arithmetic, worked out by hand."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image
from rich.console import Console

import bench
from benchmark import load, photos
from benchmark.figures import Summary, Target, compared, percentile, ratio, slope
from benchmark.load import Job, LoadError
from benchmark.memory import growth
from benchmark.networks import delay_of, delayed
from benchmark.profile import REST
from benchmark.report import Report, number
from benchmark.rig import Journal
from benchmark.through import Candidate, Point, fastest
from benchmark.timing import alternate
from camserve.networks import openvino_backend
from camserve.runtime.cores import usable_cores
from camserve.runtime.stage_timer import STAGES
from camserve_cli.serving.sizing import worker_summary
from tests.support.scripts import ROOT, interruptible, run, two_cores

BENCH = (sys.executable, ROOT / "scripts" / "bench.py")


def running(folder: Path) -> list[str]:
    """The command lines that speak of a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line:
            found.append(line)
    return found


def left_in(scratch: Path) -> list[str]:
    """What a run left in its temporary directory, but for the cache that torch keeps there."""
    return [path.name for path in scratch.iterdir() if not path.name.startswith("torchinductor")]


@dataclass(frozen=True)
class Smoke:
    """A smoke run: its folder for results, its own temporary directory and what it said."""

    out: Path
    scratch: Path
    done: subprocess.CompletedProcess[str]

    @property
    def content(self) -> Any:
        return json.loads((self.out / "bench.json").read_text())


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    out, scratch = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("tmp")
    with two_cores():
        done = run(*map(str, BENCH), "--quick", "--out", out / "new", TMPDIR=str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    return Smoke(out / "new", scratch, done)


def test_every_target_is_measured(smoke: Smoke) -> None:
    results = smoke.content["results"]
    assert [result["key"] for result in results] == [
        *("T1", "T2", "T3", "T4", "T5", "T5", "T5", "T5", "T5", "T6", "T6", "T7", "T7", "T7"),
        *("workers",) * (4 if usable_cores() > 1 else 0),
    ]
    for result in results:
        for one in (result["ratio"], *result["measured"].values()):
            assert all(math.isfinite(value) and value > 0 for value in one["values"])
            assert one["low"] <= one["median"] <= one["high"]
            assert (one["low"], one["high"]) == (min(one["values"]), max(one["values"]))
        assert len(result["measured"]) == 2
        assert result["verdict"] in (("met", "missed") if result["bound"] else ("",))
        assert result["says"] in smoke.done.stdout
    bounds = {result["key"]: result["bound"] for result in reversed(results)}
    assert bounds | {"workers": None} == {
        "T1": 5, "T2": 200, "T3": 0.35, "T4": 0.9, "T5": 15, "T6": 0.3, "T7": 1.0, "workers": None
    }  # fmt: skip


def test_no_request_failed_and_nothing_is_left_behind(smoke: Smoke) -> None:
    assert smoke.content["failures"] == {}
    assert "FAILED" not in smoke.done.stdout
    assert running(smoke.scratch) == []
    assert left_in(smoke.scratch) == []


def test_the_results_say_what_they_were_measured_on(smoke: Smoke) -> None:
    content = smoke.content
    machine = content["machine"]
    assert machine["processor"]
    assert machine["processor"] in smoke.done.stdout
    assert machine["cores"] >= 1
    for package in ("torch", "torchvision", "torchserve", "grad-cam", "captum"):
        assert machine["versions"][package][0].isdigit()
    assert content["options"]["quick"] is True
    assert content["max_batch_delay_ms"].keys() == {"ours", "stock"}
    assert all(held > 0 for held in content["loading_peak_mb"].values())
    assert content["loading_peak_mb"].keys() == {"ours", "stock"}
    assert content["growth"]["requests"] == content["options"]["soak"]


def test_one_request_is_told_stage_by_stage(smoke: Smoke) -> None:
    profile = smoke.content["profile_ms"]
    assert list(profile) == ["queue", *STAGES, REST]
    assert all(profile[stage] > 0 for stage in ("queue", *STAGES))
    # Its own delay is the least that a lone request waits.
    assert profile["queue"] >= smoke.content["max_batch_delay_ms"]["ours"] * 0.9


def test_how_the_server_runs_is_told(smoke: Smoke) -> None:
    served = smoke.content["served"]
    assert served["arch"] == smoke.content["options"]["arch"]
    assert served["precision"] in ("float32", "bfloat16")
    assert served["compiled"] is (not openvino_backend.unavailable_reason())
    cores = usable_cores()
    assert served["workers"] == cores
    # The tests' environment lets each compute in one.
    how = "compiled" if served["compiled"] else "eager"
    remark = rf"ours: {served['precision']}, {how}.*, {worker_summary(cores, 1)}\n"
    assert re.search(remark, smoke.done.stdout)


def test_workers_are_compared_with_threads(tmp_path: Path) -> None:
    with two_cores() as cores:
        options = ("--quick", "--only", "workers", "--repeat", "3", "--out", str(tmp_path))
        # As an operator has it, rather than the tests' one thread.
        done = run(*map(str, BENCH), *options, OMP_NUM_THREADS=str(cores))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["failures"] == {}
    # With one core there is nothing to compare, and it says so.
    assert ("nothing to compare" in done.stderr) is (cores == 1)
    results = {result["says"].partition(",")[0]: result for result in content["results"]}
    whats = ["throughput at 16 connections", "latency at one connection"]
    whats += ["unique memory of all workers", "unique memory of the largest worker"]
    assert list(results) == (whats if cores > 1 else [])
    for result in results.values():
        assert list(result["measured"]) == ["2 workers of 1 thread", "1 worker of 2 threads"]
        assert result["ratio"]["low"] > 0
        assert len(result["ratio"]["values"]) == 3
    ratios = [results[what]["ratio"]["median"] for what in whats[2:] if results]
    # Two workers are two; each of them is one.
    assert [round(ratio) for ratio in ratios] == ([2, 1] if cores > 1 else [])


def test_the_curves_and_their_plots(smoke: Smoke) -> None:
    content = smoke.content
    options = content["options"]
    points = [(point["connections"], point["peer"]) for point in content["connections"]]
    assert points == [
        (connections, peer)
        for connections in options["connections"]
        for peer in ("ours with explanation", "ours without", "stock")
    ]
    assert all(0 < point["p50"] <= point["p99"] for point in content["connections"])
    assert sorted({point["size"] for point in content["batches"]}) == options["sizes"]
    assert len({point["peer"] for point in content["batches"]}) == 4
    for name in ("throughput.png", "batch.png"):
        with Image.open(smoke.out / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 600
            low, high = picture.convert("L").getextrema()
        assert low < 100 < high


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short name: sockets lie in it, and theirs must be."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


def test_an_interrupt_stops_both_servers(scratch: Path, tmp_path: Path) -> None:
    command = [*map(str, BENCH), "--quick", "--only", "T1", "--out", str(tmp_path / "out")]
    with interruptible(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if "16 connections" in line:
                break
        # Java, its launcher and a worker of each.
        assert len(running(scratch)) > 4
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert running(scratch) == []
    assert left_in(scratch) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "T1,T9"], "--only T9: accepted are T1, T2, T3, T4, T5, T6, T7, batches"),
        (["--delays", "1,soon"], "--delays '1,soon': accepted are whole numbers and commas"),
        (["--quick", "--arch", "resnet"], "--arch resnet: Unknown model resnet"),
        (["--quick", "--set", "batchSizes=2"], "unknown key 'batchSizes'"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([4, 1, 3, 2], 0.5, 2.5),
        ([3, 1, 2], 0.5, 2),
        ([7], 0.99, 7),
        (list(range(101)), 0.99, 99),
        ([10, 20], 0.25, 12.5),
    ],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_slopes() -> None:
    assert slope([0, 1, 2], [1, 3, 5]) == pytest.approx(2)
    # Deviations from the means (1, 2): -1 * -1 + 0 * -1 + 1 * 2 = 3, over 1 + 0 + 1.
    assert slope([0, 1, 2], [1, 1, 4]) == pytest.approx(1.5)
    assert slope([3, 3], [1, 5]) == 0


def test_a_ratio_is_taken_repetition_by_repetition() -> None:
    # The medians' own ratio would be 20 / 4.
    assert ratio([10, 30, 20], [4, 5, 2]) == Summary(6, 2.5, 10, (2.5, 6, 10))
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])


@pytest.mark.parametrize(
    ("sense", "bound", "measured", "verdict"),
    [
        (">=", 5, 5.0, "met"),
        (">=", 5, 4.99, "missed"),
        ("<=", 0.35, 0.35, "met"),
        ("<=", 0.35, 0.36, "missed"),
        ("<=", None, 1.0, ""),
        (">=", 5, math.nan, "missed"),
    ],
)
def test_verdicts(sense: Any, bound: float | None, measured: float, verdict: str) -> None:
    assert Target("T1", "a / b", sense, bound).verdict(measured) == verdict


def test_steps_are_timed_in_turn() -> None:
    called = []
    steps = {name: partial(called.append, name) for name in "ab"}
    times = alternate(steps, repeat=2, seconds=0)
    # Each once to warm up; then for each window one call that is not timed, and one that is.
    assert "".join(called) == "ab" + "aabb" + "bbaa"
    assert [len(times[name]) for name in "ab"] == [2, 2]
    assert all(time >= 0 for of_step in times.values() for time in of_step)


def test_growth_is_told_from_where_the_worker_is_warm() -> None:
    # A MB per second, 100 requests a second.
    samples = [(float(second), 100.0 + second) for second in range(11)]
    grown = growth(samples, 1000)
    assert (grown.begin, grown.end) == (pytest.approx(101.5), pytest.approx(109.5))
    assert grown.slope == pytest.approx(10)
    assert grown.samples[1] == (pytest.approx(100), 101)
    # What only the first tenth takes is warming up.
    flat = growth([(0, 50), (0.5, 80), *((float(s), 100.0) for s in range(1, 11))], 1000)
    assert (flat.begin, flat.end, flat.slope) == (100, 100, 0)


def test_the_shortest_delay_that_is_as_good_is_chosen() -> None:
    tried = [Candidate(1, 18.0, 50), Candidate(10, 19.5, 60), Candidate(50, 20.0, 99)]
    assert fastest(tried) == 10
    assert fastest(tried[:1]) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (5.678, "5.68"), (45.67, "45.7"), (123.4, "123"), (12345.0, "12345")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


MACHINE = {"processor": "Abacus", "cores": 2, "flags": ["amx_bf16"], "versions": {"torch": "9"}}


def report(**failures: int) -> Report:
    """Two results, the later target first."""
    found = Report(MACHINE, {"arch": "tiny", "repeat": 2, "quick": False}, Journal())
    found.journal.failures.update(failures)
    found.journal.others += [0.5, 0.1, 0.2]
    found.delays["ours"] = 10
    for target, ours in ((Target("T3", "c / d", "<=", 0.35), 2), (Target("T1", "a / b"), 6)):
        found.results.append(compared(target, "ms", ("x", [ours, ours]), ("y", [2, 4])))
    return found


def shown(found: Report) -> str:
    console = Console(width=200, record=True, file=StringIO())
    found.show(console)
    return console.export_text()


def test_the_table_has_ratio_spread_target_and_verdict() -> None:
    text = shown(report())
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


def test_failures_are_said_loudly_and_written(tmp_path: Path) -> None:
    found = report(**{"stock, 16 connections: status 503": 7})
    found.points.append(Point("stock", 16, 0.0, math.nan, math.nan))
    text = shown(found)
    assert "REQUESTS FAILED" in text
    assert "7 x stock, 16 connections: status 503" in text
    content = json.loads(found.write(tmp_path).read_text())
    assert content["failures"] == {"stock, 16 connections: status 503": 7}
    assert [result["key"] for result in content["results"]] == ["T1", "T3"]
    assert content["results"][1]["ratio"]["values"] == [1, 0.5]
    assert content["connections"][0]["p50"] is None


def test_an_archive_with_another_delay(tmp_path: Path) -> None:
    archive = tmp_path / "a.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("model-config.yaml", yaml.safe_dump({"batchSize": 8, "maxBatchDelay": 10}))
        packed.writestr("weights", b"\0\1")
    copy = delayed(archive, 50)
    assert (delay_of(archive), delay_of(copy)) == (10, 50)
    with zipfile.ZipFile(copy) as packed:
        assert packed.namelist() == ["model-config.yaml", "weights"]
        assert packed.read("weights") == b"\0\1"
        assert yaml.safe_load(packed.read("model-config.yaml"))["batchSize"] == 8


def test_the_small_photo(tmp_path: Path) -> None:
    path = photos.small(tmp_path)
    assert 45_000 < path.stat().st_size < 55_000
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("JPEG", (451, 300))


ANSWERS = {
    "/good": (200, b'{"explanations": [1]}'),
    "/plain": (200, b'{"explanations": []}'),
    "/text": (200, b"good"),
    "/broken": (200, b'{"explanations": }'),
    "/busy": (503, b"{}"),
}


class Stub:
    """A server that answers by the path, and notes what it was sent."""

    def __init__(self) -> None:
        self.callers: set[int] = set()
        self.bodies: list[bytes] = []
        self.tokens: set[str | None] = set()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stub.callers.add(self.client_address[1])
                stub.tokens.add(self.headers["Authorization"])
                stub.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = ANSWERS[self.path]
                time.sleep(0.02)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    thread = Thread(target=stub.server.serve_forever)
    thread.start()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()
    thread.join()


@pytest.fixture
def job(stub: Stub, tmp_path: Path) -> Callable[..., Job]:
    """Makes a job for the stub."""
    body = tmp_path / "body"
    body.write_bytes(b"photo")

    def make(path: str = "/good", **options: Any) -> Job:
        given = {"port": stub.port, "expect": "explanations", "connections": 3, **options}
        return Job("127.0.0.1", path=path, headers={"Authorization": "x"}, body=str(body), **given)

    return make


def test_so_many_requests_over_connections_that_are_kept(
    stub: Stub, job: Callable[..., Job]
) -> None:
    window = load.drive(job(requests=12))
    assert len(window.latencies) == 12
    assert window.failures == {}
    assert all(20 <= latency < 5000 for latency in window.latencies)
    assert window.throughput == pytest.approx(12 / window.seconds)
    # Three at a time, four rounds of 20 ms.
    assert window.seconds >= 0.08
    assert len(stub.callers) == 3
    assert set(stub.bodies) == {b"photo"}
    assert stub.tokens == {"x"}
    assert window.p50 <= window.p99 <= max(window.latencies)


def test_a_window_of_time_leaves_the_warmup_out(stub: Stub, job: Callable[..., Job]) -> None:
    window = load.drive(job(seconds=0.3, warmup=0.3, connections=2))
    assert window.seconds == pytest.approx(0.3)
    assert 0 < len(window.latencies) <= 2 * (0.3 / 0.02 + 1)
    assert len(stub.bodies) > len(window.latencies)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/busy", "status 503"),
        ("/text", "a body that is no JSON"),
        ("/broken", "a body that is no JSON"),
        ("/plain", "a reply without explanations"),
    ],
)
def test_a_bad_reply_is_a_failure_and_no_latency(
    job: Callable[..., Job], path: str, reason: str
) -> None:
    window = load.drive(job(path, requests=4, connections=2))
    assert window.latencies == ()
    assert window.failures == {reason: 4}
    assert window.throughput == 0
    assert math.isnan(window.p50)


def test_a_refused_connection_is_a_failure(job: Callable[..., Job]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        window = load.drive(job(port=taken.getsockname()[1], requests=3))
    ((reason, count),) = window.failures.items()
    assert reason.startswith("ConnectionRefusedError")
    assert count == 3


def test_a_slow_reply_is_a_failure(job: Callable[..., Job]) -> None:
    window = load.drive(job(timeout=0.005, requests=2, connections=1))
    assert window.failures == {"TimeoutError: timed out": 2}


def test_the_load_runs_in_a_process_of_its_own(stub: Stub, job: Callable[..., Job]) -> None:
    ticks: list[float] = []
    window = load.run(job(seconds=0.5), tick=lambda: ticks.append(time.monotonic()), every=0.1)
    assert window.failures == {}
    assert window.latencies
    assert len(ticks) >= 2
    with pytest.raises(LoadError, match="No such file"):
        load.run(Job(**{**vars(job()), "body": "/nowhere"}))
