"""What the edge answers by itself: the status, JSON with a code of docs/errors.md, and headers."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import psutil
import pytest

from camserve.errors import HTTP_STATUS
from camserve_cli.serving.certificates import Certificate
from camserve_client import (
    AsyncClient,
    AsyncGrpcClient,
    AuthenticationError,
    Client,
    GrpcClient,
    RequestRejectedError,
)
from devtools.edge_proxy import running_edge
from devtools.ports import free_ports
from tests.support import color_resnet
from tests.support.edge import Edge, running, status
from tests.support.scripts import COLOR_MODEL, ROOT
from tests.support.server_client import Client as Server

pytestmark = pytest.mark.usefixtures("no_script_fails")

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60)))
PATH = f"/predictions/{COLOR_MODEL}"
PREDICT = f"POST {PATH}"
V1 = f"/v1/models/{COLOR_MODEL}:explain"
#: Above the limit of 28 MB, in pieces: httpx takes long to send a single large one over HTTP/2.
PIECES = [bytes(1_000_000)] * 33
LARGE = b"".join(PIECES)
ORIGIN = "https://cam.example"


def error(reply: httpx.Response) -> dict[str, Any]:
    """The error of an answer, whose status it repeats."""
    assert reply.headers["content-type"] == "application/json"
    found: dict[str, Any] = reply.json()["error"]
    assert found["status"] == reply.status_code
    assert found["message"]
    return found


def raw_error(reply: bytes) -> tuple[int, str]:
    """The status and code of the only answer on a connection."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/json" in head
    found = json.loads(body)["error"]
    assert found["status"] == status(head)
    return found["status"], found["code"]


# A body that is too large


@pytest.mark.parametrize("is_declared", [True, False], ids=["length", "stream"])
@pytest.mark.parametrize("size", [1, 33, 150])
def test_a_body_over_the_limit_is_told_of(http: httpx.Client, is_declared: bool, size: int) -> None:
    pieces = [bytes(1_000_000)] * size if size > 1 else [*[bytes(1_000_000)] * 28, b"x"]
    length = {"Content-Length": str(sum(map(len, pieces)))} if is_declared else {}
    reply = http.post(PATH, content=iter(pieces), headers=length)
    found = error(reply)
    assert (reply.status_code, found["code"]) == (413, "request_too_large")
    assert "28000000" in found["message"]
    # The connection is as good as before.
    assert http.post(PATH, content=PHOTO).status_code == 200


