"""Envoy, as deploy/envoy.yaml has it, in front of a real server, and real clients before it."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import management_pb2
import management_pb2_grpc
import open_inference_grpc_pb2_grpc as oip_grpc
import psutil
import pytest

from camserve_cli.serving.certificates import Certificate
from camserve_cli.serving.envoy_config import settings
from tests.support import color_resnet
from tests.support.contract import inputs_of
from tests.support.edge import PATIENCE, Edge, status
from tests.support.fault_server import wait_until
from tests.support.scripts import COLOR_MODEL, ROOT, run, run_script
from tests.support.server_client import Client, infer_request, v2_json

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60), ("red", (60, 60), 30)))
SOURCE = (ROOT / "deploy" / "envoy.yaml").read_text()


def test_what_is_shipped_is_valid(made: Certificate, tmp_path: Path) -> None:
    (tmp_path / ".tls").symlink_to(made.folder)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    envoy = Path(sys.executable).parent / "envoy"
    done = run(envoy, "--mode", "validate", "-c", str(ROOT / "deploy" / "envoy.yaml"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_its_bounds_are_the_servers() -> None:
    lines = (ROOT / "config.properties").read_text().splitlines()
    config = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    assert settings(SOURCE)["max_request_size"] == config["max_request_size"]
    assert f"max_requests: {config['job_queue_size']}," in SOURCE
    port = settings(SOURCE)["inference_port"]
    assert config["inference_address"].endswith(f":{port}")
    assert config["grpc_inference_port"] == settings(SOURCE)["grpc_port"]


def test_it_listens_on_one_port_of_loopback_and_has_no_admin(edge: Edge) -> None:
    listening = {
        (one.laddr.ip, one.laddr.port)
        for one in psutil.Process(edge.pid).net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", edge.port)}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", "data=%zz"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        ),
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="data"\r\n'
            "Content-Type: multipart/mixed\r\n\r\nx\r\n--b--",
        ),
    ],
)
def test_a_form_that_cannot_be_read_is_the_callers_fault(
    edge: Edge, server: Client, kind: str, body: str
) -> None:
    path, headers = f"/predictions/{COLOR_MODEL}", {"Content-Type": kind}
    # TorchServe by itself calls it its own.
    assert server.http.post(path, content=body, headers=headers).status_code == 500
    with edge.client() as http:
        reply = http.post(path, content=body, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_request"
    assert "accepted: multipart/form-data" in reply.json()["error"]["message"]


@pytest.mark.parametrize("http2", [False, True])
def test_a_prediction_with_its_explanation_over_http(edge: Edge, http2: bool) -> None:
    with edge.client(http2=http2) as http:
        reply = http.post(f"/predictions/{COLOR_MODEL}", content=PHOTO)
        assert reply.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert reply.status_code == 200
        assert reply.json()["predictions"][0]["label"] == "cyan"
        assert reply.json()["explanations"][0]["evidence"]
        assert "strict-transport-security" in reply.headers
        # A body whose length is not said beforehand.
        streamed = http.post(
            f"/predictions/{COLOR_MODEL}", content=iter([PHOTO[:100], PHOTO[100:]])
        )
        assert streamed.json()["predictions"] == reply.json()["predictions"]
        assert http.get("/ping").json() == {"status": "Healthy"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", f"/predictions/{COLOR_MODEL}", {"X-Explain": '{"target": ["red", "cyan-red"]}'}),
        ("POST", f"/predictions/{COLOR_MODEL}/1.0/target=red,method=gradcam++,outputs=boxes", {}),
        ("POST", f"/predictions/{COLOR_MODEL}/1.0/target=red%20,top_k=%202", {}),
        ("PUT", f"/explanations/{COLOR_MODEL}/1.0/target=%72ed%2Ccyan,outputs=map", {}),
        ("POST", f"/invocations?model_name={COLOR_MODEL}&target=red&outputs=boxes,map", {}),
        ("POST", f"/{COLOR_MODEL}/predict?target=red&top_k=2", {"Content-Type": "image/png"}),
    ],
)
def test_options_come_through_as_they_were_sent(
    edge: Edge, server: Client, method: str, path: str, headers: dict[str, str]
) -> None:
    direct = server.http.request(method, path, content=PHOTO, headers=headers)
    with edge.client() as http:
        through = http.request(method, path, content=PHOTO, headers=headers)
    assert (through.status_code, through.json()) == (direct.status_code, direct.json())


def test_kserve_over_http(edge: Edge, server: Client) -> None:
    body = {"inputs": inputs_of([PHOTO]), "id": "1"}
    text = json.dumps(body, default=lambda data: base64.b64encode(data).decode())
    headers = {"Content-Type": "application/json"}
    path = f"/v2/models/{COLOR_MODEL}/infer"
    direct = server.http.post(path, content=text, headers=headers)
    with edge.client() as http:
        through = http.post(path, content=text, headers=headers)
        assert http.get("/v2/health/ready").status_code == 200
    assert (through.status_code, through.json()) == (direct.status_code, direct.json())
    assert through.status_code == 200


def test_grpc(edge: Edge, server: Client) -> None:
    request = inference_pb2.PredictionsRequest(
        model_name=COLOR_MODEL, input={"data": PHOTO, "target": b"red"}
    )
    infer = infer_request(COLOR_MODEL, inputs_of([PHOTO]))
    with edge.channel() as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        more: dict[str, Any] = {"metadata": server.metadata, "timeout": 60}
        reply = json.loads(stub.Predictions(request, **more).prediction)
        (streamed,) = stub.StreamPredictions(request, **more)
        inferred = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(infer, **more)
    assert reply["predictions"][0]["label"] == "cyan"
    assert reply["explanations"][0]["label"] == "red"
    assert json.loads(streamed.prediction) == reply
    labels = next(one for one in v2_json(inferred)["outputs"] if one["name"] == "label")
    assert labels["data"][0] == "cyan"


@pytest.mark.parametrize(
    "line",
    [
        *(f"{method} /models" for method in ("GET", "POST", "OPTIONS")),
        f"GET /models/{COLOR_MODEL}",
        f"DELETE /models/{COLOR_MODEL}",
        f"PUT /models/{COLOR_MODEL}",
        "GET /token?type=inference",
        "GET /metrics",
        "OPTIONS /",
        "GET /",
        "GET /api-description",
        "POST /workflows",
        "POST /wfpredict/x",
        f"GET /v1/models/{COLOR_MODEL}",
        "GET /v1/models",
        "GET /v2",
        f"GET /v2/models/{COLOR_MODEL}",
        f"POST /v2/models/{COLOR_MODEL}/versions/1.0/infer",
        "POST /predictions",
        "POST /predictions/../models",
        "GET //models",
        "GET /predictions/./../token",
        "GET /ping/../metrics",
        "POST /org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
    ],
)
def test_other_paths_are_not_there(edge: Edge, line: str) -> None:
    reply = edge.ask(line, "Content-Length: 0", "Connection: close")
    assert status(reply) == 404
    assert b'"no such path here"' in reply


def test_other_grpc_methods_are_not_there(edge: Edge) -> None:
    token = run_script("serve.sh", "token", "management", RUN_DIR=str(edge_run_dir(edge))).strip()
    metadata = [("protocol", "gRPC"), ("authorization", f"Bearer {token}")]
    with edge.channel() as channel:
        manage = management_pb2_grpc.ManagementAPIsServiceStub(channel)
        calls: list[Callable[[], Any]] = [
            lambda: manage.ListModels(
                management_pb2.ListModelsRequest(), metadata=metadata, timeout=60
            ),
            lambda: manage.DescribeModel(
                management_pb2.DescribeModelRequest(model_name=COLOR_MODEL),
                metadata=metadata,
                timeout=60,
            ),
            lambda: list(
                inference_pb2_grpc.InferenceAPIsServiceStub(channel).StreamPredictions2(
                    iter([inference_pb2.PredictionsRequest(model_name=COLOR_MODEL)]),
                    metadata=metadata,
                    timeout=60,
                )
            ),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as refusal:
                call()
            assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED


def edge_run_dir(edge: Edge) -> str:
    return psutil.Process(edge.pid).environ()["RUN_DIR"]


def test_a_token_is_still_needed(edge: Edge) -> None:
    with edge.client(token="wrong") as http:
        assert http.post(f"/predictions/{COLOR_MODEL}", content=PHOTO).status_code == 401
        assert http.get("/ping").status_code == 401
    request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": PHOTO})
    with edge.channel() as channel, pytest.raises(grpc.RpcError) as refusal:
        inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions(request, timeout=60)
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED


PREDICT = f"POST /predictions/{COLOR_MODEL}"


@pytest.mark.parametrize(
    ("line", "headers", "body"),
    [
        (PREDICT, ("Content-Length: 5", "Transfer-Encoding: chunked"), "0\r\n\r\n"),
        (PREDICT, ("Transfer-Encoding: chunked", "Content-Length: 0"), "0\r\n\r\n"),
        (PREDICT, ("Content-Length: 4", "Content-Length: 5"), "abcde"),
        (PREDICT, ("Content-Length: +4",), "abcd"),
        (PREDICT, ("Transfer-Encoding: chunked, identity",), "0\r\n\r\n"),
        (PREDICT, ("Transfer-Encoding: xchunked",), "0\r\n\r\n"),
        (PREDICT, ("Transfer-Encoding : chunked",), "0\r\n\r\n"),
        (PREDICT, ("Transfer-Encoding: chunked",), "zz\r\nabc\r\n0\r\n\r\n"),
        (PREDICT, ("Transfer-Encoding: chunked",), "-1\r\nabc\r\n0\r\n\r\n"),
        (PREDICT, ("X_Explain: {}", "Content-Length: 0"), ""),
        (PREDICT, ("X-Explain: a\0b", "Content-Length: 0"), ""),
        ("GET /predictions/..%2fmodels", (), ""),
        ("GET /predictions/..%5Cmodels", (), ""),
        ("GET /ping\x01", (), ""),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_refused(
    edge: Edge, line: str, headers: tuple[str, ...], body: str
) -> None:
    smuggled = "GET /ping HTTP/1.1\r\nHost: cam.example\r\n\r\n"
    # 501 is what a transfer coding that nobody knows gets (RFC 9112, 6.1).
    assert status(edge.ask(line, *headers, body=body + smuggled)) in (400, 501)


def test_a_folded_header_reaches_the_server_as_one(edge: Edge) -> None:
    # RFC 9112, 5.2: refused, or each fold replaced by spaces before it goes on.
    headers = ('X-Explain: {"target":', ' "red", "top_k": 1}', "Connection: close")
    length = f"Content-Length: {len(PHOTO)}"
    first = (f"{PREDICT} HTTP/1.1", "Host: cam.example", f"Authorization: Bearer {edge.token}")
    reply = edge.raw("\r\n".join([*first, length, *headers, "", ""]).encode() + PHOTO)
    assert status(reply) == 200
    assert b'"explanations":[{"class_id":0,"label":"red"' in reply


def test_plain_http_is_refused(edge: Edge) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{edge.port}/ping")


def test_headers_over_the_limit_are_refused(edge: Edge) -> None:
    assert status(edge.ask("GET /ping", f"X-Explain: {'a' * 9000}")) == 431
    assert status(edge.ask("GET /ping", *(f"A{n}: b" for n in range(70)))) == 431


def test_its_log_has_a_line_of_json_a_request_and_no_token(edge: Edge) -> None:
    with edge.client() as http:
        headers = {"X-Forwarded-For": "192.0.2.1"}
        path = f"/invocations?model_name={COLOR_MODEL}&target=secret-in-a-query"
        http.post(path, content=PHOTO, headers=headers)
    wait_until(lambda: "/invocations" in edge.log.read_text(), PATIENCE, edge.log.read_text)
    text = edge.log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    line = next(line for line in lines if line["path"] == "/invocations")
    assert (line["method"], line["client"]) == ("POST", "127.0.0.1")
    assert isinstance(line["status"], int)
    assert edge.token not in text
    assert "secret-in-a-query" not in text


def test_slow_headers_are_cut_off(strict: Edge) -> None:
    with strict.connect() as connection:
        begin = time.monotonic()
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: cam.example\r\nX-Slow: ")
        reply = b"".join(iter(lambda: connection.recv(4096), b""))
    assert status(reply) in (0, 408)
    assert 0.9 < time.monotonic() - begin < PATIENCE


def test_a_slow_body_is_cut_off_and_the_server_is_never_asked(strict: Edge) -> None:
    head = f"{PREDICT} HTTP/1.1\r\nHost: cam.example\r\nContent-Length: 100000\r\n\r\n"
    with strict.connect() as connection:
        begin = time.monotonic()
        connection.sendall(head.encode())
        connection.settimeout(0.2)
        reply = b""
        # A byte now and then, so that it is the whole that is bounded and not the pauses.
        while not reply:
            assert time.monotonic() - begin < PATIENCE
            connection.sendall(b"x")
            try:
                reply = connection.recv(4096)
            except TimeoutError:
                continue
    assert status(reply) == 408
    assert time.monotonic() - begin > 1.9


def test_a_connection_without_a_request_is_closed(strict: Edge) -> None:
    begin = time.monotonic()
    with strict.connect() as connection:
        assert connection.recv(1) == b""
    assert time.monotonic() - begin < PATIENCE


def test_no_connection_to_the_server_serves_two_requests(edge: Edge, server: Client) -> None:
    """What TorchServe answers twice can then be nobody else's answer."""
    port, envoy = int(server.ports["INFERENCE_PORT"]), psutil.Process(edge.pid)

    def held() -> bool:
        open_ones = envoy.net_connections("tcp")
        return any(
            one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED
            for one in open_ones
        )

    with edge.client() as http:
        for _ in range(3):
            assert http.post(f"/predictions/{COLOR_MODEL}", content=PHOTO).status_code == 200
            wait_until(lambda: not held(), 5, "the connection was closed")


def test_connections_are_bounded(strict: Edge) -> None:
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(strict.connect())
        with pytest.raises(OSError):  # noqa: PT011
            strict.connect()


def test_too_many_requests_of_one_address_get_429(strict: Edge, server: Client) -> None:
    with strict.client() as http:
        replies = [http.get("/ping") for _ in range(60)]
    limited = [reply for reply in replies if reply.status_code == 429]
    assert limited
    assert limited[0].headers["retry-after"] == "1"
    request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": PHOTO})
    with strict.channel() as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        codes = set()
        for _ in range(60):
            try:
                stub.Predictions(request, metadata=server.metadata, timeout=60)
            except grpc.RpcError as failure:
                codes.add(failure.code())
                break
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
