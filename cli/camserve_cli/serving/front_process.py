"""The Open Inference front of a server: started beside it, found again, and stopped before it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import psutil

from camserve_cli.errors import CommandError
from camserve_cli.paths import RUN_DIR
from camserve_cli.serving import ready
from camserve_cli.serving.certificates import Certificate, PinnedHostContext
from camserve_cli.serving.processes import living_process

#: The variables that set the front's ports, and the ports without them, which are Triton's.
PORTS: Final = {"OPEN_INFERENCE_PORT": 8000, "OPEN_INFERENCE_GRPC_PORT": 8001}
#: The options that take their values from TorchServe's settings, by their keys there.
_LIMITS: Final = {
    "max_request_size": "--max-request",
    "max_response_size": "--max-reply",
    "job_queue_size": "--max-waiting",
}
#: One JSON object a line; and what it says before that is set up.
LOG: Final = RUN_DIR / "logs" / "open_inference.log"
_CONSOLE: Final = RUN_DIR / "open_inference.console.log"
#: Seconds that it has to listen, and to answer what is in work once it is told to stop (it takes 20
#: at most).
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 25.0


class FrontStartError(CommandError):
    """What keeps the front from starting, in words for the person who starts it."""


@dataclass(frozen=True)
class FrontProcess:
    """A front that was started here.

    Attributes:
        pid, started: its process; the start time tells it from a later process of that id.
        http: base URL.
        grpc: host:port.
    """

    pid: int
    started: float
    http: str
    grpc: str

    def process(self) -> psutil.Process | None:
        """The process, while it lives."""
        return living_process(self.pid, self.started)

    def why_not_ready(self, trust: PinnedHostContext | None, timeout: float = 15) -> str | None:
        """Why it does not say in so many seconds that all models answer; None where it does."""
        if self.process() is None:
            return f"its process has ended; see {LOG}"
        try:
            status, _ = ready.Address(self.http, timeout, trust).call("GET", "/v2/health/ready")
        except ready.NotReadyError as failure:
            return str(failure)
        return None if status == 200 else "not every model answers"

    def stop(self) -> None:
        """End it, once it has answered what is in work."""
        process = self.process()
        if process is None:
            return
        process.terminate()
        _, alive = psutil.wait_procs([process], timeout=_STOP_SECONDS)
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=10)


def launch(
    upstream: Mapping[str, str],
    config: Mapping[str, str],
    ports: Mapping[str, int],
    certificate: Certificate | None,
) -> FrontProcess:
    """Start the front in the background, and wait until it answers.

    Args:
        upstream: the options of ``python -m camserve_cli.open_inference`` that name the server.
        config: TorchServe's keys and values, for the addresses and the limits.
        ports: by the names of :data:`PORTS`.
        certificate: with which it speaks TLS; None for none.

    Raises:
        FrontStartError: it ended, or did not answer in 30 seconds.
    """
    http_host = urlsplit(config["inference_address"]).netloc.rpartition(":")[0]
    http = f"{http_host}:{ports['OPEN_INFERENCE_PORT']}"
    grpc = f"{config['grpc_inference_address']}:{ports['OPEN_INFERENCE_GRPC_PORT']}"
    options = {**upstream, "--http": http, "--grpc": grpc, "--log": str(LOG)}
    if certificate:
        options["--tls"] = str(certificate.folder)
    options |= {option: config[key] for key, option in _LIMITS.items() if key in config}
    command = [sys.executable, "-P", "-m", "camserve_cli.open_inference"]
    with _CONSOLE.open("w") as console:
        process = subprocess.Popen(
            [*command, *(part for option in options.items() for part in option)],
            cwd=RUN_DIR,
            # gRPC writes a line for each connection that fails, which nobody would cut.
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        front = FrontProcess(
            process.pid,
            psutil.Process(process.pid).create_time(),
            f"{'https' if certificate else 'http'}://{http}",
            grpc,
        )
        trust = None
        if certificate:
            trust = PinnedHostContext.of(str(certificate.authority), certificate.name())
        _wait_until_it_answers(process, ready.Address(front.http, 5, trust))
    except BaseException:
        process.kill()
        process.wait()
        raise
    return front


def chosen_ports() -> dict[str, str]:
    """The ports by the names of :data:`PORTS`, as the environment or the defaults have them."""
    return {name: os.environ.get(name) or str(port) for name, port in PORTS.items()}


def _wait_until_it_answers(process: subprocess.Popen[bytes], address: ready.Address) -> None:
    """Return once it answers over HTTP; it listens over gRPC by then as well.

    Raises:
        FrontStartError: it ended, or does not answer.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = _CONSOLE.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise FrontStartError(f"the Open Inference front ended: {' '.join(said)[:300]}")
        try:
            address.call("GET", "/v2/health/live")
        except ready.NotReadyError:
            time.sleep(0.1)
            continue
        return
    raise FrontStartError(f"the Open Inference front does not answer; see {LOG} and {_CONSOLE}")
