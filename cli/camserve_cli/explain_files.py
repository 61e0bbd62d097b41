"""The files of ``camserve explain``: the photos that it finds, the pictures and lines it writes."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, TextIO

from camserve_client import Explanation, Picture, Reply

#: What is taken for a photo in a folder.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Photo:
    """A photo to explain.

    Attributes:
        path: as it was named or found.
        prefix: what the names of its pictures begin with, a path under --out.
    """

    path: Path
    prefix: Path


def find_photos(named: Sequence[str], out: Path) -> tuple[list[Photo], list[str]]:
    """The photos that files, folders and globs name, in that order, each once.

    Args:
        named: files are taken whatever they are called; of a folder, what looks like a photo.
        out: where the pictures go; what lies there already is no photo to be found.

    Returns:
        The photos, and those of the names that name none.
    """
    found: dict[Path, Path] = {}
    bases: list[Path] = []
    unmatched = []
    for one in named:
        before = len(bases)
        for path, folder in _found(one, out.resolve()):
            found.setdefault(_whole(path), path)
            bases.append(_whole(folder))
        if len(bases) == before:
            unmatched.append(one)
    if not found:
        return [], unmatched
    base = os.path.commonpath(bases)
    stems = [Path(os.path.relpath(path, base)).with_suffix("") for path in found]
    count = Counter(stems)
    photos = [
        # cat.jpg and cat.png beside each other become cat-jpg and cat-png.
        Photo(path, stem if count[stem] == 1 else Path(f"{stem}-{path.suffix[1:]}"))
        for path, stem in zip(found.values(), stems, strict=True)
    ]
    return photos, unmatched


def _found(named: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """The photos that one argument names, each with the folder that it was looked for in."""
    path = Path(named)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file() and not _in(file, out):
                yield file, path
    elif path.is_file() or path.is_fifo():
        # A pipe too, as /dev/stdin or the shell's <(..) may be.
        yield path, path.parent
    elif not path.exists():
        for match in sorted(glob(named, recursive=True)):  # noqa: PTH207  # may be absolute
            if (Path(match).is_file() or Path(match).is_dir()) and not _in(Path(match), out):
                yield from _found(match, out)


def _whole(path: Path) -> Path:
    # Without "..", by which a picture's place under --out could leave it.
    return Path(os.path.normpath(path.absolute()))


def _in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)


@dataclass
class Results:
    """What a run leaves: pictures, JSON lines in the order of the photos, and its count.

    Attributes:
        out: the folder for it all.
        lines: the file for the JSON lines.
        done, failed: the number of photos.
    """

    out: Path
    lines: TextIO
    done: int = 0
    failed: int = 0
    _pending_lines: dict[int, str] = field(default_factory=dict)
    _written: int = 0
    _used_names: set[Path] = field(default_factory=set)

    async def save_pictures(self, photo: Photo, reply: Reply, as_stored: bool) -> dict[str, Any]:
        """Write a reply's pictures; the reply with their names in their places.

        Args:
            photo: that it answers.
            reply: to it.
            as_stored: whether the pictures lie as the pixels of the photo's file do.

        Raises:
            OSError: a picture cannot be written.
        """
        explanations = []
        orientation = reply.image.orientation if as_stored else 1
        for explanation, raw in zip(reply.explanations, reply.raw["explanations"], strict=True):
            kept = dict(raw)
            for output in ("heatmap", "overlay", "mask"):
                picture: Picture | None = getattr(explanation, output)
                if picture is None:
                    continue
                name = self._name(photo, explanation, output, picture)
                (self.out / name).parent.mkdir(parents=True, exist_ok=True)
                await asyncio.to_thread(picture.save, self.out / name, orientation)
                about = {key: value for key, value in raw[output].items() if key != "b64"}
                kept[output] = {"file": str(name), **about}
            explanations.append(kept)
        return {**reply.raw, "explanations": explanations}

    def write(self, number: int, line: dict[str, Any]) -> None:
        """Write a photo's line once those of the photos before it are written."""
        self.done += 1
        self._pending_lines[number] = json.dumps(line)
        while self._written in self._pending_lines:
            self.lines.write(self._pending_lines.pop(self._written) + "\n")
            self._written += 1

    def close(self) -> None:
        """Write what waits for photos that an interrupted run did not come to."""
        for number in sorted(self._pending_lines):
            self.lines.write(self._pending_lines[number] + "\n")
        self.lines.close()

    def _name(self, photo: Photo, explanation: Explanation, output: str, picture: Picture) -> Path:
        parts = [photo.prefix.name, _slug(explanation.label) or str(explanation.class_id)]
        if explanation.against:
            parts += ["not", _slug(explanation.against.label) or str(explanation.against.class_id)]
        if output != "overlay":
            parts.append(output)
        stem, suffix = "-".join(parts), picture.media_type.rpartition("/")[2]
        name, n = photo.prefix.with_name(f"{stem}.{suffix}"), 1
        while name in self._used_names:
            n += 1
            name = photo.prefix.with_name(f"{stem}-{n}.{suffix}")
        self._used_names.add(name)
        return name


def _slug(label: str) -> str:
    return re.sub(r"\W+", "-", label.lower()).strip("-")[:40]
