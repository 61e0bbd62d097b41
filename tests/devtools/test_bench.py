"""scripts/bench.py: what a smoke run prints, writes and leaves behind; never its speed."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import bench
from camserve.networks import openvino_backend
from camserve.runtime import STAGES, usable_cores
from camserve_cli.serving.sizing import worker_summary
from devtools.benchmark.request_profile import REST
from tests.support.scripts import ROOT, interruptible, run, two_cores

BENCH = (sys.executable, ROOT / "scripts" / "bench.py")


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes that name a folder."""
    lines = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line:
            lines.append(line)
    return lines


def left_in(scratch: Path) -> list[str]:
    """What a run left in its temporary directory, except for torch's cache."""
    return [path.name for path in scratch.iterdir() if not path.name.startswith("torchinductor")]


@dataclass(frozen=True)
class Smoke:
    """A smoke run: its folder for results, its temporary directory and its output."""

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


@pytest.mark.server
@pytest.mark.slow
def test_every_target_is_measured(smoke: Smoke) -> None:
    results = smoke.content["results"]
    assert [result["key"] for result in results] == [
        *("T1", "T2", "T3", "T4", "T5", "T5", "T5", "T5", "T5", "T6", "T6", "T7", "T7", "T7"),
        *("T8", "T8"),
        *("workers",) * (4 if usable_cores() > 1 else 0),
    ]
    for result in results:
        for summary in (result["ratio"], *result["measured"].values()):
            values = summary["values"]
            assert all(math.isfinite(value) and value > 0 for value in values)
            assert summary["low"] <= summary["median"] <= summary["high"]
            assert (summary["low"], summary["high"]) == (min(values), max(values))
        assert len(result["measured"]) == 2
        assert result["verdict"] in (("met", "missed") if result["bound"] else ("",))
        assert result["says"] in smoke.done.stdout
    bounds = {result["key"]: result["bound"] for result in reversed(results)}
    assert bounds | {"workers": None} == {
        "T1": 5, "T2": 200, "T3": 0.35, "T4": 0.9, "T5": 15, "T6": 0.3, "T7": 1.0, "T8": 3.3,
        "workers": None,
    }  # fmt: skip


@pytest.mark.server
@pytest.mark.slow
def test_no_request_fails_and_nothing_is_left_behind(smoke: Smoke) -> None:
    assert smoke.content["failures"] == {}
    assert "FAILED" not in smoke.done.stdout
    assert processes_of(smoke.scratch) == []
    assert left_in(smoke.scratch) == []


@pytest.mark.server
@pytest.mark.slow
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
    assert all(peak > 0 for peak in content["loading_peak_mb"].values())
    assert content["loading_peak_mb"].keys() == {"ours", "stock"}
    assert content["growth"]["requests"] == content["options"]["soak"]


@pytest.mark.server
@pytest.mark.slow
def test_the_profile_has_the_time_of_each_stage(smoke: Smoke) -> None:
    profile = smoke.content["profile_ms"]
    assert list(profile) == ["queue", *STAGES, REST]
    assert all(profile[stage] > 0 for stage in ("queue", *STAGES))
    # A request that comes alone waits at least maxBatchDelay.
    assert profile["queue"] >= smoke.content["max_batch_delay_ms"]["ours"] * 0.9


@pytest.mark.server
@pytest.mark.slow
def test_the_report_says_how_our_server_runs(smoke: Smoke) -> None:
    served = smoke.content["served"]
    assert served["arch"] == smoke.content["options"]["arch"]
    assert served["precision"] in ("float32", "bfloat16")
    assert served["compiled"] is (not openvino_backend.unavailable_reason())
    cores = usable_cores()
    assert served["workers"] == cores
    # The tests' environment limits each worker to one thread.
    mode = "compiled" if served["compiled"] else "eager"
    remark = rf"ours: {served['precision']}, {mode}.*, {worker_summary(cores, 1)}\n"
    assert re.search(remark, smoke.done.stdout)


@pytest.mark.server
@pytest.mark.slow
def test_workers_are_compared_with_threads(tmp_path: Path) -> None:
    with two_cores() as cores:
        options = ("--quick", "--only", "workers", "--repeat", "3", "--out", str(tmp_path))
        # An operator's environment, without the tests' limit to one thread.
        done = run(*map(str, BENCH), *options, OMP_NUM_THREADS=str(cores))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["failures"] == {}
    # On a single core there is nothing to compare.
    assert ("nothing to compare" in done.stderr) is (cores == 1)
    results = {result["says"].partition(",")[0]: result for result in content["results"]}
    descriptions = ["throughput at 16 connections", "latency at one connection"]
    descriptions += ["unique memory of all workers", "unique memory of the largest worker"]
    assert list(results) == (descriptions if cores > 1 else [])
    for result in results.values():
        assert list(result["measured"]) == ["2 workers of 1 thread", "1 worker of 2 threads"]
        assert result["ratio"]["low"] > 0
        assert len(result["ratio"]["values"]) == 3
    ratios = [results[name]["ratio"]["median"] for name in descriptions[2:] if results]
    # Two workers need twice the memory, each of them as much as the one.
    assert [round(ratio) for ratio in ratios] == ([2, 1] if cores > 1 else [])


@pytest.mark.server
@pytest.mark.slow
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
            grey = np.asarray(picture.convert("L"))
        assert grey.min() < 100 < grey.max()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short path: the names of the sockets in it are limited in length."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


@pytest.mark.server
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
        # Java, its launcher and a worker of each server.
        assert len(processes_of(scratch)) > 4
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert processes_of(scratch) == []
    assert left_in(scratch) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "T1,T9"], "--only T9: accepted are T1, T2, T3, T4, T5, T6, T7, T8, batches"),
        (["--delays", "1,soon"], "--delays '1,soon': accepted are whole numbers and commas"),
        (["--quick", "--arch", "resnet"], "--arch resnet: Unknown model resnet"),
        (["--quick", "--set", "batchSizes=2"], "unknown key 'batchSizes'"),
    ],
)
def test_wrong_options_are_reported(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
