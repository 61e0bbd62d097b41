"""The load generator against a stub server: what it sends, measures and counts as a failure."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from devtools.benchmark import load_generator
from devtools.benchmark.load_generator import LoadJob
from devtools.errors import LoadError

ANSWERS = {
    "/good": (200, b'{"explanations": [1]}'),
    "/plain": (200, b'{"explanations": []}'),
    "/text": (200, b"good"),
    "/broken": (200, b'{"explanations": }'),
    "/busy": (503, b"{}"),
}


class StubServer:
    """A server that answers by the path, and keeps what it was sent."""

    def __init__(self) -> None:
        self.callers: set[int] = set()
        self.bodies: list[bytes] = []
        self.tokens: set[str | None] = set()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stub.callers.add(self.client_address[1])
                stub.tokens.add(self.headers["Authorization"])
                stub.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = ANSWERS[self.path]
                time.sleep(0.02)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def stub() -> Iterator[StubServer]:
    stub = StubServer()
    thread = Thread(target=stub.server.serve_forever)
    thread.start()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()
    thread.join()


@pytest.fixture
def job(stub: StubServer, tmp_path: Path) -> Callable[..., LoadJob]:
    """Makes a job for the stub."""
    body = tmp_path / "body"
    body.write_bytes(b"photo")

    def make(path: str = "/good", **options: Any) -> LoadJob:
        fields = {"port": stub.port, "expect": "explanations", "connections": 3, **options}
        return LoadJob(
            "127.0.0.1", path=path, headers={"Authorization": "x"}, body=str(body), **fields
        )

    return make


def test_requests_are_counted_and_connections_reused(
    stub: StubServer, job: Callable[..., LoadJob]
) -> None:
    result = load_generator.run(job(requests=12))
    assert len(result.latencies) == 12
    assert result.failures == {}
    assert all(20 <= latency < 5000 for latency in result.latencies)
    assert result.throughput == pytest.approx(12 / result.seconds)
    # Three at a time, four rounds of 20 ms.
    assert result.seconds >= 0.08
    assert len(stub.callers) == 3
    assert set(stub.bodies) == {b"photo"}
    assert stub.tokens == {"x"}
    assert result.p50 <= result.p99 <= max(result.latencies)


def test_a_window_of_time_leaves_the_warmup_out(
    stub: StubServer, job: Callable[..., LoadJob]
) -> None:
    result = load_generator.run(job(seconds=0.3, warmup=0.3, connections=2))
    assert result.seconds == pytest.approx(0.3)
    assert 0 < len(result.latencies) <= 2 * (0.3 / 0.02 + 1)
    assert len(stub.bodies) > len(result.latencies)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/busy", "status 503"),
        ("/text", "a body that is not JSON"),
        ("/broken", "a body that is not JSON"),
        ("/plain", "a reply without explanations"),
    ],
)
def test_an_invalid_reply_is_a_failure_and_has_no_latency(
    job: Callable[..., LoadJob], path: str, reason: str
) -> None:
    result = load_generator.run(job(path, requests=4, connections=2))
    assert result.latencies == ()
    assert result.failures == {reason: 4}
    assert result.throughput == 0
    assert math.isnan(result.p50)


def test_a_refused_connection_is_a_failure(job: Callable[..., LoadJob]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        result = load_generator.run(job(port=bound.getsockname()[1], requests=3))
    ((reason, count),) = result.failures.items()
    assert reason.startswith("ConnectionRefusedError")
    assert count == 3


def test_a_slow_reply_is_a_failure(job: Callable[..., LoadJob]) -> None:
    result = load_generator.run(job(timeout=0.005, requests=2, connections=1))
    assert result.failures == {"TimeoutError: timed out": 2}


def test_the_load_runs_in_a_process_of_its_own(
    stub: StubServer, job: Callable[..., LoadJob]
) -> None:
    calls: list[float] = []
    result = load_generator.run_in_subprocess(
        job(seconds=0.5), on_interval=lambda: calls.append(time.monotonic()), interval=0.1
    )
    assert result.failures == {}
    assert result.latencies
    assert len(calls) >= 2
    with pytest.raises(LoadError, match="No such file"):
        load_generator.run_in_subprocess(LoadJob(**{**vars(job()), "body": "/nowhere"}))
