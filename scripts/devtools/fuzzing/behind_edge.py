"""A server behind its edge proxy, as the public reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from camserve_cli.serving.certificate_authority import issue
from devtools.edge_proxy import running_edge
from devtools.fuzzing.server_target import ServerTarget

#: The edge's limits on the rate, set higher than any client of this machine can send.
_RATE_LIMITS = dict.fromkeys(("rate", "burst", "client_rate", "client_burst"), 100_000)


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
    certificate = issue(folder / "tls", ["127.0.0.1"], 1)
    environment = {"RUN_DIR": str(run_dir)}
    with running_edge(certificate, folder / "edge.log", environment, _RATE_LIMITS) as edge:
        address = f"127.0.0.1:{edge.port}"
        yield replace(
            target, base=f"https://{address}", grpc=address, authority=certificate.authority
        )