def test_the_limit_itself_is_accepted(http: httpx.Client) -> None:
    pieces = [PHOTO, *[bytes(1_000_000)] * 27, bytes(1_000_000 - len(PHOTO))]
    # It is the handler that refuses a photo of more than 20 MB.
    assert error(http.post(PATH, content=iter(pieces)))["code"] == "image_too_large"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_gets_the_refusal_whole(edge: Edge, version: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    command = ["curl", "-sS", version, "--cacert", str(edge.authority), "-w", "%{http_code}"]
    header = f"Authorization: Bearer {edge.token}"
    url = f"https://127.0.0.1:{edge.port}{PATH}"
    done = subprocess.run(
        [*command, "-H", header, "-T", str(tmp_path / "large"), url],
        capture_output=True,
        check=True,
    )
    assert done.stdout.endswith(b"413")
    assert json.loads(done.stdout[:-3])["error"]["code"] == "request_too_large"


def test_a_body_over_the_limit_takes_no_memory(edge: Edge) -> None:
    process = psutil.Process(edge.pid)
    before = process.memory_info().rss
    with edge.client() as http:
        for _ in range(3):
            http.post(PATH, content=iter([bytes(1_000_000)] * 300))
    assert process.memory_info().rss - before < 100_000_000


def test_a_grpc_message_over_the_limit_is_told_of(edge: Edge, server: Server) -> None:
    request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": LARGE})
    with edge.channel() as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Predictions(request, metadata=server.metadata, timeout=60)
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in refusal.value.details()
        request.input["data"] = PHOTO
        assert stub.Predictions(request, metadata=server.metadata, timeout=60).prediction


def call_async(client: Any, **options: Any) -> Any:
    async def call() -> Any:
        async with client() as one:
            return await one.predict(**options)

    return asyncio.run(call())


def no_retry(seconds: float) -> None:
    """Of delays, only that before a call with a new token is none."""
    assert seconds == 0


async def no_async_retry(seconds: float) -> None:
    no_retry(seconds)


def client_call(edge: Edge, kind: str, photo: bytes, token: Any) -> Any:
    """A prediction by one of the four clients, which must not retry."""
    url, place = f"https://127.0.0.1:{edge.port}", f"127.0.0.1:{edge.port}"
    trust = edge.trust()
    credentials = grpc.ssl_channel_credentials(edge.authority.read_bytes())
    common: dict[str, Any] = {"token": token, "timeout": 60}
    match kind:
        case "http":
            with Client(url, COLOR_MODEL, verify=trust, sleep=no_retry, **common) as client:
                return client.predict(photo)
        case "grpc":
            with GrpcClient(
                place, COLOR_MODEL, credentials=credentials, sleep=no_retry, **common
            ) as grpc_client:
                return grpc_client.predict(photo)
        case "http async":
            return call_async(
                lambda: AsyncClient(url, COLOR_MODEL, verify=trust, sleep=no_async_retry, **common),
                photo=photo,
            )
    return call_async(
        lambda: AsyncGrpcClient(
            place, COLOR_MODEL, credentials=credentials, sleep=no_async_retry, **common
        ),
        photo=photo,
    )


KINDS = ("http", "http async", "grpc", "grpc async")


@pytest.mark.parametrize("kind", KINDS)
# 70 MB is more than the client itself sends over gRPC.
@pytest.mark.parametrize("size", [33_000_000, 70_000_000])
def test_the_client_does_not_retry_what_is_too_large(edge: Edge, kind: str, size: int) -> None:
    with pytest.raises(RequestRejectedError) as refusal:
        client_call(edge, kind, bytes(size), edge.token)
    assert (refusal.value.status, refusal.value.code) == (413, "request_too_large")


# Tokens


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="camserve"'),
        ("Bearer wrong", 'Bearer realm="camserve", error="invalid_token"'),
        ("bearer wrong", 'Bearer realm="camserve", error="invalid_token"'),
        ("Bearer", 'Bearer realm="camserve", error="invalid_token"'),
        ("Basic dTpw", 'Bearer realm="camserve", error="invalid_token"'),
    ],
)
@pytest.mark.parametrize(
    "path", ["/ping", PATH, "/invocations", f"/v1/models/{COLOR_MODEL}:explain"]
)
@pytest.mark.parametrize("http2", [False, True])
def test_a_call_without_a_valid_token_gets_401(
    edge: Edge, path: str, authorization: str | None, challenge: str, http2: bool
) -> None:
    base = f"https://127.0.0.1:{edge.port}"
    headers = {"Authorization": authorization} if authorization else {}
    method, content = ("GET", None) if path == "/ping" else ("POST", PHOTO)
    with httpx.Client(base_url=base, verify=edge.trust(), http2=http2, headers=headers) as http:
        reply = http.request(method, path, content=content)
    assert (reply.status_code, error(reply)["code"]) == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR  ", "Bearer\t"])
def test_the_scheme_of_a_token_has_no_case(http: httpx.Client, edge: Edge, scheme: str) -> None:
    headers = {"Authorization": f"{scheme}{edge.token}"}
    assert http.post(PATH, content=PHOTO, headers=headers).status_code == 200


