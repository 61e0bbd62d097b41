"""How many workers each model is to have, and in how many threads a worker computes.

One worker of one thread for each core answers more requests a second than one worker of as many
threads as there are cores, because much of what stands around the network runs in one thread.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from camserve.runtime import usable_cores
from camserve_cli.serving.local_server import LocalServer, ServerError
from camserve_cli.serving.torchserve_config import model_config

AUTO = "auto"
#: The most workers of a model that --workers takes.
MOST = 256
#: The memory that a worker takes at most while it loads, apart from what it shares with others:
#: so many bytes, and so many for each byte of the unpacked archive. Measured: MobileNetV3-Small
#: (10 MB) 530 MB, ResNet50 (103 MB) 915 MB, VGG16 (554 MB) 1960 MB. Once loaded, 530, 630 and 1480.
BASE_BYTES, BYTES_PER_BYTE = 600_000_000, 3
#: The part of the available memory that workers may take; large photos need the rest.
MEMORY_SHARE = 0.5
#: Where Linux tells a container's memory: its limit, what it uses, and what of that is files.
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sizing:
    """The workers of a server.

    Attributes:
        scale: by model, how many workers it is to have, where that is not what its archive says.
        threads: that each worker computes in at most; None where the archives' own settings stand.
        reasons: by model, why it has another number of workers than there are cores.
    """

    scale: dict[str, int]
    threads: int | None
    reasons: dict[str, str]

    def environment(self) -> dict[str, str]:
        """What tells the workers their threads; an OMP_NUM_THREADS that asks for fewer stays."""
        if self.threads is None:
            return {}
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        fewer = given.isdecimal() and 0 < int(given) < self.threads
        return {"OMP_NUM_THREADS": given if fewer else str(self.threads)}


def parse(text: str) -> int | None:
    """The value of --workers; None for ``auto``.

    Raises:
        ServerError: it is neither that nor a number of workers.
    """
    if text == AUTO:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise ServerError(
            f"--workers {text}: accepted are {AUTO} and whole numbers from 1 to {MOST}"
        )
    return int(text)


def choose(wanted: int | None, archives: Mapping[str, Path], config: Mapping[str, str]) -> Sizing:
    """The workers of each model.

    Args:
        wanted: so many of each; None for a worker of one thread for each core, where several models
            share the cores and memory suffices. Archives whose number of workers or threads is set
            keep that then, and on a GPU all do.
        archives: by model.
        config: keys and values of config.properties.
    """
    configs = {name: model_config(path) for name, path in archives.items()}
    cores = usable_cores()
    if wanted is not None:
        counts = dict.fromkeys(archives, wanted)
        return Sizing(_changed(counts, configs), _threads(wanted, cores), {})
    if _has_gpu(config):
        return Sizing({}, None, dict.fromkeys(archives, "on a GPU, its archive's number"))
    by_hand = {name for name, one in configs.items() if _is_set_by_hand(one)}
    needs = {name: _memory_of_a_worker(path) for name, path in archives.items()}
    available = _available_memory()
    taken = sum(needs[name] * _workers(configs[name])[0] for name in by_hand)
    free = [name for name in archives if name not in by_hand]
    share = max(1, cores // len(archives))
    fitting = (MEMORY_SHARE * available - taken) / sum(needs[name] for name in free) if free else 0
    count = max(1, min(share, math.floor(fitting)))
    why = ""
    if count < share:
        why = f"limited by memory, of which {available / 1e9:.1f} GB are available"
    elif count < cores:
        why = f"{len(archives)} models share {cores} cores"
    reasons = {name: "set in its archive" if name in by_hand else why for name in archives}
    threads = _threads(count, cores) if free else None
    return Sizing(_changed(dict.fromkeys(free, count), configs), threads, reasons)


def worker_summary(workers: int, threads: int | None) -> str:
    """As in "2 workers of 1 thread"; of how many threads is left out where it is not known."""
    of_each = ((workers, "worker"), (threads, "thread"))
    words = (f"{count} {what}{'s' if count != 1 else ''}" for count, what in of_each if count)
    return " of ".join(words)


def describe_workers(server: LocalServer, model: str, why: str) -> str:
    """How many workers a model has, of how many threads, and why so, in one line.

    Raises:
        ServerError: the management API does not answer.
    """
    found = server.describe(model, customized=True)
    # Threads as the workers themselves count them; an archive of another making may not tell.
    itself = (found.get("customizedMetadata") or {}).get("model") or {}
    what = worker_summary(len(found["workers"]), itself.get("threads"))
    return f"{model}: {what} ({why})" if why else f"{model}: {what}"


def _threads(count: int, cores: int) -> int | None:
    """Of each of so many workers. One alone knows by itself: its archive speaks of one."""
    return max(1, cores // count) if count > 1 else None


def _changed(counts: Mapping[str, int], configs: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Those of the numbers that an archive does not have by itself."""
    return {
        name: count for name, count in counts.items() if _workers(configs[name]) != (count, count)
    }


def _workers(config: Mapping[str, Any]) -> tuple[int, int]:
    """An archive's least and most workers; 1 where it says nothing, as config.properties has it."""
    least, most = (config.get(key) for key in ("minWorkers", "maxWorkers"))
    # What is no number stops the load, with a message that names it.
    return least if isinstance(least, int) else 1, most if isinstance(most, int) else 1


def _is_set_by_hand(config: Mapping[str, Any]) -> bool:
    handler = config.get("handler")
    threads = handler.get("threads") if isinstance(handler, dict) else 0
    return max(_workers(config)) > 1 or bool(threads)


def _memory_of_a_worker(archive: Path) -> int:
    """The bytes that one takes at most."""
    with zipfile.ZipFile(archive) as packed:
        unpacked = sum(entry.file_size for entry in packed.infolist())
    return BASE_BYTES + BYTES_PER_BYTE * unpacked


def _available_memory() -> int:
    """The bytes that new processes may take, within the container's limit where there is one."""
    available = psutil.virtual_memory().available
    try:
        limit, used = (
            int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        told = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        # The kernel gives pages of files back when memory is asked for.
        files = int(told["active_file"]) + int(told["inactive_file"])
    except (OSError, ValueError, KeyError):
        # No container, or "max": no limit.
        return available
    return min(available, limit - used + files)


def _has_gpu(config: Mapping[str, str]) -> bool:
    """Whether TorchServe finds a GPU that its workers can use."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    command = shutil.which("nvidia-smi")
    if command is None or hidden or config.get("number_of_gpu") == "0":
        return False
    listed = subprocess.run([command, "--list-gpus"], capture_output=True, text=True)
    return listed.returncode == 0 and listed.stdout.startswith("GPU")
