"""What a measurement was made on: processor, memory, packages, commit."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from devtools.paths import ROOT

PACKAGES = (
    "torch", "torchvision", "torchserve", "opencv-python-headless", "pillow", "numpy", "grad-cam",
    "captum",
)  # fmt: skip
#: Instruction sets that speed up vector code and numbers of 8 or 16 bits.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")


def describe_machine() -> dict[str, Any]:
    """Processor, memory, packages, date and the commit of this checkout."""
    name, flags = _processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": name,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(psutil.Process().cpu_affinity()),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def machine_caption(machine: dict[str, Any]) -> str:
    """Processor, cores and torch in one line, of what :func:`describe_machine` returned."""
    fast = [flag for flag in machine["flags"] if flag.endswith("bf16")]
    return (
        f"{machine['processor']}, {machine['cores']} cores"
        f"{', ' + ', '.join(fast) if fast else ''}; torch {machine['versions']['torch']}"
    )


def _processor() -> tuple[str, set[str]]:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        name = re.search(r"(?m)^model name\s*: (.*)$", text)
        flags = re.search(r"(?m)^flags\s*: (.*)$", text)
        if name and flags:
            return name[1].strip(), set(flags[1].split())
    return platform.processor() or platform.machine(), set()


def _commit() -> str | None:
    """The commit of the checkout, with a ``+`` where files differ from it; None outside of git."""
    git = shutil.which("git")
    if git is None:
        return None

    def output_of(*arguments: str) -> str:
        command = [git, "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return output_of("rev-parse", "HEAD") + ("+" if output_of("status", "--porcelain") else "")
    except subprocess.CalledProcessError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
