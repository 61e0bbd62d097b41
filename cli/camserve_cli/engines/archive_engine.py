"""An archive of the model store, run in a process of its own.

The process sees the archive and nothing else of this project, as a worker of TorchServe does. A
photo that ends it, as one that takes all memory may, is told as that photo's error.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from camserve_cli.engines.engine import (
    Answer,
    EngineCallError,
    EngineError,
    ModelDescription,
    Question,
)
from camserve_cli.packaging.check_archive import exit_text

#: Run by its path: what it imports is the archive's own.
WORKER = Path(__file__).with_name("archive_worker.py")
#: So many photos one after another may end the process before the run ends.
_MOST_DEATHS = 5


def find_archive(store: Path, name: str | None) -> Path:
    """The archive of that name; without a name the only one, or ResNet50's.

    Raises:
        EngineCallError: there is none.
    """
    archives = {path.stem: path for path in sorted(store.glob("*.mar"))}
    if not archives:
        raise EngineCallError(
            f"{store} holds no archive; accepted: --store FOLDER with one (camserve package makes "
            "it), or --url of a server"
        )
    if name is None:
        name = next(iter(archives)) if len(archives) == 1 else "resnet50"
        if name not in archives:
            raise EngineCallError(f"--model is needed; accepted: one of {', '.join(archives)}")
    name = name.removesuffix(".mar")
    if name not in archives:
        raise EngineCallError(
            f"{store} holds no archive {name!r}; accepted: one of {', '.join(archives)}"
        )
    return archives[name]


class ArchiveEngine:
    """An archive that is unpacked and loaded; ``close`` removes it again.

    Args:
        archive: its file.

    Raises:
        EngineCallError: it cannot be unpacked or loaded.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._folder = tempfile.TemporaryDirectory(prefix="camserve-archive-")
        self._worker: _Worker | None = None
        self._deaths = 0
        try:
            try:
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(self._folder.name)
            except (OSError, zipfile.BadZipFile) as failure:
                raise EngineCallError(f"{archive}: no archive ({failure})") from None
            self._worker, told = self._start()
        except BaseException:
            self.close()
            raise
        self.batch = max(1, int(told["batch"]))
        self.description = ModelDescription.of(told)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions.

        Raises:
            EngineError: one photo after another ends the process.
        """
        if not questions:
            return []
        if self._worker is None:
            self._worker, _ = self._start()
        try:
            answers = self._worker.ask(questions)
        except _WorkerDiedError as death:
            self._worker = None
            if len(questions) > 1:
                # Which photo it was shows where each is asked about by itself.
                return [answer for one in questions for answer in self.ask([one])]
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS:
                raise EngineError(f"{self._archive.name}: {death}") from None
            return [{"error": {"code": "model_died", "message": str(death)}}]
        self._deaths = 0
        return answers

    def close(self) -> None:
        """End the process, and remove what was unpacked."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._folder.cleanup()

    def _start(self) -> tuple[_Worker, dict[str, Any]]:
        worker = _Worker(Path(self._folder.name))
        try:
            told = worker.read()
        except _WorkerDiedError as death:
            raise EngineCallError(f"{self._archive}: {death}") from None
        except BaseException:
            worker.close()
            raise
        if "error" in told:
            worker.close()
            raise EngineCallError(
                f"{self._archive}: the archive cannot be loaded ({told['error']}); accepted: one "
                "that this version's camserve package wrote; or serve it, and name it by --url"
            )
        return worker, told


class _WorkerDiedError(Exception):
    """The process ended."""


class _Worker:
    """The process, and the pipes to and from it."""

    def __init__(self, folder: Path) -> None:
        requests, self._requests = _pipe("w")
        replies, self._replies = _pipe("r")
        # What it prints is told where it dies.
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", WORKER, str(requests), str(replies)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            pass_fds=(requests, replies),
            # Ctrl-C is for this process, which then closes the pipes.
            start_new_session=True,
        )
        os.close(requests)
        os.close(replies)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        lines = [
            {"path": str(one.photo.absolute()), "options": one.options}
            if isinstance(one.photo, Path)
            else {"b64": base64.b64encode(one.photo).decode(), "options": one.options}
            for one in questions
        ]
        try:
            self._requests.write(f"{json.dumps(lines)}\n")
            self._requests.flush()
        except OSError:
            # A pipe that nobody reads: how it ended is told by what follows.
            pass
        answers: list[Answer] = self.read()
        return answers

    def read(self) -> Any:
        """The next line that it writes.

        Raises:
            _WorkerDiedError: it writes none any more.
        """
        line = self._replies.readline()
        if line.endswith("\n"):
            return json.loads(line)
        status = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace").strip()[-1000:]
        self.close()
        raise _WorkerDiedError(
            f"the model's process ended ({exit_text(status)}); the last that it printed: "
            f"{said or 'nothing'}"
        )

    def close(self) -> None:
        with suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # In the middle of a batch, whose answer nobody waits for.
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        with suppress(OSError):
            self._replies.close()
        self._said.close()


def _pipe(mode: str) -> tuple[int, TextIOWrapper]:
    """The other process's end of a pipe, and this one's to write to ("w") or read from ("r")."""
    read, write = os.pipe()
    theirs, ours = (read, write) if mode == "w" else (write, read)
    return theirs, open(ours, mode, encoding="utf-8")  # type: ignore[return-value]  # noqa: PTH123
