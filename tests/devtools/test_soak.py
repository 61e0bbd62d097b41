"""scripts/soak.py: a smoke run's shape; what it calls growth, worked out by hand."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import soak
from soaking.report import Report
from soaking.traffic import Tally
from soaking.vitals import Sample, growth, java_growth
from tests.support.scripts import COLOURS, ROOT, run

SOAK = (sys.executable, ROOT / "scripts" / "soak.py")


def test_a_smoke_run(store: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "t"
    scratch.mkdir()
    archive = store / f"{COLOURS}.mar"
    options = ("--minutes", "0.1", "--connections", "4", "--archive", archive, "--out", tmp_path)
    done = run(*SOAK, "soak", *options, TMPDIR=str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "soak.json").read_text())
    assert content["failures"] == []
    assert content["worker_deaths"] == content["problems"] == 0
    assert content["good"] > content["requests"] / 2
    assert 0 < content["latency_ms"]["p50"] <= content["latency_ms"]["p99"]
    assert all(one["java"] > 0 and one["uss"] > 0 for one in content["samples"])
    assert content["growth"]["told"] is False
    assert "passed" in done.stdout
    with Image.open(tmp_path / "soak.png") as picture:
        assert picture.format == "PNG"
    assert not list(scratch.glob("soak-*"))


def test_no_archive_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none.mar")
    monkeypatch.setattr(sys, "argv", ["soak.py", "fuzz", "--archive", missing])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 1
    assert "no archive" in capsys.readouterr().err


def samples(*held: float) -> list[Sample]:
    """One every ten seconds."""
    return [Sample(10.0 * n, one, one, one, 100) for n, one in enumerate(held)]


@pytest.mark.parametrize(
    ("held", "grew"),
    [
        ([500.0] * 60, False),
        # Warming up counts for nothing.
        ([100.0] * 19 + [500.0] * 41, False),
        # A leak of 2 MB a sample.
        ([500.0 + 2 * n for n in range(60)], True),
        # A peak that is given back.
        ([500.0] * 40 + [900.0] * 3 + [500.0] * 17, False),
        # 12 MB over the latter two thirds are an allocator's.
        ([500.0 + 0.3 * n for n in range(60)], False),
        # Too short to tell.
        ([500.0 + 20 * n for n in range(10)], False),
    ],
)
def test_growth(held: list[float], grew: bool) -> None:
    assert growth(samples(*held)).grew is grew
    # Of Java, 100 MB come and go.
    java = [Sample(10.0 * n, 100, 100, 100, one) for n, one in enumerate(held)]
    assert not java_growth(java).grew
    steep = [Sample(10.0 * n, 100, 100, 100, 5 * one) for n, one in enumerate(held)]
    assert java_growth(steep).grew is grew


def test_every_failure_is_named(tmp_path: Path) -> None:
    leak = samples(*(500.0 + 5 * n for n in range(60)))
    tally = Tally(1, tmp_path, problems=2)
    steep = [replace(one, java=2 * one.uss) for one in leak]
    report = Report({}, {}, 600, tally, 1, leak, growth(leak), java_growth(steep))
    wrong, ended, unanswered, grown, java = report.failures
    assert wrong == "2 wrong answers"
    assert ended == "1 workers ended"
    assert unanswered == "no good photo was answered"
    assert grown.startswith("the workers' memory grew from")
    assert java.startswith("Java's memory grew from")
    assert json.loads(report.write(tmp_path / "r.json").read_text())["failures"] == report.failures
