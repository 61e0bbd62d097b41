"""Real archives, and a real TorchServe that serves them, started once for all tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import constructed
from client import Client

ROOT = Path(__file__).resolve().parent.parent
PORTS = (
    "INFERENCE_PORT",
    "MANAGEMENT_PORT",
    "METRICS_PORT",
    "GRPC_INFERENCE_PORT",
    "GRPC_MANAGEMENT_PORT",
)
COLOURS = "colours"
IMAGENET = "efficientnet-lite0"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's root, as a person would, and keep what it says."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "VENV": sys.prefix, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def script(name: str, *arguments: str | Path, **environment: str) -> str:
    """Run one of the scripts; what it prints. It must succeed."""
    interpreter = "bash" if name.endswith(".sh") else sys.executable
    done = run(interpreter, ROOT / "scripts" / name, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_ports() -> dict[str, str]:
    """A free port for each of the server's addresses."""
    sockets = [socket.socket() for _ in PORTS]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = {name: str(one.getsockname()[1]) for name, one in zip(PORTS, sockets, strict=True)}
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def colour_inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The constructed ResNet50's weights and labels, as files."""
    return constructed.write_archive_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, colour_inputs: tuple[Path, Path]) -> Path:
    """A model store with the constructed ResNet50 and the packaged ImageNet CNN."""
    store = tmp_path_factory.mktemp("store")
    weights, labels = colour_inputs
    # A long delay, so that requests sent together share a batch.
    common = ("--store", store, "--set", "maxBatchDelay=100")
    inputs = ("--weights", weights, "--labels", labels)
    script("package.py", "--name", COLOURS, *inputs, "--compress", *common)
    script("package.py", "--stand-in", *common)
    return store


@pytest.fixture(scope="session")
def server_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that tell the scripts of the tests' own server."""
    return {"RUN_DIR": str(tmp_path_factory.mktemp("run")), **free_ports()}


@pytest.fixture(scope="session")
def server(store: Path, server_environment: dict[str, str]) -> Iterator[Client]:
    """A running server; every call to it carries a token."""
    script("serve.sh", "start", "--store", store, **server_environment)
    try:
        token = script("serve.sh", "token", **server_environment).strip()
        with Client.open(server_environment, token) as client:
            yield client
    finally:
        script("serve.sh", "stop", **server_environment)
