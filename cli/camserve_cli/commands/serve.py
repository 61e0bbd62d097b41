"""Start, stop and ask after a TorchServe on this machine.

Where it listens: config.properties, or the variables INFERENCE_PORT, MANAGEMENT_PORT, METRICS_PORT,
GRPC_INFERENCE_PORT and GRPC_MANAGEMENT_PORT. RUN_DIR (default: .run) holds what a running server
leaves: its logs, tokens and process id. Servers with a RUN_DIR each do not disturb one another.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psutil
import typer

import configuration
import sizing
from find_java import java_home
from running import ROOT, RUN_DIR, Server, ServerError
from tls import Certificate, CertificateError

#: One JSON object a line, of the server and its workers; and what they say before that is set up.
LOG = RUN_DIR / "logs" / "server.log"
CONSOLE = RUN_DIR / "console.log"
# How often one of PyTorch's threads looks for more to do before it sleeps. That is long enough for
# the gap between two layers, some 50 us; by default it takes a core for milliseconds more, from
# whoever draws the pictures and from TorchServe.
SPINS = "20000"

app = typer.Typer(
    add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _models(store: Path, names: list[str]) -> dict[str, Path]:
    """Name -> archive; every archive of the store where none is named."""
    if not names:
        names = sorted(path.name for path in store.glob("*.mar"))
    chosen = {}
    for name in names:
        name, _, file = name.partition("=") if "=" in name else (name, "", name)
        path = store / (file if file.endswith(".mar") else f"{file}.mar")
        if not path.is_file():
            raise ServerError(f"no archive {path}; build it with scripts/package.py")
        chosen[name.removesuffix(".mar")] = path
    if not chosen:
        raise ServerError(f"no archive in {store}; build one with scripts/package.py")
    return chosen


def _certificate(folder: Path | None) -> Certificate | None:
    """The certificate of --tls, once a client accepts it.

    Raises:
        ServerError: none would.
    """
    if folder is None:
        return None
    certificate = Certificate(folder.resolve())
    try:
        certificate.prove()
    except CertificateError as error:
        raise ServerError(f"--tls {folder}: {error}") from None
    return certificate


def _launch(
    store: Path,
    models: dict[str, Path],
    config: dict[str, str],
    certificate: Certificate | None,
    threads: dict[str, str],
) -> Server:
    """Start TorchServe in the background and note which process it is.

    Args:
        threads: variables that tell workers their threads.
    """
    home = java_home()
    if home is None:
        raise ServerError("no Java of version 17 or later; scripts/setup.sh installs one")
    # TorchServe keeps sockets and its process id in the temporary directory, under fixed names.
    scratch = tempfile.mkdtemp(prefix="camserve-")
    environment = {
        "GOMP_SPINCOUNT": SPINS,
        **os.environ,
        **threads,
        "JAVA_HOME": str(home),
        "TMPDIR": scratch,
        "TEMP": scratch,
        # Into LOG rather than to stdout, which nobody would cut.
        "LOG_TO": "file",
        "LOG_LOCATION": str(LOG.parent),
    }
    with CONSOLE.open("w") as log:
        subprocess.run(
            [
                Path(sys.executable).parent / "torchserve",
                "--start",
                "--no-config-snapshots",
                *("--model-store", store),
                *("--ts-config", RUN_DIR / "config.properties"),
                *("--log-config", ROOT / "log4j2.xml"),
                *("--models", *(f"{name}={path.name}" for name, path in models.items())),
            ],
            cwd=RUN_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        pid = int((Path(scratch) / ".model_server.pid").read_text())
    except FileNotFoundError:
        shutil.rmtree(scratch)
        raise ServerError(f"TorchServe did not start; see {CONSOLE}") from None
    server = Server(
        pid=pid,
        started=psutil.Process(pid).create_time(),
        scratch=scratch,
        inference=config["inference_address"],
        management=config["management_address"],
        grpc=f"{config['grpc_inference_address']}:{config['grpc_inference_port']}",
        models=list(models),
        authority=str(certificate.authority) if certificate else "",
        name=certificate.name() if certificate else "",
    )
    server.save()
    return server


def _failures() -> Iterator[str]:
    """What the workers say of a load that cannot succeed."""
    if LOG.exists():
        # What follows the last line break is half a line.
        for line in LOG.read_text(errors="replace").split("\n")[:-1]:
            entry = json.loads(line)
            if entry["logger"] == "MODEL_LOG" and (
                match := re.match(r"(?:[\w.]+\.)?(\w*Error: .*)", entry["message"])
            ):
                yield match[1]


def _await(server: Server, scale: dict[str, int], seconds: float) -> None:
    """Have models scaled as soon as TorchServe listens, and wait until all their workers answer.

    Args:
        scale: by model, how many workers it is to have, where its archive says otherwise.

    Raises:
        ServerError: it did not start, a model cannot be loaded, or the time is up.
    """
    deadline = time.monotonic() + seconds
    waiting, unscaled = list(server.models), dict(scale)
    while waiting:
        if not server.process():
            raise ServerError(f"TorchServe ended; see {CONSOLE} and {LOG}")
        if failure := next(_failures(), None):
            raise ServerError(f"a model cannot be loaded: {failure}")
        if time.monotonic() > deadline:
            raise ServerError(f"{', '.join(waiting)} not ready after {seconds:g} s; see {LOG}")
        try:
            for name in list(unscaled):
                server.scale(name, unscaled[name])
                del unscaled[name]
            if server.is_loaded(waiting[0]) and server.answers(waiting[0]):
                waiting.pop(0)
                continue
        except ServerError:
            pass  # Java is still starting.
        time.sleep(0.2)


@app.command()
def start(
    store: Annotated[Path, typer.Option(help="The folder of archives.")] = ROOT / "model_store",
    models: Annotated[
        str, typer.Option(help="NAME or NAME=FILE.mar, comma-separated; all by default.")
    ] = "",
    config: Annotated[Path, typer.Option(help="TorchServe's settings.")] = ROOT
    / "config.properties",
    tls: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Speak TLS on every address, by the server.pem, server.key and ca.pem there; "
            "scripts/certificate.py makes them.",
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            help="Workers of each model. auto: one for each core, of one thread; models share the "
            "cores, as far as memory goes, and archives that set workers or threads keep theirs.",
        ),
    ] = sizing.AUTO,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the models.")] = 180,
) -> None:
    """Start the server, wait until its models answer, and say how to call them."""
    wanted = sizing.parse(workers)
    if left := Server.recorded():
        if left.process():
            raise ServerError(f"already running, as process {left.pid}; stop it first")
        left.stop()
    certificate = _certificate(tls)
    store = store.resolve()
    chosen = _models(store, [name for name in models.split(",") if name])
    shutil.rmtree(RUN_DIR / "logs", ignore_errors=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "logging.properties", RUN_DIR)
    (RUN_DIR / "key_file.json").unlink(missing_ok=True)
    values = configuration.write(config, store, certificate)
    configuration.check_replies(values, chosen.values())
    configuration.check_ports(values)
    sized = sizing.choose(wanted, chosen, values)
    server = _launch(store, chosen, values, certificate, sized.environment())
    try:
        _await(server, sized.scale, timeout)
        told = [sizing.told(server, name, sized.reasons.get(name, "")) for name in chosen]
    except BaseException:
        server.stop()
        raise
    ready = f"HTTP {server.inference}, gRPC {server.grpc}, log in {LOG}"
    how = server.how_to_call(server.models[0], "PHOTO.jpg")
    typer.echo("\n".join([f"{', '.join(server.models)} ready: {ready}", *told, how]))


@app.command()
def stop() -> None:
    """Stop the server."""
    server = Server.recorded()
    ran = server is not None and server.process() is not None
    if server:
        # One that died leaves things behind, too.
        server.stop()
    typer.echo("stopped" if ran else "not running")


@app.command()
def status() -> None:
    """Say whether the server runs and each model answers; exit 1 where not."""
    server = Server.find()
    if server is None:
        typer.echo("not running")
        raise typer.Exit(1)
    typer.echo(f"process {server.pid}: HTTP {server.inference}, gRPC {server.grpc}")
    healthy = True
    for name in server.models:
        states = server.workers(name)
        refusal = server.refusal(name)
        healthy &= refusal is None
        says = f"DOES NOT ANSWER ({refusal})" if refusal else "answers"
        typer.echo(f"{name}: {says}; workers {states}")
    raise typer.Exit(0 if healthy else 1)


class Kind(StrEnum):
    """The addresses that a token opens."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


@app.command()
def token(
    kind: Annotated[Kind, typer.Argument(help="What it opens.")] = Kind.INFERENCE,
) -> None:
    """Print a token that is good for at least a minute."""
    server = Server.find()
    if server is None:
        raise ServerError("not running")
    typer.echo(server.token(kind.value))


def main() -> None:
    try:
        app()
    except ServerError as error:
        typer.echo(f"serve: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
