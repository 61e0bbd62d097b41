"""scripts/setup.sh: which Python it takes, and what it says of others."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.scripts import ROOT

SUPPORTED = ["3.11", "3.12", "3.13"]


def pretend(folder: Path, name: str, version: str) -> Path:
    """A program that answers as a Python of some version, and makes a venv of itself.

    What setup.sh asks a Python to run, it hands to the real one, whose version it first changes.
    """
    major, minor = version.split(".")
    program = folder / name
    program.write_text(
        "#!/bin/bash\n"
        f'if [ "$1 $2" = "-m venv" ]; then echo {name} >"$MADE"; exit 9; fi\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = ({major}, {minor}, 0)\n'
        'exec(sys.argv[1])" "$2"\n'
    )
    program.chmod(0o755)
    return program


def setup(folder: Path, **environment: str) -> tuple[int, str, str]:
    """Run it where no Python but those of ``folder`` is found.

    Returns:
        Its exit status, what it says on stderr, and which Python it made a venv with.
    """
    made = folder / "made"
    done = subprocess.run(
        ["/bin/bash", ROOT / "scripts" / "setup.sh"],
        env={"PATH": str(folder), "MADE": str(made), "VENV": str(folder / "venv"), **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr, made.read_text().strip() if made.exists() else ""


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder with what the script calls besides Python."""
    for program in ("dirname", "cat"):
        (tmp_path / program).symlink_to(f"/usr/bin/{program}")
    return tmp_path


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("name", ["python3", "python", "python{version}"])
def test_each_supported_python_is_found(bin_folder: Path, name: str, version: str) -> None:
    name = name.format(version=version)
    pretend(bin_folder, name, version)
    status, _, made = setup(bin_folder)
    assert (status, made) == (9, name)


def test_of_several_the_oldest_that_is_supported_is_taken(bin_folder: Path) -> None:
    for name, version in (("python3.13", "3.13"), ("python3.12", "3.12"), ("python3", "3.10")):
        pretend(bin_folder, name, version)
    assert setup(bin_folder)[2] == "python3.12"


def test_python_chooses(bin_folder: Path) -> None:
    for version in SUPPORTED:
        pretend(bin_folder, f"python{version}", version)
    chosen = pretend(bin_folder, "mine", "3.13")
    assert setup(bin_folder, PYTHON=str(chosen))[2] == "mine"


@pytest.mark.parametrize("version", ["2.7", "3.10", "3.14", "4.0"])
@pytest.mark.parametrize("chosen", [False, True])
def test_another_python_is_refused_by_its_version(
    bin_folder: Path, version: str, chosen: bool
) -> None:
    program = pretend(bin_folder, "python3", version)
    status, said, made = setup(bin_folder, **({"PYTHON": str(program)} if chosen else {}))
    assert (status, made) == (1, "")
    assert f"python3 is {version}" in said
    assert "accepted: Python 3.11, 3.12 or 3.13" in said


def test_without_any_python_it_says_what_is_accepted(bin_folder: Path) -> None:
    for environment in ({}, {"PYTHON": "no-such-python"}):
        status, said, _ = setup(bin_folder, **environment)
        assert status == 1
        assert "accepted: Python 3.11, 3.12 or 3.13" in said


@pytest.mark.parametrize("program", ["/bin/true", "/bin/echo", "/bin/false"])
def test_a_program_that_is_no_python_is_refused(bin_folder: Path, program: str) -> None:
    pretend(bin_folder, "python3", "3.11")
    status, said, made = setup(bin_folder, PYTHON=program)
    assert (status, made) == (1, "")
    assert f"(none starts, PYTHON={program}); accepted: Python 3.11" in said


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ("3.10", None, "venv has Python 3.10; accepted: Python 3.11, 3.12 or 3.13"),
        ("3.11", "3.12", "is 3.12, but .*venv has Python 3.11"),
        ("3.11", "3.10", "is 3.10, but .*venv has Python 3.11"),
    ],
)
def test_an_environment_of_another_version_is_told(
    bin_folder: Path, there: str, asked: str | None, message: str
) -> None:
    (bin_folder / "venv" / "bin").mkdir(parents=True)
    pretend(bin_folder / "venv" / "bin", "python", there)
    environment = {"PYTHON": str(pretend(bin_folder, "asked", asked))} if asked else {}
    status, said, _ = setup(bin_folder, **environment)
    assert status == 1
    assert re.search(message, said)


def test_the_project_names_the_same_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
