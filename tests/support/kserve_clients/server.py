"""A server with the Open Inference front, for the clients, and its plain HTTP to compare with."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from devtools.ports import free_ports, free_server_ports
from tests.support.fault_server import wait_until
from tests.support.scripts import COLOR_MODEL, camserve


@dataclass(frozen=True)
class OpenInferenceServer:
    """A running server.

    Attributes:
        environment: its variables.
        token: that it accepts.
        authority: the file of what signed its certificate; empty without TLS.
    """

    environment: dict[str, str]
    token: str
    authority: str = ""

    @property
    def http(self) -> str:
        """Host and port of KServe's HTTP."""
        return f"127.0.0.1:{self.environment['OPEN_INFERENCE_PORT']}"

    @property
    def grpc(self) -> str:
        """Host and port of KServe's gRPC."""
        return f"127.0.0.1:{self.environment['OPEN_INFERENCE_GRPC_PORT']}"

    def explain(self, photo: bytes, **options: Any) -> dict[str, Any]:
        """The reply to a photo and its options over plain HTTP, from TorchServe itself."""
        reply = httpx.post(
            f"http://127.0.0.1:{self.environment['INFERENCE_PORT']}/predictions/{COLOR_MODEL}",
            content=photo,
            headers={"Authorization": f"Bearer {self.token}", "X-Explain": json.dumps(options)},
            timeout=60,
        )
        return dict(reply.raise_for_status().json())


@contextmanager
def running_server(
    store: Path, folder: Path, tls: Path | None = None, *models: str
) -> Iterator[OpenInferenceServer]:
    """A server of its own, as ``camserve serve start --open-inference`` starts it.

    Args:
        store: of the archives.
        folder: for its logs and tokens.
        tls: holds a certificate; None without TLS.
        models: of the store.
    """
    environment = {"RUN_DIR": str(folder), **free_server_ports()}
    options: list[str | Path] = ["--store", store, "--models", ",".join(models), "--workers", "1"]
    if tls:
        options += ["--tls", tls]
    camserve("serve", "start", "--open-inference", *options, **environment)
    try:
        token = camserve("serve", "token", **environment).strip()
        authority = str(tls / "ca.pem") if tls else ""
        yield OpenInferenceServer(environment, token, authority)
    finally:
        camserve("serve", "stop", **environment)


@contextmanager
def front_without_server(folder: Path) -> Iterator[OpenInferenceServer]:
    """A front whose TorchServe is away.

    Args:
        folder: for its log.
    """
    http, grpc, nobody = free_ports(3)
    addresses = {"http": http, "grpc": grpc}
    options = [f"--{name}=127.0.0.1:{port}" for name, port in addresses.items()]
    options += [f"--{name}=http://127.0.0.1:{nobody}" for name in ("inference", "management")]
    options += [f"--tokens={folder}", f"--log={folder / 'front.log'}"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "camserve_cli.open_inference", *options]
    )
    try:
        wait_until(lambda: _listens(grpc) and _listens(http), 30, "the front listens")
        ports = {"OPEN_INFERENCE_PORT": str(http), "OPEN_INFERENCE_GRPC_PORT": str(grpc)}
        yield OpenInferenceServer(ports, "token")
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
