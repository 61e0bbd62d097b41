"""A running edge, with its certificate, in front of the tests' server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from camserve_cli.serving.certificate_authority import issue
from camserve_cli.serving.certificates import Certificate

if TYPE_CHECKING:
    import httpx

    from tests.support.edge import Edge
    from tests.support.server_client import Client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("edge"), ["127.0.0.1"], 1)


@pytest.fixture(scope="module")
def edge(server: Client, made: Certificate) -> Iterator[Edge]:
    """As it is shipped."""
    from tests.support.edge import running

    with running(server, made, made.folder) as edge:
        yield edge


@pytest.fixture(scope="module")
def strict(
    server: Client, made: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """With bounds that a test reaches."""
    from tests.support.edge import running

    bounds = {
        "headers_timeout": "1s",
        "request_timeout": "2s",
        "idle_timeout": "3s",
        "client_burst": 20,
        "client_rate": 1,
        "max_connections": 6,
    }
    with running(server, made, tmp_path_factory.mktemp("strict"), **bounds) as edge:
        yield edge


@pytest.fixture(scope="module", params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def http(edge: Edge, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with edge.client(http2=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def no_script_fails(edge: Edge) -> Iterator[None]:
    """After an error in a script, Envoy forwards a request as it is, and writes a line."""
    yield
    assert "script log" not in edge.log.read_text()
