"""Which folder and which environment each shell script uses, from wherever it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.scripts import ROOT

NAMES = ("setup.sh", "quickstart.sh", "test.sh", "serve.sh", "check")
SCRIPTS = (*(f"scripts/{name}" for name in NAMES), ".ci/run")
#: Notes where it lies and in which folder it was started, and passes for Python 3.11.
PROGRAM = """#!/bin/bash
echo "$(readlink -f "$0") $PWD" >>"$LOG"
echo 3.11
"""
FILES = ("constraints.txt", "serve.txt", "quickstart.txt", "report.txt", "dev.txt")


def environment(folder: Path) -> None:
    """An environment whose programs only note that they were started."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        (folder / "bin" / name).write_text(PROGRAM)
        (folder / "bin" / name).chmod(0o755)


def clone(folder: Path, venv: str = ".venv") -> Path:
    """A copy of the scripts, with an environment."""
    environment(folder / venv)
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("*.py"))
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    (folder / "requirements").mkdir()
    for name in FILES:
        (folder / "requirements" / name).touch()
    (folder / "pyproject.toml").touch()
    return folder


def call(
    script: str | Path, *arguments: str, cwd: Path, **environment: str
) -> tuple[int, str, set[tuple[str, str]]]:
    """Run a script.

    Returns:
        Its exit status, all that it says, and the environment and the current folder of each
        program that it started.
    """
    log = cwd / "log"
    done = subprocess.run(
        ["/bin/bash", script, *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "LOG": str(log), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    lines = log.read_text().splitlines() if log.exists() else []
    started = (line.split(" ") for line in lines)
    return (
        done.returncode,
        done.stdout,
        {(str(Path(path).parent.parent), folder) for path, folder in started},
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_cdpath_leads_to_no_other_project(tmp_path: Path, script: str) -> None:
    mine, other = clone(tmp_path / "mine"), clone(tmp_path / "other")
    status, said, started = call(script, cwd=mine, CDPATH=str(other))
    assert (status, started) == (0, {(str(mine / ".venv"), str(mine))}), said


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_relative_environment_starts_at_the_clone(tmp_path: Path, script: str) -> None:
    mine, elsewhere = clone(tmp_path / "mine", "own"), tmp_path / "elsewhere"
    environment(elsewhere / "own")
    status, said, started = call(mine / script, cwd=elsewhere, VENV="own")
    assert (status, {venv for venv, _ in started}) == (0, {str(mine / "own")}), said


def test_serve_stays_in_the_current_folder(tmp_path: Path) -> None:
    mine, elsewhere = clone(tmp_path / "mine"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    _, _, started = call(mine / "scripts" / "serve.sh", cwd=elsewhere)
    assert started == {(str(mine / ".venv"), str(elsewhere))}


@pytest.mark.parametrize("script", ["serve.sh", "check"])
def test_without_an_environment_it_says_what_makes_one(tmp_path: Path, script: str) -> None:
    mine = clone(tmp_path)
    status, said, _ = call(mine / "scripts" / script, cwd=mine, VENV="nothing")
    assert status == 2
    assert "run: bash scripts/setup.sh" in said


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("setup.sh", ["--nonsense"]),
        ("setup.sh", ["--dev", "extra"]),
        ("setup.sh", ["--dev", "--nonsense"]),
        ("setup.sh", ["", "--nonsense"]),
        ("quickstart.sh", ["--nonsense"]),
        ("check", ["--fix", "extra"]),
    ],
)
def test_arguments_that_it_does_not_know_are_refused(
    tmp_path: Path, script: str, arguments: list[str]
) -> None:
    mine = clone(tmp_path)
    status, said, started = call(mine / "scripts" / script, *arguments, cwd=mine)
    assert (status, started) == (2, set())
    assert said.startswith("usage: ")


def test_an_environment_that_is_a_file_is_told(tmp_path: Path) -> None:
    mine = clone(tmp_path)
    (mine / "file").touch()
    (mine / "broken").symlink_to(mine / "nowhere")
    for venv in ("file", "broken"):
        status, said, _ = call(mine / "scripts" / "setup.sh", cwd=mine, VENV=venv)
        assert status == 1
        assert said == (
            f"setup: VENV={venv} is no folder; "
            "accepted: a virtual environment, or a path where nothing is.\n"
        )


def test_what_was_installed_is_noted_in_new_files(tmp_path: Path) -> None:
    mine = clone(tmp_path / "mine")
    shared = {}
    for name in ("serve", "quickstart", "report", "dev", "camserve"):
        other = tmp_path / name
        other.write_text("of another environment")
        stamp = mine / ".venv" / f".installed-{name}"
        os.link(other, stamp)
        shared[other] = stamp
    status, said, _ = call(mine / "scripts" / "setup.sh", "--dev", cwd=mine)
    assert status == 0, said
    for other, stamp in shared.items():
        assert other.read_text() == "of another environment"
        assert stamp.read_text() != "of another environment"
    names = {path.name for path in (mine / ".venv").iterdir()}
    assert names == {"bin", *(stamp.name for stamp in shared.values())}
