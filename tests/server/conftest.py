"""A server with the Open Inference front, started once for the tests of other projects' clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.scripts import COLOR_MODEL, IMAGENET

if TYPE_CHECKING:
    from tests.support.kserve_clients.environments import ClientProcess
    from tests.support.kserve_clients.server import OpenInferenceServer


@pytest.fixture(scope="session")
def open_inference(
    store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenInferenceServer]:
    """A server with the Open Inference front, and with the models of the store."""
    from tests.support.kserve_clients.server import running_server

    folder = tmp_path_factory.mktemp("run")
    with running_server(store, folder, None, COLOR_MODEL, IMAGENET) as server:
        yield server


@pytest.fixture(scope="session")
def open_inference_tls(
    store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenInferenceServer]:
    """The same with TLS on every port, and one model."""
    from camserve_cli.serving.certificate_authority import issue
    from camserve_cli.serving.certificates import LOOPBACK
    from tests.support.kserve_clients.server import running_server

    folder = tmp_path_factory.mktemp("tls")
    issue(folder, list(LOOPBACK), 1)
    with running_server(store, tmp_path_factory.mktemp("run"), folder, COLOR_MODEL) as server:
        yield server


@pytest.fixture(scope="session")
def open_inference_edge(
    open_inference: OpenInferenceServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenInferenceServer]:
    """The server with the front behind ``camserve edge``, which has one port for both protocols."""
    from camserve_cli.serving.certificate_authority import issue
    from camserve_cli.serving.certificates import LOOPBACK
    from devtools.edge_proxy import running_edge
    from tests.support.kserve_clients.server import OpenInferenceServer

    folder = tmp_path_factory.mktemp("edge")
    made = issue(folder, list(LOOPBACK), 1)
    before = open_inference.environment
    # Envoy is found where the package put it, not on PATH.
    with running_edge(made, folder / "edge.log", {**before, "PATH": ""}, {}) as proxy:
        ports = dict.fromkeys(("OPEN_INFERENCE_PORT", "OPEN_INFERENCE_GRPC_PORT"), str(proxy.port))
        yield OpenInferenceServer({**before, **ports}, open_inference.token, str(made.authority))


@pytest.fixture(scope="session")
def server_away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenInferenceServer]:
    """A front whose TorchServe is away."""
    from tests.support.kserve_clients.server import front_without_server

    with front_without_server(tmp_path_factory.mktemp("away")) as server:
        yield server


@pytest.fixture(params=["open_inference_tls", "open_inference_edge"])
def over_tls(request: pytest.FixtureRequest) -> OpenInferenceServer:
    """A server with TLS, and the edge before one without."""
    server: OpenInferenceServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def triton_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with Triton's client alone."""
    from tests.support.kserve_clients.environments import build_environment

    return build_environment("triton", tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="session")
def kserve_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with KServe's client alone."""
    from tests.support.kserve_clients.environments import build_environment

    return build_environment("kserve", tmp_path_factory.mktemp("kserve"))


@pytest.fixture(scope="session")
def triton(
    triton_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClientProcess]:
    """Triton's client, in a process of its own environment."""
    from tests.support.kserve_clients.environments import running_client

    log = tmp_path_factory.mktemp("triton-log") / "client.log"
    with running_client("triton", triton_python, log) as client:
        yield client


@pytest.fixture(scope="session")
def kserve(
    kserve_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClientProcess]:
    """KServe's client, in a process of its own environment."""
    from tests.support.kserve_clients.environments import running_client

    log = tmp_path_factory.mktemp("kserve-log") / "client.log"
    with running_client("kserve", kserve_python, log) as client:
        yield client
