"""Running the project's scripts as a person would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camserve.runtime import usable_cores

ROOT = Path(__file__).resolve().parents[2]
COLOR_MODEL = "colours"
IMAGENET = "efficientnet-lite0"
#: The command, as it is installed.
CAMSERVE = Path(sys.executable).parent / "camserve"


def run(
    *command: str | Path, cwd: str | Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would, from the project's root, and keep what it says."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "VENV": sys.prefix, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_script(name: str, *arguments: str | Path, **environment: str) -> str:
    """Run one of the scripts; what it prints. It must succeed."""
    interpreter = "bash" if name.endswith(".sh") else sys.executable
    done = run(interpreter, ROOT / "scripts" / name, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def camserve(*arguments: str | Path, **environment: str) -> str:
    """Run the command; what it prints. It must succeed."""
    done = run(CAMSERVE, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interruptible(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Start a process that SIGINT and SIGHUP end, even where the tests themselves ignore them.

    A signal that is ignored, as they are by ``nohup .. &``, stays ignored in whatever is started;
    one that has a handler gets its default. Only in the main thread.
    """
    signals = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        return subprocess.Popen(command, text=True, **options)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def two_cores() -> Iterator[int]:
    """Let what is started meanwhile use two cores, or the one that there is; how many."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield usable_cores()
    finally:
        os.sched_setaffinity(0, before)
