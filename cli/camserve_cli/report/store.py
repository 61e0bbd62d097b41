"""What a report keeps while it runs: a line for each photo, and the thumbnails.

``report.jsonl`` grows by a line a photo. ``report.run.json`` says what the run is of, so that a
run that was stopped goes on, and another is not mixed into it. ``thumbnails.bin`` has the
thumbnails one after another; a photo's line says where its own begins.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camserve_cli.errors import CommandError

LINES, SETTINGS, THUMBNAILS = "report.jsonl", "report.run.json", "thumbnails.bin"

Line = dict[str, Any]


class StoreError(CommandError):
    """The folder holds another run, or cannot be used."""

    exit_status = 2


class ReportStore:
    """The files of a run in its folder; use it as a context manager.

    Args:
        folder: where they are, made where it is missing.
        settings: what the run is of, in JSON's types.
        fresh: whether to begin anew where there is an earlier run.
        is_current: whether an explained photo's line of an earlier run is kept.

    Raises:
        StoreError: an earlier run was of something else, or the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        fresh: bool,
        is_current: Callable[[Line], bool],
    ) -> None:
        self.folder = folder
        self._is_current = is_current
        self._lines = folder / LINES
        self._thumbnails = folder / THUMBNAILS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder)
            self.done = self._resume(settings) if not fresh else self._begin(settings)
            self._out = self._lines.open("ab")
            self._pictures = self._thumbnails.open("ab")
        except OSError as failure:
            raise StoreError(f"--out {failure.filename or folder}: {failure.strerror}") from None

    def __enter__(self) -> ReportStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        self._pictures.close()
        os.close(self._lock)

    def add(self, line: Line, thumbnail: bytes) -> None:
        """Keep a photo's line, and its thumbnail, if it has one."""
        if thumbnail:
            line = {**line, "thumbnail": [self._pictures.tell(), len(thumbnail)]}
            self._pictures.write(thumbnail)
        self._out.write(_encode(line))

    def flush(self) -> None:
        """Hand what was added to the system: it is there if this process is ended."""
        self._pictures.flush()
        self._out.flush()

    def _begin(self, settings: Mapping[str, Any]) -> frozenset[str]:
        for file in (self._lines, self._thumbnails):
            file.unlink(missing_ok=True)
        _replace(self.folder / SETTINGS, f"{json.dumps(settings, indent=2)}\n".encode())
        return frozenset()

    def _resume(self, settings: Mapping[str, Any]) -> frozenset[str]:
        """The photos that an earlier run has explained; those that failed are tried again."""
        try:
            earlier = json.loads((self.folder / SETTINGS).read_text("utf-8"))
        except FileNotFoundError:
            if self._lines.exists():
                raise StoreError(
                    f"{self._lines} is of no run that can go on; accepted: --fresh to begin anew, "
                    "or another --out"
                ) from None
            return self._begin(settings)
        except ValueError:
            earlier = {}
        if not isinstance(earlier, dict):
            earlier = {}
        # As JSON has them: a tuple is a list.
        wanted = json.loads(json.dumps(settings))
        if different := [key for key in wanted if earlier.get(key) != wanted[key]]:
            raise StoreError(
                f"{self.folder} holds a report with another {different[0]}; accepted: --fresh to "
                "begin anew, or another --out"
            )
        return self._keep_explained()

    def _keep_explained(self) -> frozenset[str]:
        if not self._lines.exists():
            return frozenset()
        size = self._thumbnails.stat().st_size if self._thumbnails.exists() else 0
        done: set[str] = set()
        partial = self._lines.with_suffix(".partial")
        with partial.open("wb") as kept:
            for _, line in read_lines(self._lines):
                begin, length = line.get("thumbnail", (0, 0))
                if "reply" not in line or line["photo"] in done or begin + length > size:
                    continue
                if not self._is_current(line):
                    continue
                done.add(line["photo"])
                kept.write(_encode(line))
        partial.replace(self._lines)
        return frozenset(done)


def read_lines(path: Path) -> Iterator[tuple[int, Line]]:
    """Each line with its place in the file; a last one that was half written is left out."""
    with path.open("rb") as lines:
        place = 0
        for text in lines:
            if not text.endswith(b"\n"):
                return
            try:
                line = json.loads(text)
            except ValueError:
                # What a machine that lost its power leaves.
                line = None
            if isinstance(line, dict) and isinstance(line.get("photo"), str):
                yield place, line
            place += len(text)


def read_line(path: Path, places: Sequence[int]) -> Iterator[Line]:
    """The lines that begin at these places of the file, in that order."""
    with path.open("rb") as lines:
        for place in places:
            lines.seek(place)
            line: Line = json.loads(lines.readline())
            yield line


def read_thumbnails(folder: Path, places: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """The thumbnails at these (begin, length), in that order."""
    with (folder / THUMBNAILS).open("rb") as pictures:
        for begin, length in places:
            pictures.seek(begin)
            yield pictures.read(length)


def _lock(folder: Path) -> int:
    """A lock on a folder, which is held until its file is closed.

    Raises:
        StoreError: another run holds it.
    """
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise StoreError(
            f"another run writes to {folder}; accepted: another --out, or to wait for its end"
        ) from None
    return file


def _encode(line: Line) -> bytes:
    # In ASCII: the name of a file need not be UTF-8.
    return f"{json.dumps(line, separators=(',', ':'))}\n".encode()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def write_file(path: Path, content: str) -> None:
    """Write a file as a whole: who reads it meanwhile has the old one.

    What is no text, as in the name of a file that is not UTF-8, becomes a question mark.
    """
    _replace(path, content.encode("utf-8", "replace"))
