"""Real archives, and a real TorchServe that serves them, started once for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import color_resnet
from tests.support.scripts import COLOURS, camserve, free_ports, script
from tests.support.server_client import Client


def pytest_configure() -> None:
    """One thread for torch, here and in the workers: threads that share a core wait by spinning."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def colour_inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The constructed ResNet50's weights and labels, as files."""
    return color_resnet.write_archive_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, colour_inputs: tuple[Path, Path]) -> Path:
    """A model store with the constructed ResNet50 and the packaged ImageNet CNN."""
    store = tmp_path_factory.mktemp("store")
    weights, labels = colour_inputs
    # A long delay, so that requests sent together share a batch.
    common = ("--store", store, "--set", "maxBatchDelay=100")
    inputs = ("--weights", weights, "--labels", labels)
    layers = ("--set", "handler.layers=[layer3.5,layer4.1]")
    camserve("package", "--name", COLOURS, *inputs, "--compress", *layers, *common)
    camserve("package", "--fallback-model", *common)
    return store


@pytest.fixture(scope="session")
def server_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that tell the scripts of the tests' own server."""
    return {"RUN_DIR": str(tmp_path_factory.mktemp("run")), **free_ports()}


@pytest.fixture(scope="session")
def server(store: Path, server_environment: dict[str, str]) -> Iterator[Client]:
    """A running server; every call to it carries a token."""
    # One worker of each model, so that requests sent together share a batch.
    script("serve.sh", "start", "--store", store, "--workers", "1", **server_environment)
    try:
        token = script("serve.sh", "token", **server_environment).strip()
        with Client.open(server_environment, token) as client:
            yield client
    finally:
        script("serve.sh", "stop", **server_environment)
