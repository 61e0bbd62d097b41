"""A server behind its edge proxy, as the public reaches it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from camserve_cli.serving.certificate_authority import issue
from devtools.errors import SetupError
from devtools.fuzzing.server_target import ServerTarget
from devtools.paths import SCRIPTS
from devtools.ports import free_ports

#: The edge's limits on the rate, set higher than any client of this machine can send.
_RATE_LIMITS = ("rate", "burst", "client_rate", "client_burst")


@contextmanager
def behind_edge(target: ServerTarget, run_dir: Path, folder: Path) -> Iterator[ServerTarget]:
    """Start deploy/envoy.yaml in front of a server, and stop it at the end.

    Args:
        target: the server itself.
        run_dir: the server's run directory.
        folder: for a certificate and ``edge.log``.

    Raises:
        SetupError: it does not start.
    """
    made = issue(folder / "tls", ["127.0.0.1"], 1)
    (port,) = free_ports(1)
    settings = {"listen_port": port, **dict.fromkeys(_RATE_LIMITS, 100_000)}
    options = [f"--set={name}={value}" for name, value in settings.items()]
    log = folder / "edge.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, SCRIPTS / "edge.py", "--tls", made.folder, *options],
            env={**os.environ, "RUN_DIR": str(run_dir)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"the edge does not start: {log.read_text()[-500:]}")
            time.sleep(0.05)
        base = f"https://127.0.0.1:{port}"
        yield replace(target, base=base, grpc=f"127.0.0.1:{port}", authority=made.authority)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