def test_the_scheme_of_a_token_has_no_case_over_grpc(edge: Edge) -> None:
    request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": PHOTO})
    metadata = [("protocol", "gRPC"), ("authorization", f"bearer {edge.token}")]
    with edge.channel() as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        assert stub.Predictions(request, metadata=metadata, timeout=60).prediction


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_asks_for_a_new_token(edge: Edge, kind: str) -> None:
    with pytest.raises(AuthenticationError):
        client_call(edge, kind, PHOTO, "expired")
    tokens = iter(["expired", edge.token])
    assert client_call(edge, kind, PHOTO, lambda: next(tokens)).predictions[0].label == "cyan"
    assert list(tokens) == []


# Methods, and HTTP/1.0


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        *((method, PATH, "POST, PUT") for method in ("GET", "HEAD", "DELETE", "PATCH", "OPTIONS")),
        ("GET", f"/explanations/{COLOR_MODEL}/1.0/target=red", "POST, PUT"),
        ("GET", f"/v1/models/{COLOR_MODEL}:predict", "POST, PUT"),
        ("GET", f"/v2/models/{COLOR_MODEL}/infer", "POST, PUT"),
        ("GET", "/invocations", "POST, PUT"),
        ("GET", f"/{COLOR_MODEL}/predict?target=red", "POST, PUT"),
        ("POST", "/ping", "GET"),
        ("HEAD", "/ping", "GET"),
        ("PUT", "/v2/health/ready", "GET"),
    ],
)
def test_another_method_gets_405_with_those_that_are_allowed(
    http: httpx.Client, method: str, path: str, allow: str
) -> None:
    reply = http.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == allow
    expected = "" if method == "HEAD" else "method_not_allowed"
    assert expected in reply.text


def test_http_1_0_is_answered(edge: Edge) -> None:
    token = f"Authorization: Bearer {edge.token}\r\n"
    assert status(edge.raw(f"GET /ping HTTP/1.0\r\n{token}\r\n".encode())) == 200
    head = f"{PREDICT} HTTP/1.0\r\n{token}Content-Length: {len(PHOTO)}\r\n\r\n"
    reply = edge.raw(head.encode() + PHOTO)
    assert status(reply) == 200
    # HTTP/1.0 knows no chunks.
    assert b"transfer-encoding" not in reply.lower()
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["predictions"][0]["label"] == "cyan"


# Everything else


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (f"{PREDICT} HTTP/1.1\r\nHost: x\r\nX_E: 1\r\n\r\n", (400, "invalid_request")),
        (f"{PREDICT} HTTP/1.1\r\nConnection: close\r\n\r\n", (400, "invalid_request")),
        ("POST /a%2fb HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (400, "invalid_request")),
        (
            f"{PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n{CHUNKED}\r\n\r\n0\r\n\r\n",
            (400, "invalid_request"),
        ),
        ("no HTTP\r\n\r\n", (400, "invalid_request")),
        (
            f"{PREDICT} HTTP/1.1\r\nHost: x\r\n{CHUNKED}, x\r\n\r\n0\r\n\r\n",
            (501, "not_implemented"),
        ),
        (f"GET /ping HTTP/1.1\r\nHost: x\r\nA: {'a' * 9000}\r\n\r\n", (431, "headers_too_large")),
        (
            "GET /ping HTTP/1.1\r\nHost: x\r\n"
            + "".join(f"A{n}: b\r\n" for n in range(70))
            + "\r\n",
            (431, "headers_too_large"),
        ),
        ("GET /models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (404, "not_found")),
        (
            f"{PREDICT} HTTP/1.1\r\nHost: x\r\nExpect: foo\r\nConnection: close\r\n\r\n",
            (417, "expectation_failed"),
        ),
    ],
)
def test_what_is_refused_gets_json(edge: Edge, sent: str, expected: tuple[int, str]) -> None:
    assert raw_error(edge.raw(sent.encode())) == expected


def test_a_slow_request_gets_json(strict: Edge) -> None:
    head = f"{PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    assert raw_error(strict.raw(head.encode())) == (408, "request_timeout")


def test_too_many_requests_get_json(strict: Edge) -> None:
    with strict.client() as http:
        replies = [http.get("/ping") for _ in range(40)]
    limited = next(reply for reply in replies if reply.status_code == 429)
    assert error(limited)["code"] == "rate_limited"
    # The next test of this edge finds it as it was.
    time.sleep(2)


