"""Where setup.sh takes torch from, by running it: every failure of the index leads to PyPI.

Both are indexes of this machine, filled with empty wheels; pip is told of "PyPI" as a user would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.package_index import Index, hang, serving, wheel
from tests.support.scripts import ROOT

pytestmark = pytest.mark.env

PINS = dict(
    line.split("==")
    for line in (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    if "==" in line
)
TORCH, TORCHVISION = PINS["torch"], PINS["torchvision"]
CPU = {"torch": f"{TORCH}+cpu", "torchvision": f"{TORCHVISION}+cpu"}
CUDA = {"torch": TORCH, "torchvision": TORCHVISION, "nvidia-cublas": PINS["nvidia-cublas"]}
REST = {name: PINS[name] for name in ("filelock", "openvino")}


def torch_wheels(local: str, *requires: str) -> list[tuple[str, bytes]]:
    return [
        wheel("torch", TORCH + local, ["filelock", *requires]),
        wheel("torchvision", TORCHVISION + local, [f"torch=={TORCH}"]),
    ]


@pytest.fixture(scope="module")
def pypi() -> Iterator[Index]:
    """PyPI: torch for CUDA, and everything else."""
    others = {**REST, "nvidia-cublas": PINS["nvidia-cublas"]}
    with serving(
        [*torch_wheels("", "nvidia-cublas"), *(wheel(name, pin) for name, pin in others.items())]
    ) as index:
        yield index


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment to copy, which is quicker than to make one."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, bare_environment: Path, pypi: Index) -> Path:
    """The project's setup.sh and pins, with short lists of requirements, and an environment."""
    pypi.asked.clear()
    for name in ("scripts/setup.sh", "scripts/cpu_torch.py", "requirements/constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    direct = f"torch=={TORCH}\ntorchvision=={TORCHVISION}\n"
    (tmp_path / "requirements" / "serve.txt").write_text(direct)
    for name in ("quickstart", "report"):
        (tmp_path / "requirements" / f"{name}.txt").write_text("filelock\n")
    shutil.copytree(bare_environment, tmp_path / ".venv", symlinks=True)
    return tmp_path


def run(checkout: Path, pypi: Index, *command: str | Path, **environment: str) -> str:
    """What a command prints, with no settings for pip but these."""
    (checkout / "no-constraint").touch()
    done = subprocess.run(
        command,
        env={
            "PATH": os.defpath,
            "HOME": str(checkout),
            "PIP_CONSTRAINT": str(checkout / "no-constraint"),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_INDEX_URL": pypi.url,
            **environment,
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return done.stdout


def setup(checkout: Path, pypi: Index, **environment: str) -> str:
    """Run setup.sh until the packages are in; what it says.

    What it does after that (Java, gRPC) is not in the copy, and is left to fail.
    """
    said = run(checkout, pypi, "/bin/bash", checkout / "scripts" / "setup.sh", **environment)
    assert (checkout / ".venv" / ".installed-report").exists()
    return said


def torch_step(checkout: Path, pypi: Index, index: str) -> str:
    """Run the step alone; what it says. PyPI is not asked by it."""
    python = checkout / ".venv" / "bin" / "python"
    return run(checkout, pypi, python, checkout / "scripts" / "cpu_torch.py", TORCH_INDEX=index)


def packages(checkout: Path) -> dict[str, str]:
    """What is installed, without what every environment starts with."""
    python = checkout / ".venv" / "bin" / "python"
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("==") for line in frozen.splitlines())


def test_torch_and_torchvision_and_nothing_else_come_from_the_index(
    checkout: Path, pypi: Index
) -> None:
    with serving([*torch_wheels("+cpu"), *(wheel(name, "99") for name in REST)]) as index:
        said = setup(checkout, pypi, TORCH_INDEX=index.url)
        assert f"torch without CUDA, from {index.url}" in said
        assert packages(checkout) == {**CPU, **REST}
        assert {path.split("/")[2].split("-")[0] for path in index.paths} == {
            "torch",
            "torchvision",
        }
        assert not [path for path in pypi.paths if path.endswith(".whl") and "torch" in path]


def test_once_installed_nothing_is_asked_again(checkout: Path, pypi: Index) -> None:
    with serving(torch_wheels("+cpu")) as index:
        setup(checkout, pypi, TORCH_INDEX=index.url)
        for other in (index.url, "pypi"):
            index.asked.clear()
            pypi.asked.clear()
            setup(checkout, pypi, TORCH_INDEX=other)
            assert index.asked == pypi.asked == []
        # Another requirement has changed: torch, which has not, stays where it came from.
        with (checkout / "requirements" / "serve.txt").open("a") as requirements:
            requirements.write("filelock\n")
        assert "torch" not in setup(checkout, pypi, TORCH_INDEX=index.url)
        assert index.asked == []
    assert packages(checkout) == {**CPU, **REST}


@pytest.mark.parametrize("way", ["variables", "pip.conf"])
def test_where_a_user_has_other_builds_of_torch_pip_looks_there_for_the_rest_only(
    checkout: Path, pypi: Index, way: str
) -> None:
    folder = checkout / "wheels"
    folder.mkdir()
    extra = wheel("h11", PINS["h11"])
    for name, content in [*torch_wheels("+cu999"), extra]:
        (folder / name).write_bytes(content)
    with (checkout / "requirements" / "serve.txt").open("a") as requirements:
        requirements.write("h11\nidna\n")
    others = [*torch_wheels("+zz1"), wheel("idna", PINS["idna"])]
    with serving(others) as extra_index, serving(torch_wheels("+cpu")) as index:
        if way == "variables":
            settings = {"PIP_EXTRA_INDEX_URL": extra_index.url, "PIP_FIND_LINKS": str(folder)}
        else:
            settings = {"PIP_CONFIG_FILE": str(checkout / "pip.conf")}
            (checkout / "pip.conf").write_text(
                f"[global]\nextra-index-url = {extra_index.url}\nfind-links = {folder}\n"
            )
        setup(checkout, pypi, TORCH_INDEX=index.url, **settings)
    assert packages(checkout) == {**CPU, **REST, "h11": PINS["h11"], "idna": PINS["idna"]}


def broken(content: bytes) -> bytes:
    """A wheel whose module does not match its checksum, which pip notices while it installs it."""
    return content.replace(b"version = ", b"version : ")


CANNOT_GIVE_BOTH = {
    "another version": [wheel("torch", "2.0.0+cpu"), wheel("torchvision", "0.15.0+cpu")],
    "nothing": [],
    "one of the two": torch_wheels("+cpu")[:1],
    "no wheel": [(name, b"<html>sign in</html>") for name, _ in torch_wheels("+cpu")],
    # The one that pip installs last, so that the other is there by then.
    "one damaged wheel": [
        (name, broken(content) if name.startswith("torch-") else content)
        for name, content in torch_wheels("+cpu")
    ],
}


@pytest.mark.parametrize("holds", CANNOT_GIVE_BOTH)
def test_an_index_that_cannot_give_both_gives_neither(
    checkout: Path, pypi: Index, holds: str
) -> None:
    with serving(CANNOT_GIVE_BOTH[holds]) as index:
        said = torch_step(checkout, pypi, index.url)
    assert said.splitlines()[-1].startswith(f"setup: torch from PyPI, not from {index.url}: ")
    assert packages(checkout) == {}
    assert pypi.asked == []


def test_after_a_damaged_wheel_both_come_from_pypi(checkout: Path, pypi: Index) -> None:
    with serving(CANNOT_GIVE_BOTH["one damaged wheel"]) as index:
        said = setup(checkout, pypi, TORCH_INDEX=index.url)
    assert said.count("torch from PyPI") == 1
    assert packages(checkout) == {**CUDA, **REST}


def test_an_index_that_never_answers_is_waited_for_three_seconds(
    checkout: Path, pypi: Index
) -> None:
    with serving(answer=hang) as index:
        said = setup(checkout, pypi, TORCH_INDEX=index.url)
        ((_, asked),) = index.asked
    assert f"setup: torch from PyPI, not from {index.url}: no answer within 3 s\n" in said
    assert 2.5 < pypi.asked[0][1] - asked < 20  # besides the three, pip starts, on a busy machine
    assert packages(checkout) == {**CUDA, **REST}


def test_pypi_can_be_asked_for(checkout: Path, pypi: Index) -> None:
    assert torch_step(checkout, pypi, "pypi") == ""
    assert packages(checkout) == {}
