"""Real archives, and a real TorchServe that serves them, started once for all tests.

What is heavy to import (PyTorch, gRPC's stubs) is imported by the fixture that needs it: a file of
tests that needs none of it starts in a second.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devtools.ports import free_server_ports
from tests.support.scripts import COLOR_MODEL, camserve, run_script

if TYPE_CHECKING:
    from tests.support.server_client import Client

# One thread for PyTorch, here and in the workers: threads that share a core wait by spinning.
# PyTorch reads it when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/server, and those that ask for the server, as ``server``."""
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if "server" in item.path.parts or "server" in fixtures:
            item.add_marker(pytest.mark.server)


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of garbage collections.

    Loading a model collects garbage several times; with the tests' own modules and PyTorch in
    memory, each costs 0.2 s.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _older_modules_out_of_collections() -> None:
    """Keep what the files of tests before have imported out of garbage collections, too."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A model store with the constructed ResNet50, narrow, and the packaged ImageNet CNN.

    All processes of one run of pytest have the same: nothing may be written into it.
    """
    from filelock import FileLock

    from tests.support import color_resnet

    own = tmp_path_factory.getbasetemp()
    folder = own if worker_id == "master" else own.parent
    store = folder / "store"
    with FileLock(folder / "store.lock"):
        if not store.exists():
            new = tmp_path_factory.mktemp("store")
            inputs = color_resnet.package_inputs(
                tmp_path_factory.mktemp("inputs"), **color_resnet.NARROW
            )
            # A long delay, so that requests sent together share a batch.
            common = ("--store", new, "--set", "maxBatchDelay=100")
            layers = ("--set", "handler.layers=[layer3.5,layer4.1]")
            camserve("package", "--name", COLOR_MODEL, *inputs, "--compress", *layers, *common)
            camserve("package", "--fallback-model", *common)
            new.rename(store)
    return store


@pytest.fixture(scope="session")
def server_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that tell the scripts of the tests' own server."""
    return {"RUN_DIR": str(tmp_path_factory.mktemp("run")), **free_server_ports()}


@pytest.fixture(scope="session")
def server(store: Path, server_environment: dict[str, str]) -> Iterator[Client]:
    """A running server; every call to it carries a token."""
    from tests.support.server_client import Client

    # One worker of each model, so that requests sent together share a batch.
    run_script("serve.sh", "start", "--store", store, "--workers", "1", **server_environment)
    try:
        token = run_script("serve.sh", "token", **server_environment).strip()
        with Client.open(server_environment, token) as client:
            yield client
    finally:
        run_script("serve.sh", "stop", **server_environment)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """A command that opens a page in a real Chromium, headless."""
    from tests.support.browser import install_chromium

    return install_chromium(tmp_path_factory.mktemp("chromium"))