def text_error(reply: httpx.Response) -> dict[str, Any]:
    """The error of an answer in KServe v2, where ``error`` is the message."""
    told = reply.json()
    assert told.keys() == {"error", "error_detail"}
    assert told["error"] == told["error_detail"]["message"]
    assert told["error_detail"]["status"] == reply.status_code
    return dict(told["error_detail"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("GET", "/v2/models/x/infer", {}, "method_not_allowed"),
        ("POST", "/v2/repository/index", {}, "not_found"),
        ("POST", "/v2/models/x/infer", {"Expect": "foo"}, "expectation_failed"),
        ("POST", "/v2/models/x/infer?a=%zz", {}, "invalid_request"),
        ("POST", "/v2/models/x/infer", {"Authorization": "Bearer wrong"}, "unauthorized"),
    ],
)
def test_errors_of_kserve_v2_are_texts(
    http: httpx.Client, method: str, path: str, headers: dict[str, str], code: str
) -> None:
    reply = http.request(method, path, headers=headers, content=b"{}" if method == "POST" else b"")
    assert text_error(reply)["code"] == code


def test_a_large_body_of_kserve_v2_is_told_of_in_a_text(http: httpx.Client) -> None:
    reply = http.post("/v2/models/x/infer", content=iter(PIECES))
    assert text_error(reply)["code"] == "request_too_large"


def test_too_many_requests_of_kserve_v2_are_told_of_in_a_text(strict: Edge) -> None:
    with strict.client() as http:
        replies = [http.get("/v2/health/live") for _ in range(40)]
    limited = next(reply for reply in replies if reply.status_code == 429)
    assert text_error(limited)["code"] == "rate_limited"
    # The next test of this edge finds it as it was.
    time.sleep(2)


@pytest.mark.parametrize("http2", [False, True])
def test_without_a_server_503_is_json(made: Certificate, tmp_path: Path, http2: bool) -> None:
    (nobody,) = free_ports(1)
    environment = {"RUN_DIR": str(tmp_path), "PATH": ""}
    settings = {"inference_port": nobody}
    with running_edge(made, tmp_path / "log", environment, settings) as proxy:
        edge = Edge(proxy.port, proxy.pid, proxy.log, made.authority, "token")
        with edge.client(http2=http2) as http:
            reply = http.post(PATH, content=PHOTO)
            assert (reply.status_code, error(reply)["code"]) == (503, "unavailable")
            reply = http.post(f"/v2/models/{COLOR_MODEL}/infer", content=b"{}")
            assert (reply.status_code, text_error(reply)["code"]) == (503, "unavailable")


