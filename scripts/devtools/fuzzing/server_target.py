"""A running server, and one call of it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from soaking.calls import Call

#: Seconds that an answer may take; what takes longer hangs.
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        code: HTTP's status, or gRPC's by name; ``none`` where nothing came in time.
        body: HTTP's, or each message's, still serialized.
        says: what gRPC, or a broken connection, says.
        seconds: from the request to the answer's end.
    """

    code: str
    body: tuple[bytes, ...]
    says: str
    seconds: float


@dataclass(frozen=True)
class Target:
    """Where calls go.

    Attributes:
        base: of HTTP.
        token: for inference.
        pid: of the Java process.
        model: its name.
        colours: it is the tests' constructed network, which tells a photo's colour.
        authority: with TLS, who vouches for the server.
    """

    base: str
    grpc: str
    token: str
    pid: int
    model: str
    colours: bool
    authority: Path | None = None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One connection of HTTP and one of gRPC, for one thread."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with (
            httpx.Client(base_url=self.base, timeout=PATIENCE, verify=self._verify()) as http,
            self._channel(options) as channel,
        ):
            yield Connection(self, http, channel)

    def _verify(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.authority) if self.authority else True

    def _channel(self, options: list[tuple[str, int]]) -> Any:
        if self.authority is None:
            return grpc.insecure_channel(self.grpc, options)
        trusted = grpc.ssl_channel_credentials(self.authority.read_bytes())
        return grpc.secure_channel(self.grpc, trusted, options)


@dataclass(frozen=True)
class Connection:
    """Sends calls, one after the other."""

    target: Target
    http: httpx.Client
    channel: grpc.Channel

    def send(self, call: Call) -> Answer:
        """What comes back; never an exception for what the server does."""
        start = time.perf_counter()
        try:
            if call.protocol == "http":
                code, body = self._over_http(call)
            else:
                code, body = "OK", self._over_grpc(call)
            says = ""
        except httpx.HTTPError as failure:
            code, body, says = "none", (), f"{type(failure).__name__}: {failure}"
        except grpc.RpcError as failure:
            code, body, says = failure.code().name, (), failure.details() or ""
        return Answer(code, body, says, time.perf_counter() - start)

    def _over_http(self, call: Call) -> tuple[str, tuple[bytes, ...]]:
        headers = [("Authorization", f"Bearer {self.target.token}"), *call.headers]
        reply = self.http.request(
            call.method,
            "/",
            content=call.body,
            headers=[(name.encode(), value.encode()) for name, value in headers],
            # As it stands: what is no URL is part of what is sent.
            extensions={"target": call.target.encode()},
        )
        return str(reply.status_code), (reply.content,)

    def _over_grpc(self, call: Call) -> tuple[bytes, ...]:
        more = {
            "metadata": [("protocol", "gRPC"), ("authorization", f"Bearer {self.target.token}")],
            "timeout": PATIENCE,
        }
        if call.protocol == "unary":
            return (self.channel.unary_unary(call.method, _same, _same)(call.body, **more),)
        if call.protocol == "stream":
            return tuple(self.channel.unary_stream(call.method, _same, _same)(call.body, **more))
        several = self.channel.stream_stream(call.method, _same, _same)
        return tuple(several(iter([call.body]), **more))


def _same(message: bytes) -> bytes:
    """In place of protobuf's own, so that what is no message can be sent."""
    return message
