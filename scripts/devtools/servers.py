"""The two TorchServes that are compared, each with one archive, as context managers.

Ours is started by ``camserve serve`` with the project's config.properties. The stock one is started
by TorchServe's own launcher with nothing set but where it listens, so that whatever the project
does to a server is in the comparison.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from benchmark.load import SCRIPTS, Job
from benchmark.networks import SetupError
from camserve_cli.serving.java import java_home
from camserve_cli.serving.torchserve_config import PORT_VARIABLES

#: Seconds that a server may take to answer; ours may compile.
START_TIMEOUT = 300
#: Minutes; a token must outlive the longest measurement.
TOKEN_MINUTES = 24 * 60


@dataclass(frozen=True)
class Side:
    """A running TorchServe with one model.

    Attributes:
        name: what it is called in the results.
        model: the name that its model is served under.
        base: the inference address.
        headers: what authorizes a request.
        pid: its Java process, or the launcher that waits for it.
        metrics: the address of its metrics.
        described: what it says of how it runs; nothing where it says nothing.
    """

    name: str
    model: str
    base: str
    headers: dict[str, str]
    pid: int
    metrics: str
    described: dict[str, Any]

    def job(self, photo: Path, connections: int, *, call: str = "predictions") -> Job:
        """Requests for predictions, or explanations, of a photo; without an end yet."""
        address = urlsplit(self.base)
        return Job(
            host=str(address.hostname),
            port=int(address.port or 80),
            path=f"/{call}/{self.model}",
            headers={**self.headers, "Content-Type": "image/jpeg"},
            body=str(photo),
            connections=connections,
        )

    def family(self) -> list[psutil.Process]:
        """Java, its workers, and what those started."""
        top = psutil.Process(self.pid)
        return [top, *top.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The Python processes that run the handler.

        Raises:
            SetupError: there are none.
        """
        found = []
        for process in self.family():
            with suppress(psutil.Error):
                if any("model_service_worker" in word for word in process.cmdline()):
                    found.append(process)
        if not found:
            raise SetupError(f"{self.name}: TorchServe has no worker process")
        return found

    def cpu_seconds(self) -> float:
        """What its processes have used of a processor since they began."""
        used = 0.0
        for process in self.family():
            with suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
        return used


@contextmanager
def ours(
    archive: Path, photo: Path, folder: Path, workers: str = "auto", name: str = "ours"
) -> Iterator[Side]:
    """Our server, as scripts/serve.sh starts it.

    Args:
        photo: to prove it with.
        folder: new, for its logs.
        workers: as ``serve.sh start --workers`` has it.
        name: what it is called in the results.

    Raises:
        SetupError: it does not start or answer.
    """
    folder.mkdir(parents=True)
    (folder / "bench.properties").write_text(_long_tokens(SCRIPTS.parent / "config.properties"))
    environment = {**os.environ, "RUN_DIR": str(folder / "run"), **_free_ports()}
    start = (
        *("start", "--store", str(archive.parent), "--models", f"ours={archive.name}"),
        *("--config", str(folder / "bench.properties"), "--timeout", str(START_TIMEOUT)),
        *("--workers", workers),
    )
    try:
        _server(environment, *start)
        token = _server(environment, "token").strip()
        record = json.loads((folder / "run" / "server.json").read_text())
        headers = {"Authorization": f"Bearer {token}"}
        metrics = f"http://127.0.0.1:{environment['METRICS_PORT']}"
        described = _described(
            record["management"], _server(environment, "token", "management").strip()
        )
        base, pid = record["inference"], record["pid"]
        side = Side(name, "ours", base, headers, pid, metrics, described)
        _prove(side, photo, lambda: psutil.pid_exists(side.pid), folder)
        yield side
    finally:
        _server(environment, "stop")


@contextmanager
def stock(archive: Path, photo: Path, folder: Path) -> Iterator[Side]:
    """TorchServe as it comes, with one archive; see :func:`ours`."""
    folder.mkdir(parents=True)
    java = java_home()
    if java is None:
        raise SetupError("no Java of version 17 or later; scripts/setup.sh installs one")
    ports = _free_ports()
    local = {
        key: f"http://127.0.0.1:{ports[variable]}" if key.endswith("address") else ports[variable]
        for key, variable in PORT_VARIABLES.items()
    }
    settings = {
        **local,
        "disable_token_authorization": "true",
        "default_workers_per_model": "1",
        # The gradients of one photo, written as JSON, come close to the default of 6.5 MB.
        "max_response_size": str(2**26),
    }
    config = folder / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    # TorchServe keeps sockets and its process id in the temporary directory, under fixed names,
    # and the names of sockets must be short.
    scratch = tempfile.mkdtemp(prefix="bench-")
    process = None
    try:
        with (folder / "server.log").open("w") as log:
            process = subprocess.Popen(
                [
                    *(Path(sys.executable).parent / "torchserve", "--start", "--foreground"),
                    *("--no-config-snapshots", "--model-store", archive.parent),
                    *("--ts-config", config, "--models", f"stock={archive.name}"),
                ],
                cwd=folder,
                env={**os.environ, "JAVA_HOME": str(java), "TMPDIR": scratch, "TEMP": scratch},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the bench, which ends what it started.
                start_new_session=True,
            )
        launcher = process
        address = settings["inference_address"], settings["metrics_address"]
        side = Side("stock", "stock", address[0], {}, process.pid, address[1], {})
        _prove(side, photo, lambda: launcher.poll() is None, folder)
        yield side
    finally:
        if process:
            _end(process)
        shutil.rmtree(scratch, ignore_errors=True)


def ended(number: int, frame: object) -> None:
    """A signal's handler: leave as an error would, so that the servers are stopped."""
    sys.exit(128 + number)


def _described(management: str, token: str) -> dict[str, Any]:
    """What our model says of itself under ``model``, precision and the like, and its workers."""
    reply = httpx.get(
        f"{management}/models/ours?customized=true",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    (told,) = reply.json()
    return {**told["customizedMetadata"]["model"], "workers": len(told["workers"])}


def _long_tokens(config: Path) -> str:
    """A config.properties whose tokens last, its places named from anywhere."""
    text = re.sub(
        r"(?m)^token_expiration_min=.*", f"token_expiration_min={TOKEN_MINUTES}", config.read_text()
    )
    return re.sub(r"(?m)^metrics_config=", f"metrics_config={config.parent}/", text)


def _prove(side: Side, photo: Path, alive: Callable[[], bool], folder: Path) -> None:
    """Wait until the model predicts the photo.

    Raises:
        SetupError: the server ended, or the time is up.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while alive() and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            reply = httpx.post(
                f"{side.base}/predictions/{side.model}",
                content=photo.read_bytes(),
                headers=side.headers,
                timeout=60,
            )
            if reply.status_code == 200:
                return
        time.sleep(0.2)
    raise SetupError(f"the {side.name} server does not answer; its logs are in {folder}")


def _server(environment: dict[str, str], *arguments: str) -> str:
    """Run ``camserve serve``; what it prints."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "camserve_cli", "serve", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            # It ends the server that it is about to start when it is interrupted, not when killed.
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    if process.returncode != 0:
        raise SetupError(err.strip() or out.strip())
    return out


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a launcher, the Java it waits for and its workers, by their ids."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(process.pid)
        family = [*reversed(top.children(recursive=True)), top]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=10)
    process.wait()


def _free_ports() -> dict[str, str]:
    """A free port for each of a server's addresses, by the variable that names it."""
    sockets = [socket.socket() for _ in PORT_VARIABLES]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return dict(zip(PORT_VARIABLES.values(), ports, strict=True))
