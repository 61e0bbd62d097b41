"""A running server that calls are sent to, and a connection that sends them."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx

from devtools.fuzzing.calls import Call

#: Seconds that an answer may take; a call that takes longer hangs.
TIMEOUT = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back for a call.

    Attributes:
        code: HTTP's status, or gRPC's by name; ``none`` where nothing came in time.
        body: HTTP's, or each message's, still serialized.
        detail: the message of gRPC's status, or of a connection's error.
        seconds: from the call to the end of the answer.
    """

    code: str
    body: tuple[bytes, ...]
    detail: str
    seconds: float


@dataclass(frozen=True)
class ServerTarget:
    """Where calls are sent to.

    Attributes:
        base: URL of the HTTP address.
        grpc: host:port.
        token: for inference.
        pid: of the Java process.
        model: its name.
        predicts_color: the model is the tests' constructed network, which predicts the colour of a
            valid photo.
        authority: with TLS, the file of the authority that signed the server's certificate.
        is_front: it is the Open Inference front of the server.
    """

    base: str
    grpc: str
    token: str
    pid: int
    model: str
    predicts_color: bool
    authority: Path | None = None
    is_front: bool = False

    @classmethod
    def from_run_dir(
        cls, run_dir: Path, token: str, model: str, *, predicts_color: bool
    ) -> ServerTarget:
        """The server that scripts/serve.sh started with this RUN_DIR."""
        server = json.loads((run_dir / "server.json").read_text())
        return cls(server["inference"], server["grpc"], token, server["pid"], model, predicts_color)

    def front(self, run_dir: Path) -> ServerTarget:
        """The Open Inference front that was started before this server.

        Args:
            run_dir: the server's.
        """
        noted = json.loads((run_dir / "server.json").read_text())["front"]
        return replace(self, base=noted["http"], grpc=noted["grpc"], is_front=True)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One HTTP and one gRPC connection, for one thread."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with (
            httpx.Client(base_url=self.base, timeout=TIMEOUT, verify=self._verify()) as http,
            self._channel(options) as channel,
        ):
            yield Connection(self, http, channel)

    def _verify(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.authority) if self.authority else True

    def _channel(self, options: list[tuple[str, int]]) -> Any:
        if self.authority is None:
            return grpc.insecure_channel(self.grpc, options)
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        return grpc.secure_channel(self.grpc, credentials, options)


@dataclass(frozen=True)
class Connection:
    """Sends calls one after the other."""

    target: ServerTarget
    http: httpx.Client
    channel: grpc.Channel

    def send(self, call: Call) -> Answer:
        """The answer to a call; it raises nothing that the server causes."""
        start = time.perf_counter()
        try:
            if call.protocol == "http":
                code, body = self._send_http(call)
            else:
                code, body = "OK", self._send_grpc(call)
            detail = ""
        except httpx.HTTPError as failure:
            code, body, detail = "none", (), f"{type(failure).__name__}: {failure}"
        except grpc.RpcError as failure:
            code, body, detail = failure.code().name, (), failure.details() or ""
        return Answer(code, body, detail, time.perf_counter() - start)

    def _send_http(self, call: Call) -> tuple[str, tuple[bytes, ...]]:
        headers = [("Authorization", f"Bearer {self.target.token}"), *call.headers]
        reply = self.http.request(
            call.method,
            "/",
            content=call.body,
            headers=[(name.encode(), value.encode()) for name, value in headers],
            # Unescaped: what is no valid URL is part of the test.
            extensions={"target": call.target.encode()},
        )
        return str(reply.status_code), (reply.content,)

    def _send_grpc(self, call: Call) -> tuple[bytes, ...]:
        options = {
            "metadata": [("protocol", "gRPC"), ("authorization", f"Bearer {self.target.token}")],
            "timeout": TIMEOUT,
        }
        if call.protocol == "unary":
            method = self.channel.unary_unary(call.method, _unchanged, _unchanged)
            return (method(call.body, **options),)
        if call.protocol == "stream":
            method = self.channel.unary_stream(call.method, _unchanged, _unchanged)
            return tuple(method(call.body, **options))
        method = self.channel.stream_stream(call.method, _unchanged, _unchanged)
        return tuple(method(iter([call.body]), **options))


def _unchanged(message: bytes) -> bytes:
    """In place of protobuf's own (de)serializer, so that any bytes can be sent."""
    return message
