"""Envoy as ``camserve edge`` runs it, for as long as a ``with`` block."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from camserve_cli.serving.certificates import Certificate
from devtools.errors import SetupError
from devtools.ports import free_ports

#: In seconds, for Envoy to listen, and to end.
_TIMEOUT = 60


@dataclass(frozen=True)
class EdgeProxy:
    """A running Envoy.

    Attributes:
        port: of loopback, where it speaks TLS.
        pid: of its process.
        log: the file of its output.
    """

    port: int
    pid: int
    log: Path


@contextmanager
def running_edge(
    certificate: Certificate,
    log: Path,
    environment: Mapping[str, str],
    settings: Mapping[str, object],
) -> Iterator[EdgeProxy]:
    """Start deploy/envoy.yaml in front of a server, and stop it at the end.

    Args:
        certificate: of the edge.
        log: the file to write its output to.
        environment: variables that name the server, such as ``RUN_DIR``; over this process's own.
        settings: of ``camserve edge --set``.

    Raises:
        SetupError: it does not start.
    """
    (port,) = free_ports(1)
    all_settings = {"listen_port": port, **settings}
    options = [f"--set={name}={value}" for name, value in all_settings.items()]
    options.append(f"--tls={certificate.folder}")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "camserve_cli", "edge", *options],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _TIMEOUT
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"the edge does not start: {log.read_text()[-500:]}")
            time.sleep(0.05)
        yield EdgeProxy(port, process.pid, log)
    finally:
        process.terminate()
        process.wait(timeout=_TIMEOUT)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
