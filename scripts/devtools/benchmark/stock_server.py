"""TorchServe as it comes: started by its own launcher, with nothing set but where it listens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from camserve_cli.serving.java import java_home
from camserve_cli.serving.torchserve_config import PORT_VARIABLES
from devtools.errors import SetupError
from devtools.ports import free_server_ports
from devtools.processes import process_tree
from devtools.servers import ServerUnderTest


@contextmanager
def stock_server(archive: Path, photo: Path, folder: Path) -> Iterator[ServerUnderTest]:
    """TorchServe's defaults with one archive, its model named ``stock``.

    Args:
        photo: sent to check that the server answers.
        folder: new; the server's logs lie in it.

    Raises:
        SetupError: it does not start or answer.
    """
    folder.mkdir(parents=True)
    java = java_home()
    if java is None:
        raise SetupError("no Java of version 17 or later; scripts/setup.sh installs one")
    ports = free_server_ports()
    addresses = {
        key: f"http://127.0.0.1:{ports[variable]}" if key.endswith("address") else ports[variable]
        for key, variable in PORT_VARIABLES.items()
    }
    settings = {
        **addresses,
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
    launcher = None
    try:
        with (folder / "server.log").open("w") as log:
            launcher = subprocess.Popen(
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
                # Ctrl-C is for the benchmark, which stops what it started.
                start_new_session=True,
            )
        server = ServerUnderTest(
            name="stock",
            model="stock",
            base=settings["inference_address"],
            headers={},
            pid=launcher.pid,
            metrics=settings["metrics_address"],
        )
        started = launcher
        server.wait_until_ready(photo, lambda: started.poll() is None, folder)
        yield server
    finally:
        if launcher:
            _stop(launcher)
        shutil.rmtree(scratch, ignore_errors=True)


def _stop(launcher: subprocess.Popen[bytes]) -> None:
    """Stop a launcher, the Java that it waits for and the workers, each by its process id."""
    with suppress(psutil.NoSuchProcess):
        processes = process_tree(psutil.Process(launcher.pid))[::-1]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)
    launcher.wait()