def test_a_server_that_hangs_up_gives_503(made: Certificate, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {"inference_port": listener.getsockname()[1]}
        environment = {"RUN_DIR": str(tmp_path), "PATH": ""}
        with running_edge(made, tmp_path / "log", environment, settings) as proxy:
            edge = Edge(proxy.port, proxy.pid, proxy.log, made.authority, "token")
            connection = edge.connect()
            connection.sendall(
                f"{PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            accepted, _ = listener.accept()
            accepted.close()
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.close()
    assert raw_error(reply) == (503, "unavailable")


# CORS


@pytest.fixture(scope="module")
def with_cors(
    server: Server, made: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    origins = f"{ORIGIN},http://localhost:3000"
    with running(server, made, tmp_path_factory.mktemp("cors"), cors_origins=origins) as edge:
        yield edge


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-explain",
}


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_pages_of_a_listed_origin_may_call(with_cors: Edge, origin: str, http2: bool) -> None:
    with with_cors.client(http2=http2) as http:
        del http.headers["Authorization"]
        asked = http.options(PATH, headers={**PREFLIGHT, "Origin": origin})
        bearer = {"Origin": origin, "Authorization": f"Bearer {with_cors.token}"}
        replies = [
            http.post(PATH, content=PHOTO, headers=bearer),
            http.post(f"{PATH}?alpha=7", content=PHOTO, headers=bearer),
            http.post(PATH, content=PHOTO, headers={"Origin": origin}),
        ]
    assert asked.status_code == 200
    allowed = asked.headers["access-control-allow-headers"].split(", ")
    assert set(PREFLIGHT["Access-Control-Request-Headers"].split(",")) <= set(allowed)
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert [reply.status_code for reply in replies] == [200, 400, 401]
    for reply in (asked, *replies):
        assert reply.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize("origin", [f"{ORIGIN}.evil", "http://cam.example", "null", "*"])
def test_pages_of_another_origin_may_not(with_cors: Edge, origin: str) -> None:
    with with_cors.client() as http:
        asked = http.options(PATH, headers={**PREFLIGHT, "Origin": origin})
        reply = http.post(PATH, content=PHOTO, headers={"Origin": origin})
    assert asked.status_code == 405
    assert "cors_origins" in error(asked)["message"]
    assert reply.status_code == 200
    for answer in (asked, reply):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("http2", [False, True])
def test_a_page_may_read_why_a_path_or_method_is_refused(with_cors: Edge, http2: bool) -> None:
    origin = {"Origin": ORIGIN}
    with with_cors.client(http2=http2) as http:
        replies = [
            http.options("/models", headers={**PREFLIGHT, **origin}),
            http.get("/models", headers=origin),
            http.options("/ping", headers={**PREFLIGHT, **origin}),
            http.get(PATH, headers=origin),
        ]
        foreign = http.get("/models", headers={"Origin": "https://other.example"})
    codes = ["not_found", "not_found", "method_not_allowed", "method_not_allowed"]
    assert [error(reply)["code"] for reply in replies] == codes
    for reply in replies:
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in reply.headers["access-control-expose-headers"]
    assert foreign.status_code == 404
    assert "access-control-allow-origin" not in foreign.headers
    # After an error in a script, the answer would be as it was.
    assert "script log" not in with_cors.log.read_text()


def test_an_expectation_over_http_2_is_refused_by_name(edge: Edge) -> None:
    with edge.client(http2=True) as http:
        reply = http.post(PATH, content=PHOTO, headers={"Expect": "foo"})
    assert (reply.status_code, error(reply)["code"]) == (417, "expectation_failed")
    assert "'foo'" in error(reply)["message"]


@pytest.mark.parametrize("headers", [[("A", "a" * 9000)], [(f"A{n}", "b") for n in range(70)]])
def test_over_http_2_headers_over_the_limit_reset_the_stream(
    edge: Edge, headers: list[tuple[str, str]]
) -> None:
    with edge.client(http2=True) as http, pytest.raises(httpx.RemoteProtocolError, match="reset"):
        http.get("/ping", headers=headers)


def test_cors_is_off_by_default(edge: Edge) -> None:
    with edge.client() as http:
        asked = http.options(PATH, headers={**PREFLIGHT, "Origin": ORIGIN})
        reply = http.post(PATH, content=PHOTO, headers={"Origin": ORIGIN})
    assert (asked.status_code, reply.status_code) == (405, 200)
    for answer in (asked, reply):
        assert not [name for name in answer.headers if name.startswith("access-control")]


# The documents


def test_every_code_of_the_edge_is_documented() -> None:
    sources = "".join((ROOT / "deploy" / name).read_text() for name in ("envoy.yaml", "edge.lua"))
    given = set(
        re.findall(
            r'(?:code: |"code": "|(?:refuse|replace_body)\(handle, \d+, ")([a-z_]+)', sources
        )
    )
    text = (ROOT / "docs" / "errors.md").read_text()
    table = text.split("## What the edge answers by itself")[1].split("\n## ")[0]
    documented = dict(re.findall(r"(?m)^\| `([a-z_]+)` \| (\d+) \|", table))
    assert set(documented) == given - set(HTTP_STATUS)
    assert given
