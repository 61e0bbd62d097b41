"""Envoy as deploy/envoy.yaml has it, in front of a server, and clients of it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from camserve_cli.serving.certificates import Certificate
from devtools.edge_proxy import running_edge
from tests.support.server_client import Client

#: So long may a machine under load take for what the settings bound in a second or two.
PATIENCE = 30


@dataclass(frozen=True)
class Edge:
    """A running Envoy: its port, its process, its log, and what verifies and passes it."""

    port: int
    pid: int
    log: Path
    authority: Path
    token: str

    def trust(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def client(self, *, http2: bool = False, token: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=self.trust(),
            http2=http2,
            headers={"Authorization": f"Bearer {self.token if token is None else token}"},
            timeout=60,
        )

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        options = [
            ("grpc.max_send_message_length", -1),
            # Its retries would hide what the edge says first.
            ("grpc.enable_retries", 0),
        ]
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            yield channel

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        return self.trust("http/1.1").wrap_socket(plain, server_hostname="127.0.0.1")

    def raw(self, sent: bytes) -> bytes:
        """All that comes back for these bytes, until the edge closes the connection."""
        with self.connect() as connection:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def ask(self, line: str, *headers: str, body: str = "") -> bytes:
        """A request, word for word."""
        first = (f"{line} HTTP/1.1", "Host: cam.example", f"Authorization: Bearer {self.token}")
        return self.raw("\r\n".join([*first, *headers, "", body]).encode())


@contextmanager
def running(server: Client, made: Certificate, folder: Path, **chosen: object) -> Iterator[Edge]:
    # Envoy is found where the package put it, not on PATH.
    environment = {**server.ports, "RUN_DIR": str(server.run_dir), "PATH": ""}
    with running_edge(made, folder / "edge.log", environment, chosen) as proxy:
        yield Edge(proxy.port, proxy.pid, proxy.log, made.authority, server.token)


def status(reply: bytes) -> int:
    """The status of the one reply that there is; 0 for none."""
    assert reply.count(b"HTTP/1.") <= 1
    return int(reply.split(b" ")[1]) if reply else 0
