"""Install PyTorch without CUDA where there is no NVIDIA driver; setup.sh runs this before pip.

PyPI's torch brings some 5 GB of CUDA libraries, PyTorch's own index of CPU builds none. Whatever
fails here leaves torch to setup.sh's next step, which takes it from PyPI.

TORCH_INDEX says otherwise: ``pypi`` for PyPI's torch, as an image needs that is built without a GPU
and runs with one, or the URL of another index, which is then asked whatever drivers there are.
"""

from __future__ import annotations

import http.client
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PACKAGES = ("torch", "torchvision")
CONSTRAINTS = Path(__file__).resolve().parent.parent / "requirements" / "constraints.txt"
PATIENCE_S = 3.0

# What a driver leaves on Linux, any one of which means PyPI's torch: the kernel module, its device
# (in a container there may be only that), and the two that stand for a driver under WSL.
DRIVER_FILES = (
    "proc/driver/nvidia/version",
    "dev/nvidiactl",
    "dev/dxg",
    "usr/lib/wsl/lib/nvidia-smi",
)


def has_nvidia_driver(root: Path = Path("/")) -> bool:
    """Whether this machine, or the tree under ``root``, shows an NVIDIA driver.

    nvidia-smi need only be there, and is not run: beside a broken driver it can hang.
    """
    return any((root / name).exists() for name in DRIVER_FILES) or bool(shutil.which("nvidia-smi"))


def chosen_index(asked: str, *, platform: str = sys.platform, root: Path = Path("/")) -> str | None:
    """The index that TORCH_INDEX and this machine ask for; None for PyPI.

    Raises:
        ValueError: TORCH_INDEX is neither empty, ``pypi`` nor an http(s) URL.
    """
    if asked == "pypi":
        return None
    if asked:
        if not asked.startswith(("http://", "https://")):
            raise ValueError(f"TORCH_INDEX={asked}: accepted are pypi and the URL of an index")
        return asked.rstrip("/")
    # PyPI's torch for macOS has no CUDA in it.
    return CPU_INDEX if platform == "linux" and not has_nvidia_driver(root) else None


def unreachable(index: str, seconds: float = PATIENCE_S) -> str | None:
    """Why an index did not give its list of torch's files in time; None where it did.

    Asked in a thread of its own, which is waited for no longer. A socket's timeout would bound
    neither the look-up of a name nor an answer that comes a byte at a time.
    """
    outcome: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{index}/torch/") as page:  # noqa: S310
                page.read()
        except (OSError, ValueError, http.client.HTTPException) as problem:
            outcome.put(str(problem) or type(problem).__name__)
        else:
            outcome.put(None)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return outcome.get(timeout=seconds)
    except queue.Empty:
        return f"no answer within {seconds:g} s"


def installed() -> bool:
    """Whether both packages are here as pinned, from wherever: then there is nothing to choose."""
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines() if "==" in line)
    try:
        return all(version(name).split("+")[0] == pins[name] for name in PACKAGES)
    except PackageNotFoundError:
        return False


def pip(*arguments: str, **environment: str) -> str | None:
    """Run pip; None where it succeeds, else the last error that it prints."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode == 0:
        return None
    said = done.stderr.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return (errors or said or [f"pip ended with {done.returncode}"])[-1]


def install(index: str) -> str | None:
    """Install torch and torchvision, as pinned, from an index; why that failed, or None.

    A pin of 2.14.1 is met by the index's 2.14.1+cpu, and stays met when setup.sh installs the rest.
    Where it fails, neither package is left: beside a torch of this index, PyPI's torchvision, which
    is built for CUDA, would not load.
    """
    with tempfile.TemporaryDirectory() as nothing:
        problem = pip(
            "install",
            # What these two ask for comes with the rest, from where the user's settings say.
            "--no-deps",
            "--only-binary=:all:",
            "--timeout=15",
            "--retries=1",
            f"--constraint={CONSTRAINTS}",
            f"--index-url={index}",
            *PACKAGES,
            # A user's own index, or folder of wheels, may hold torch too, for CUDA say, and pip
            # takes the one with the highest local version. Variables outrank every pip.conf, and an
            # empty one is ignored, so each is given a value that adds nothing. They are set for
            # these two packages alone, and only say where to look: a proxy, a certificate or a
            # constraint in the user's settings holds here too, and all of them for the rest.
            PIP_EXTRA_INDEX_URL=index,
            PIP_FIND_LINKS=nothing,
        )
    if problem is not None:
        pip("uninstall", "--yes", *PACKAGES)
    return problem


def main() -> int:
    """Do and say it; 0 also where PyPI is left to do it, 2 for a TORCH_INDEX that is neither."""
    try:
        index = chosen_index(os.environ.get("TORCH_INDEX", ""))
    except ValueError as wrong:
        print(f"setup: {wrong}", file=sys.stderr)
        return 2
    if index is None or installed():
        return 0
    problem = unreachable(index)
    if problem is None:
        print(f"setup: torch without CUDA, from {index}", flush=True)
        problem = install(index)
    if problem is not None:
        print(f"setup: torch from PyPI, not from {index}: {problem}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
