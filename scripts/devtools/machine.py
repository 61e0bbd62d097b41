"""What a measurement was made on: processor, packages, and who else was busy meanwhile."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = (
    "torch", "torchvision", "torchserve", "opencv-python-headless", "pillow", "numpy", "grad-cam",
    "captum",
)  # fmt: skip
#: What makes a processor fast at short numbers, and at long vectors.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")


def describe(root: Path) -> dict[str, Any]:
    """Processor, memory, packages, date and the commit of the checkout at ``root``."""
    name, flags = _processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(root),
        "processor": name,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(psutil.Process().cpu_affinity()),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def caption(machine: dict[str, Any]) -> str:
    """Processor, cores and torch in one line."""
    fast = [flag for flag in machine["flags"] if flag.endswith("bf16")]
    return (
        f"{machine['processor']}, {machine['cores']} cores"
        f"{', ' + ', '.join(fast) if fast else ''}; torch {machine['versions']['torch']}"
    )


class Meter:
    """How many cores this machine's processes use on average, from when it is made.

    Args:
        parts: by name, what gives the processor seconds that a part of the bench has used so far;
            the bench itself, with what it started and that has ended, is always one.
    """

    def __init__(self, parts: Mapping[str, Callable[[], float]] | None = None) -> None:
        self._parts = {"bench": lambda: sum(os.times()[:4]), **(parts or {})}
        self._before = self._read()

    def cores(self) -> dict[str, float]:
        """By part, in cores; under ``others`` what is no part of the bench."""
        now = self._read()
        used = {name: now[name] - self._before[name] for name in now}
        clock, total = used.pop("clock"), used.pop("all")
        used["others"] = max(total - sum(used.values()), 0.0)
        return {name: seconds / clock for name, seconds in used.items()}

    def _read(self) -> dict[str, float]:
        times = psutil.cpu_times()
        # Linux counts a guest's time as its user's, too.
        busy = (
            sum(times)
            - times.idle
            - sum(getattr(times, name, 0.0) for name in ("iowait", "guest", "guest_nice"))
        )
        parts = {name: read() for name, read in self._parts.items()}
        return {**parts, "all": busy, "clock": time.monotonic()}


def _processor() -> tuple[str, set[str]]:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        name = re.search(r"(?m)^model name\s*: (.*)$", text)
        flags = re.search(r"(?m)^flags\s*: (.*)$", text)
        if name and flags:
            return name[1].strip(), set(flags[1].split())
    return platform.processor() or platform.machine(), set()


def _commit(root: Path) -> str | None:
    """The checkout's commit, with a ``+`` where files differ from it; None where there is none."""
    git = shutil.which("git")
    if git is None:
        return None

    def told(*arguments: str) -> str:
        command = [git, "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return told("rev-parse", "HEAD") + ("+" if told("status", "--porcelain") else "")
    except subprocess.CalledProcessError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
