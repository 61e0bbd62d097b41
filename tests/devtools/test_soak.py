"""scripts/soak.py: what a smoke run writes; when memory counts as growing, worked out by hand."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import soak
from devtools.fuzzing.process_memory import MemorySample, java_growth, worker_growth
from devtools.fuzzing.report import FuzzReport
from devtools.fuzzing.results import FuzzResults
from tests.support.scripts import COLOR_MODEL, ROOT, run

SOAK = (sys.executable, ROOT / "scripts" / "soak.py")


@pytest.mark.server
def test_a_smoke_run(store: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "t"
    scratch.mkdir()
    archive = store / f"{COLOR_MODEL}.mar"
    options = ("--minutes", "0.1", "--connections", "4", "--archive", archive, "--out", tmp_path)
    done = run(*SOAK, "soak", *options, TMPDIR=str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "soak.json").read_text())
    assert content["failures"] == []
    # The archive is the constructed network's, so each valid photo's class was checked.
    assert content["options"]["predicts_color"] is True
    assert content["worker_deaths"] == content["problems"] == 0
    assert content["good"] > content["requests"] / 2
    assert 0 < content["latency_ms"]["p50"] <= content["latency_ms"]["p99"]
    assert all(sample["java"] > 0 and sample["uss"] > 0 for sample in content["samples"])
    assert content["growth"]["told"] is False
    assert "passed" in done.stdout
    with Image.open(tmp_path / "soak.png") as picture:
        assert picture.format == "PNG"
    assert not list(scratch.glob("soak-*"))


def test_a_missing_archive_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none.mar")
    monkeypatch.setattr(sys, "argv", ["soak.py", "fuzz", "--archive", missing])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 1
    assert "no archive" in capsys.readouterr().err


def samples_of(*memory: float) -> list[MemorySample]:
    """One every ten seconds, in MB."""
    return [MemorySample(10.0 * n, mb, mb, mb, 100) for n, mb in enumerate(memory)]


@pytest.mark.parametrize(
    ("memory", "grew"),
    [
        ([500.0] * 60, False),
        # Warming up does not count.
        ([100.0] * 19 + [500.0] * 41, False),
        # A leak of 2 MB a sample.
        ([500.0 + 2 * n for n in range(60)], True),
        # A peak that is given back.
        ([500.0] * 40 + [900.0] * 3 + [500.0] * 17, False),
        # 12 MB over the last two thirds are an allocator's fluctuation.
        ([500.0 + 0.3 * n for n in range(60)], False),
        # The run is too short to tell.
        ([500.0 + 20 * n for n in range(10)], False),
    ],
)
def test_memory_growth(memory: list[float], grew: bool) -> None:
    samples = samples_of(*memory)
    assert worker_growth(samples).grew is grew
    # Java's heap may fluctuate by 100 MB.
    assert not java_growth([replace(sample, java=sample.uss) for sample in samples]).grew
    steep = [replace(sample, java=5 * sample.uss) for sample in samples]
    assert java_growth(steep).grew is grew


def test_every_failure_is_named(tmp_path: Path) -> None:
    leak = samples_of(*(500.0 + 5 * n for n in range(60)))
    results = FuzzResults(1, tmp_path, problems=2)
    steep = [replace(sample, java=2 * sample.uss) for sample in leak]
    report = FuzzReport({}, {}, 600, results, 1, leak, worker_growth(leak), java_growth(steep))
    wrong, ended, unanswered, grown, java = report.failures
    assert wrong == "2 wrong answers"
    assert ended == "1 workers ended"
    assert unanswered == "no valid photo was answered"
    assert grown.startswith("the workers' memory grew from")
    assert java.startswith("Java's memory grew from")
    assert json.loads(report.write(tmp_path / "r.json").read_text())["failures"] == report.failures
