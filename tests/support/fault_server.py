"""A server of its own for tests of faults: archives that misbehave, and its management."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

from devtools.ports import free_server_ports
from tests.support import color_resnet, fault_model
from tests.support.scripts import COLOR_MODEL, ROOT, run_script

#: A network that is asked small photos answers fast, on a loaded machine as well.
_SMALL = {"resize": 64, "crop": 64}


def fault(name: str) -> bytes:
    """The photo that makes the network misbehave so."""
    return color_resnet.png(np.full((48, 64, 3), fault_model.LEVELS[name], np.uint8))


def misbehaving_archive(
    colours: Path, target: Path, model: str = COLOR_MODEL, version: str = "1.0", **settings: int
) -> None:
    """The constructed ResNet50's archive, with the network of :mod:`misbehaving` in it.

    Args:
        colours: its archive; it was packed and proved by ``camserve package``.
        target: where the other one is written.
        model, version: what is served under.
        settings: keys of model-config.yaml that TorchServe reads.
    """
    code = Path(fault_model.__file__)
    with zipfile.ZipFile(colours) as given, zipfile.ZipFile(target, "w") as packed:
        packed.write(code, code.name)
        for name in given.namelist():
            content = given.read(name)
            if name.startswith("MAR-INF/"):
                manifest = json.loads(content)
                manifest["model"].update(modelName=model, modelVersion=version)
                content = json.dumps(manifest).encode()
            elif name == "model-config.yaml":
                # JSON is YAML.
                config = yaml.safe_load(content)
                config["handler"].update(arch="fault_model:build", layers=[])
                config["handler"]["preprocess"].update(_SMALL)
                content = json.dumps({**config, **settings}).encode()
            packed.writestr(name, content)


def wait_until(true: Callable[[], bool], seconds: float, what: str | Callable[[], str]) -> float:
    """Wait for something; the seconds that it took.

    Args:
        what: it is, or tells at the end what there is instead.
    """
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, (
            f"not within {seconds:g} s: {what if isinstance(what, str) else what()}"
        )
        time.sleep(0.05)
    return time.monotonic() - start


@dataclass(frozen=True)
class FaultServer:
    """A running server.

    Attributes:
        environment: the variables that tell the scripts of it.
        store: its model store.
    """

    environment: dict[str, str]
    store: Path

    @property
    def inference(self) -> str:
        return f"http://127.0.0.1:{self.environment['INFERENCE_PORT']}"

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.environment['MANAGEMENT_PORT']}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.environment['GRPC_INFERENCE_PORT']}"

    @property
    def run_dir(self) -> Path:
        return Path(self.environment["RUN_DIR"])

    @property
    def state(self) -> dict[str, Any]:
        """What scripts/serve.sh noted of it."""
        return dict(json.loads((self.run_dir / "server.json").read_text()))

    @property
    def java(self) -> psutil.Process:
        return psutil.Process(self.state["pid"])

    def token(self, kind: str = "inference") -> str:
        """The one that TorchServe wrote down: ``inference``, ``management`` or ``API``."""
        keys = json.loads((self.run_dir / "key_file.json").read_text())
        return str(keys[kind]["key"])

    def bearer(self, kind: str = "inference") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(kind)}"}

    def manage(
        self, method: str, path: str, kind: str = "management", **query: str | int
    ) -> httpx.Response:
        """A call to the management API; it must succeed."""
        reply = httpx.request(
            method, self.management + path, params=query, headers=self.bearer(kind), timeout=120
        )
        assert reply.status_code < 300, reply.text
        return reply

    def describe(self, model: str = COLOR_MODEL) -> dict[str, Any]:
        """What TorchServe says of a model's default version."""
        return dict(self.manage("GET", f"/models/{model}").json()[0])

    def ready_workers(self, model: str = COLOR_MODEL) -> list[int]:
        """The process ids of a model's workers that TorchServe calls ready."""
        workers = self.describe(model)["workers"]
        return [worker["pid"] for worker in workers if worker["status"] == "READY"]

    def pending(self, model: str = COLOR_MODEL) -> int:
        """How many requests wait for a worker."""
        return int(self.describe(model)["jobQueueStatus"]["pendingRequests"])

    def ping(self) -> str:
        reply = httpx.get(f"{self.inference}/ping", headers=self.bearer(), timeout=30)
        return str(reply.json()["status"])


@contextmanager
def serving(
    folder: Path, archives: Mapping[str, Path], workers: str = "auto", **config: str | int
) -> Iterator[FaultServer]:
    """Start a server and stop it by its id.

    Args:
        folder: for what it leaves.
        archives: by model's name, the files to serve; what else their folder holds is not.
        workers: of each model, as ``serve.sh start --workers`` has it.
        config: keys of config.properties, by name.
    """
    lines = (ROOT / "config.properties").read_text().splitlines()
    kept = [line for line in lines if line.partition("=")[0] not in config]
    settings = folder / "faulty.properties"
    settings.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in config.items())]))
    (store,) = {file.parent for file in archives.values()}
    environment = {"RUN_DIR": str(folder / "run"), **free_server_ports()}
    models = ",".join(f"{name}={file.name}" for name, file in archives.items())
    options = ("--store", store, "--models", models, "--config", settings, "--workers", workers)
    run_script("serve.sh", "start", *options, **environment)
    try:
        yield FaultServer(environment, store)
    finally:
        run_script("serve.sh", "stop", **environment)
