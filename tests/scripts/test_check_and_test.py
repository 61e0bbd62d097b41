"""scripts/check and scripts/test.sh, each run on a small project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripts import ROOT


def project(folder: Path, script: str, files: dict[str, str]) -> Path:
    """A project with one of the scripts and some files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / script, folder / "scripts" / script)
    return folder


def run(folder: Path, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """A script's exit status and all that it says."""
    # Of a suite that is measured itself, or runs in several processes, nothing is passed on.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COV_", "COVERAGE", "PYTEST"))
    }
    done = subprocess.run(
        ["/bin/bash", folder / "scripts" / script, *arguments],
        env={**inherited, "VENV": sys.prefix, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


CHECKED = """
[tool.mypy]
strict = true
files = ["handler/camserve"]
[tool.importlinter]
root_packages = ["camserve"]
[[tool.importlinter.contracts]]
name = "one knows nothing of two"
type = "forbidden"
source_modules = ["camserve.one"]
forbidden_modules = ["camserve.two"]
"""
FAULTY = """import os
from camserve import two
number: int = two.text
spaced =   1
"""


def test_check_tells_every_fault_and_repairs_what_it_can(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": CHECKED,
        "handler/camserve/__init__.py": "",
        "handler/camserve/one.py": FAULTY,
        "handler/camserve/two.py": 'text = "two"\n',
    }
    folder = project(tmp_path, "check", files)
    one = folder / "handler" / "camserve" / "one.py"

    types, imports = "Incompatible types in assignment", "one knows nothing of two BROKEN"
    status, said = run(folder, "check")
    assert status == 1
    for fault in ("would be reformatted", "`os` imported but unused", types, imports):
        assert fault in said
    assert one.read_text() == FAULTY

    status, said = run(folder, "check", "--fix")
    assert status == 1
    assert types in said
    assert imports in said
    repaired = one.read_text()
    assert "os" not in repaired
    assert "spaced = 1\n" in repaired

    one.write_text("spaced = 1\n")
    assert run(folder, "check")[0] == 0


def test_check_says_what_is_wanting(tmp_path: Path) -> None:
    folder = project(tmp_path, "check", {})
    assert run(folder, "check", "--format") == (2, "usage: scripts/check [--fix]\n")
    status, said = run(folder, "check", VENV=str(tmp_path / "nothing"))
    assert status == 2
    assert "bash scripts/setup.sh --dev" in said


MEASURED = """
[tool.pytest.ini_options]
pythonpath = ["handler"]
testpaths = ["tests"]
markers = ["slow", "env"]
[tool.coverage.run]
branch = true
source = ["handler"]
[tool.coverage.report]
fail_under = 90
"""
CODE = """
def name(number):
    if number == 1:
        return "one"
    if number == 2:
        return "two"
    return "many"
"""
TESTS = """
import pytest
import code_under_test

def test_plain():
    assert code_under_test.name(1) == "one"

@pytest.mark.slow
def test_slow():
    assert code_under_test.name(2) == "two"

@pytest.mark.env
def test_env():
    assert code_under_test.name(3) == "many"
"""
SHORT = "Required test coverage of 90.0% not reached"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of three tests, whose coverage is short of the floor unless all three run."""
    files = {
        "pyproject.toml": MEASURED,
        "handler/code_under_test.py": CODE,
        "tests/test_it.py": TESTS,
        "scripts/setup.sh": "",
        "scripts/check": "#!/bin/sh\n",
    }
    folder = project(tmp_path_factory.mktemp("suite"), "test.sh", files)
    (folder / "scripts" / "check").chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 1, ["1 passed", SHORT]),
        (["--all"], 0, ["3 passed", "Required test coverage of 90.0% reached"]),
        (["tests/test_it.py", "-n0", "-v"], 0, ["1 passed", "test_plain"]),
        (["-n0", "-v", "-m", "slow"], 0, ["1 passed", "test_slow"]),
        (["-n0", "--all", "-k", "slow or env"], 0, ["2 passed"]),
    ],
)
def test_test_chooses_by_marks_and_measures_a_whole_run(
    suite: Path, arguments: list[str], status: int, told: list[str]
) -> None:
    ended, said = run(suite, "test.sh", *arguments)
    assert ended == status, said
    for line in told:
        assert line in said
    assert (SHORT in said) == (status == 1)


def test_test_ends_where_a_check_fails(suite: Path) -> None:
    (suite / "scripts" / "check").write_text("#!/bin/sh\necho no; exit 1\n")
    assert run(suite, "test.sh") == (1, "no\n")
