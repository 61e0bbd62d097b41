"""The environments of KServe's and Triton's clients, and the processes that run in them."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kserve_clients.calls import Failure
from tests.support.scripts import ROOT, run

#: What each client's environment is built from: the versions that README names as tested.
REQUIREMENTS = {"triton": "tritonclient[all]==2.73.0", "kserve": "kserve==0.21.0"}


def build_environment(name: str, folder: Path) -> Path:
    """A virtual environment with nothing but a client and what it asks for.

    Args:
        name: a key of :data:`REQUIREMENTS`.
        folder: where to make it.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    done = run(*pip, REQUIREMENTS[name])
    assert done.returncode == 0, done.stderr
    return python


@dataclass(frozen=True)
class ClientProcess:
    """A process in a client's environment, which makes the calls that it is told to make."""

    process: subprocess.Popen[str]

    def call(self, **asked: Any) -> Any:
        """What a call returns, as JSON has it.

        Args:
            asked: as the agent reads it.

        Raises:
            Failure: the client raised an exception.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client's process has ended"
        answer = json.loads(line)
        if "raised" in answer:
            raise Failure(**answer["raised"])
        return answer["returned"]


@contextmanager
def running_client(name: str, python: Path, log: Path) -> Iterator[ClientProcess]:
    """The process of a client, for as long as a ``with`` block.

    Args:
        name: a key of :data:`REQUIREMENTS`.
        python: of its environment.
        log: the file of what it logs.
    """
    module = f"tests.support.kserve_clients.{name}_agent"
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [python, "-m", module],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    try:
        yield ClientProcess(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()
