"""The edge before a server with an Open Inference front: what it forwards there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2

from camserve_cli.commands.edge import choose, upstream_settings
from camserve_cli.open_inference import open_inference_pb2 as pb
from camserve_cli.serving.certificates import Certificate
from camserve_cli.serving.front_process import FrontProcess
from camserve_cli.serving.local_server import LocalServer
from tests.support import color_resnet
from tests.support.edge import Edge, running
from tests.support.open_inference import Front, binary_body, front_before, raw_request
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

RED = color_resnet.png(color_resnet.photo(("red", (160, 120), 60)))
INFER = f"/v2/models/{COLOR_MODEL}/infer"


@pytest.fixture(scope="module")
def before(server: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    with front_before(server.ports, server.token, folder) as front:
        yield front


@pytest.fixture(scope="module")
def edge(
    server: Client, before: Front, made: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    chosen = {
        "open_inference_port": before.http.base_url.port,
        "open_inference_grpc_port": before.address.rpartition(":")[2],
    }
    folder = tmp_path_factory.mktemp("edge")
    with running(server, made, folder, **chosen) as edge:
        yield edge
        assert "script log" not in edge.log.read_text()


@pytest.fixture(scope="module")
def http(edge: Edge) -> Iterator[httpx.Client]:
    with edge.client() as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", f"/v2/models/{COLOR_MODEL}"),
        *(f"/v2/models/{COLOR_MODEL}/ready", f"/v2/models/{COLOR_MODEL}/versions/1.0/ready"),
        *("/v1/models", f"/v1/models/{COLOR_MODEL}"),
    ],
)
def test_health_and_metadata_are_the_fronts(before: Front, http: httpx.Client, path: str) -> None:
    assert http.get(path).json() == before.http.get(path).raise_for_status().json()


def test_predictions_by_kserve_are_the_fronts(http: httpx.Client) -> None:
    body, headers = binary_body(RED, parameters={"binary_data_output": True})
    for path in (INFER, f"/v2/models/{COLOR_MODEL}/versions/1.0/infer"):
        reply = http.post(path, content=body, headers=headers).raise_for_status()
        assert int(reply.headers["Inference-Header-Content-Length"]) < len(reply.content)
    instance = {"image": {"b64": base64.b64encode(RED).decode()}}
    reply = http.post(f"/v1/models/{COLOR_MODEL}:predict", json={"instances": [instance]})
    assert reply.raise_for_status().json()["predictions"]
    # An error that the front words.
    refused = http.post(INFER, content=b"{", headers={"Authorization": "Bearer wrong"})
    assert (refused.status_code, refused.json()["error_detail"]["code"]) == (401, "unauthorized")


def test_other_predictions_are_the_servers(http: httpx.Client) -> None:
    reply = http.post(f"/predictions/{COLOR_MODEL}", content=RED)
    assert reply.raise_for_status().json()["predictions"]
    assert http.get("/ping").json() == {"status": "Healthy"}


def test_grpc_has_the_standard_services(edge: Edge) -> None:
    front = Front(edge.client(), f"127.0.0.1:{edge.port}", edge.token, edge.authority)
    with front.http:
        assert front.call("ModelInfer", raw_request(RED)).outputs
        request = pb.ModelReadyRequest(name=COLOR_MODEL)
        assert front.call("ModelReady", request, metadata=[]).ready
    with edge.channel() as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        reply = health_pb2.HealthCheckResponse.FromString(check(b"", timeout=30))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        for path in (
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/inference.GRPCInferenceService/RepositoryIndex",
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                channel.unary_unary(path)(b"", timeout=30)
            assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED


def server_with_front() -> LocalServer:
    front = FrontProcess(2, 0, "http://127.0.0.1:8000", "127.0.0.1:8001")
    return LocalServer(
        1, 0, "", "http://127.0.0.1:8080", "http://127.0.0.1:8081", "[::1]:7070", [], front=front
    )


def test_a_started_front_is_named() -> None:
    chosen = choose(upstream_settings(server_with_front()), {})
    assert (chosen["inference_port"], chosen["open_inference_port"]) == ("8080", "8000")
    assert (chosen["grpc_port"], chosen["open_inference_grpc_port"]) == ("7070", "8001")


def test_another_server_has_not_its_front() -> None:
    chosen = choose(upstream_settings(server_with_front()), {"inference_port": "9000"})
    assert chosen["open_inference_port"] == "9000"
    assert chosen["open_inference_grpc_port"] == "7070"
    assert chosen["open_inference_grpc_address"] == "::1"


def test_a_server_that_an_older_version_noted_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = {
        "pid": 1,
        "started": 0.0,
        "scratch": "",
        "inference": "http://127.0.0.1:8080",
        "management": "http://127.0.0.1:8081",
        "grpc": "127.0.0.1:7070",
        "models": [],
    }
    (tmp_path / "server.json").write_text(json.dumps(noted))
    monkeypatch.setattr("camserve_cli.serving.local_server.RUN_DIR", tmp_path)
    server = LocalServer.last_started()
    assert server is not None
    assert server.front is None
