"""Start, stop and check a TorchServe on this machine.

Where it listens: config.properties, or the variables INFERENCE_PORT,
MANAGEMENT_PORT, METRICS_PORT, GRPC_INFERENCE_PORT and GRPC_MANAGEMENT_PORT;
with --open-inference also OPEN_INFERENCE_PORT (8000) and
OPEN_INFERENCE_GRPC_PORT (8001).
RUN_DIR (default: .run) holds what a running server leaves: its logs, tokens
and process id. Servers with different RUN_DIRs do not disturb one another.

Examples:

  camserve serve start --models resnet50
  camserve serve status
  camserve serve token
  camserve serve stop
"""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from camserve_cli import paths
from camserve_cli.serving import sizing
from camserve_cli.serving.launch import start_server, stop_server
from camserve_cli.serving.local_server import LocalServer, ServerError
from camserve_cli.serving.startup import LOG

NOT_RUNNING = f"not running (RUN_DIR is {paths.RUN_DIR})"

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)


@app.command()
def start(
    store: Annotated[
        Path, typer.Option(help="The folder of archives.", show_default=paths.STORE_SHOWN)
    ] = paths.STORE,
    models: Annotated[
        str, typer.Option(help="NAME or NAME=FILE.mar, comma-separated; all by default.")
    ] = "",
    config: Annotated[
        Path,
        typer.Option(help="TorchServe's settings.", show_default=paths.CONFIG_SHOWN),
    ] = paths.CONFIG_PROPERTIES,
    tls: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Speak TLS on every address, by the server.pem, server.key and ca.pem there; "
            "`camserve certificate` makes them.",
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            help="Workers per model. auto: one per core, with one thread, as far as memory allows; "
            "several models share the cores; an archive that sets workers or threads keeps them.",
        ),
    ] = sizing.AUTO,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the models.")] = 180,
    open_inference: Annotated[
        bool,
        typer.Option(
            "--open-inference",
            help="Also answer KServe's and Triton's own clients, over HTTP and gRPC, on the ports "
            "OPEN_INFERENCE_PORT and OPEN_INFERENCE_GRPC_PORT.",
        ),
    ] = False,
) -> None:
    """Start the server, wait until its models answer, and say how to call them.

    The server runs in the background until `camserve serve stop`.

    Examples:

      camserve serve start
      camserve serve start --models resnet50,pets --workers 2
      camserve serve start --tls .tls
      camserve serve start --open-inference
    """
    names = [name.strip() for name in models.split(",")] if models else []
    server, lines = start_server(
        store, names, config, tls, workers, timeout, _report, open_inference=open_inference
    )
    ready = f"HTTP {server.inference}, gRPC {server.grpc}, log in {LOG}"
    if server.front:
        lines.append(f"Open Inference: HTTP {server.front.http}, gRPC {server.front.grpc}")
    how = server.how_to_call(server.models[0], "PHOTO.jpg")
    typer.echo("\n".join([f"{', '.join(server.models)} ready: {ready}", *lines, how]))


def _report(line: str) -> None:
    """Say how far a start is, on stderr: stdout has what a start results in."""
    typer.echo(f"serve: {line}", err=True)


@app.command()
def stop() -> None:
    """Stop the server.

    Its tokens end with it; its logs stay in RUN_DIR.

    Examples:

      camserve serve stop
      RUN_DIR=/var/lib/camserve camserve serve stop
    """
    typer.echo("stopped" if stop_server() else NOT_RUNNING)


@app.command()
def status() -> None:
    """Say whether the server runs and each model answers; exit 1 if not.

    Each model is asked for a prediction.

    Examples:

      camserve serve status
      RUN_DIR=/var/lib/camserve camserve serve status
    """
    server = LocalServer.running()
    if server is None:
        typer.echo(NOT_RUNNING)
        raise typer.Exit(1)
    typer.echo(f"process {server.pid}: HTTP {server.inference}, gRPC {server.grpc}")
    healthy = True
    for name in server.models:
        states = Counter(server.workers(name))
        workers = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
        refusal = server.why_not_ready(name)
        healthy &= refusal is None
        says = f"DOES NOT ANSWER ({refusal})" if refusal else "answers"
        typer.echo(f"{name}: {says}; workers: {workers}")
    if server.front:
        refusal = server.front.why_not_ready(server.trust())
        healthy &= refusal is None
        says = f"DOES NOT ANSWER ({refusal})" if refusal else "answers"
        typer.echo(f"Open Inference: HTTP {server.front.http}, gRPC {server.front.grpc}: {says}")
    raise typer.Exit(0 if healthy else 1)


class Kind(StrEnum):
    """The addresses that a token opens."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


@app.command()
def token(
    kind: Annotated[Kind, typer.Argument(help="The API that it opens.")] = Kind.INFERENCE,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON: token, expires (UTC) and seconds_left."),
    ] = False,
    renew: Annotated[
        bool,
        typer.Option("--renew", help="Make a new one now, as after a leak; the former ends."),
    ] = False,
) -> None:
    """Print the current token, or a new one if that is about to expire.

    A token is valid for an hour, unless token_expiration_min of --config says otherwise. A new one
    ends the one before it, for everybody. So it is renewed in the last tenth of its life only, and
    at most in its last 60 seconds; callers that ask at the same time get the same one.

    --renew makes a new one at once, for a token that somebody should not have.

    Examples:

      camserve serve token
      camserve serve token management
      camserve serve token --json
      camserve serve token --renew
    """
    server = LocalServer.running()
    if server is None:
        raise ServerError(NOT_RUNNING)
    token = server.current_token(kind.value, replace=renew)
    if renew:
        _report(f"the former {kind.value} token has ended, for every caller")
    typer.echo(json.dumps(token.to_json()) if as_json else token.text)
