"""A server behind its edge, as the public reaches it."""

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

from benchmark.networks import SetupError
from camserve_cli.serving.certificate_authority import issue
from soaking.target import Target

#: More than any client of this machine sends: what is tried is not the bound on the rate.
_UNBOUND = ("rate", "burst", "client_rate", "client_burst")


@contextmanager
def edge(target: Target, run_dir: Path, folder: Path) -> Iterator[Target]:
    """Start deploy/envoy.yaml in front of a server, and stop it.

    Args:
        target: the server itself.
        run_dir: of the server.
        folder: for a certificate and the edge's log.

    Raises:
        SetupError: it does not start.
    """
    made = issue(folder / "tls", ["127.0.0.1"], 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chosen = {"listen_port": port, **dict.fromkeys(_UNBOUND, 100_000)}
    pairs = [f"--set={name}={value}" for name, value in chosen.items()]
    log = folder / "edge.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "camserve_cli", "edge", "--tls", made.folder, *pairs],
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
