"""A running TorchServe that is measured or tested, and ours as a context manager.

`camserve serve start` starts ours with the project's config.properties, so that whatever the
project does to a server is part of the measurement.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from devtools.errors import SetupError
from devtools.paths import ROOT
from devtools.ports import free_server_ports
from devtools.processes import process_tree, worker_processes

#: Seconds that a server may take to answer; ours may compile its network first.
START_TIMEOUT = 300
#: Minutes; a token must outlive the longest measurement.
TOKEN_MINUTES = 24 * 60


@dataclass(frozen=True)
class ServerUnderTest:
    """A running TorchServe with one model.

    Attributes:
        name: its name in the results.
        model: the name that its model is served under.
        base: the inference address, as a URL.
        headers: what authorizes a request for inference.
        pid: its Java process, or the launcher that waits for it.
        metrics: the address of its metrics, as a URL.
        description: how its model runs, as the model itself reports it; empty for the stock server.
        classes: the labels of its model, by class index; empty for the stock server.
    """

    name: str
    model: str
    base: str
    headers: dict[str, str]
    pid: int
    metrics: str
    description: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def workers(self) -> list[psutil.Process]:
        """The Python processes that run the handler.

        Raises:
            SetupError: there are none.
        """
        workers = worker_processes(self.pid)
        if not workers:
            raise SetupError(f"{self.name}: TorchServe has no worker process")
        return workers

    def cpu_seconds(self) -> float:
        """The processor time that its processes have used since they started."""
        used = 0.0
        for process in process_tree(psutil.Process(self.pid)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def wait_until_ready(self, photo: Path, is_alive: Callable[[], bool], log_folder: Path) -> None:
        """Wait until the model answers a prediction of the photo.

        Args:
            is_alive: whether the server still runs.
            log_folder: named in the error.

        Raises:
            SetupError: the server ended, or did not answer within ``START_TIMEOUT``.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while is_alive() and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                reply = httpx.post(
                    f"{self.base}/predictions/{self.model}",
                    content=photo.read_bytes(),
                    headers=self.headers,
                    timeout=60,
                )
                if reply.status_code == 200:
                    return
            time.sleep(0.2)
        raise SetupError(f"the {self.name} server does not answer; its logs are in {log_folder}")


@contextmanager
def camserve_server(
    archive: Path,
    photo: Path,
    folder: Path,
    workers: str = "auto",
    name: str = "ours",
    *,
    open_inference: bool = False,
) -> Iterator[ServerUnderTest]:
    """Our server, started as scripts/serve.sh does; its model is named ``ours``.

    Args:
        photo: sent to check that the server answers.
        folder: new; the server's logs and its run directory ``run`` lie in it.
        workers: as ``serve.sh start --workers`` takes it.
        name: its name in the results.
        open_inference: whether it has an Open Inference front, which server.json in ``run`` names.

    Raises:
        SetupError: it does not start or answer.
    """
    folder.mkdir(parents=True)
    (folder / "bench.properties").write_text(_config_with_long_tokens())
    run_dir = folder / "run"
    environment = {**os.environ, "RUN_DIR": str(run_dir), **free_server_ports()}
    start = (
        *("start", "--store", str(archive.parent), "--models", f"ours={archive.name}"),
        *("--config", str(folder / "bench.properties"), "--timeout", str(START_TIMEOUT)),
        *("--workers", workers),
        *(["--open-inference"] if open_inference else []),
    )
    try:
        _run_server_script(environment, *start)
        token = _run_server_script(environment, "token").strip()
        started = json.loads((run_dir / "server.json").read_text())
        management_token = _run_server_script(environment, "token", "management").strip()
        model = _describe_model(started["management"], management_token)
        reported = model["customizedMetadata"]
        pid = started["pid"]
        server = ServerUnderTest(
            name=name,
            model="ours",
            base=started["inference"],
            headers={"Authorization": f"Bearer {token}"},
            pid=pid,
            metrics=f"http://127.0.0.1:{environment['METRICS_PORT']}",
            description={**reported["model"], "workers": len(model["workers"])},
            classes=tuple(reported["classes"]),
        )
        server.wait_until_ready(photo, lambda: psutil.pid_exists(pid), folder)
        yield server
    finally:
        _run_server_script(environment, "stop")


def _describe_model(management: str, token: str) -> dict[str, Any]:
    """What TorchServe says of our model, and the model of itself under ``customizedMetadata``."""
    reply = httpx.get(
        f"{management}/models/ours?customized=true",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    (model,) = reply.json()
    return dict(model)


def _config_with_long_tokens() -> str:
    """The project's config.properties with tokens of 24 hours, valid in any working directory."""
    text = re.sub(
        r"(?m)^token_expiration_min=.*",
        f"token_expiration_min={TOKEN_MINUTES}",
        (ROOT / "config.properties").read_text(),
    )
    return re.sub(r"(?m)^metrics_config=", f"metrics_config={ROOT}/", text)


def _run_server_script(environment: dict[str, str], *arguments: str) -> str:
    """Run scripts/server.py and return what it prints.

    Raises:
        SetupError: it failed; with its message.
    """
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
            # On an interrupt, unlike on a kill, it stops the server that it is starting.
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    if process.returncode != 0:
        raise SetupError(err.strip() or out.strip())
    return out
