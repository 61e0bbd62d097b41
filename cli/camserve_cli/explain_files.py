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
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from camserve_client import Explanation, Picture, Reply

#: What is taken for a photo in a folder, in any case.
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib",
        ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif",
    }
)  # fmt: skip
# How many files that were passed over are named, of each kind.
_NAMED = 3


@dataclass(frozen=True)
class Photo:
    """A photo to explain.

    Attributes:
        path: as it was named or found.
        prefix: what the names of its pictures begin with, a path under --out.
    """

    path: Path
    prefix: Path


@dataclass
class FoundPhotos:
    """What files, folders and globs name.

    Attributes:
        photos: each once, in the order of the names, and sorted in a folder.
        unmatched: the names that name no photo.
        passed_over: what lay in folders and is no photo, by kind: a suffix, or words.
    """

    photos: list[Photo] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    passed_over: dict[str, dict[Path, None]] = field(default_factory=dict)

    def skip(self, kind: str, path: Path) -> None:
        """Note a file or folder that is passed over."""
        self.passed_over.setdefault(kind, {})[path] = None

    def describe_passed_over(self) -> str:
        """What was passed over, in one line; empty if nothing was."""
        kinds = sorted(self.passed_over.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        listed = [
            f"{len(paths)} {kind} ({', '.join(map(str, islice(paths, _NAMED)))}"
            f"{', ..' if len(paths) > _NAMED else ''})"
            for kind, paths in kinds
        ]
        count = sum(len(paths) for _, paths in kinds)
        return f"passed over {count}: {'; '.join(listed)}" if count else ""


def find_photos(named: Sequence[str], out: Path) -> FoundPhotos:
    """The photos that files, folders and globs name, in that order, each once.

    Args:
        named: files are taken whatever they are called; of a folder, what looks like a photo and
            is not hidden. Links to folders are followed, each folder once.
        out: where the pictures go; what lies there already is no photo to be found.
    """
    result = FoundPhotos()
    found: dict[Path, Path] = {}
    bases: list[Path] = []
    for one in named:
        before = len(bases)
        for path, folder in _found(one, out.resolve(), result):
            found.setdefault(_real(path), path)
            bases.append(_whole(folder))
        if len(bases) == before:
            result.unmatched.append(one)
    if not found:
        return result
    base = os.path.commonpath(bases)
    stems = [Path(os.path.relpath(_whole(path), base)).with_suffix("") for path in found.values()]
    count = Counter(stems)
    result.photos = [
        # cat.jpg and cat.png beside each other become cat-jpg and cat-png.
        Photo(path, stem if count[stem] == 1 else Path(f"{stem}-{path.suffix[1:]}"))
        for path, stem in zip(found.values(), stems, strict=True)
    ]
    return result


def _found(named: str, out: Path, result: FoundPhotos) -> Iterator[tuple[Path, Path]]:
    """The photos that one argument names, each with the folder that it was looked for in."""
    path = Path(named)
    if path.is_dir():
        for file in _photos_in(path, out, result):
            yield file, path
    elif path.is_file() or path.is_fifo():
        # A pipe too, as /dev/stdin or the shell's <(..) may be.
        yield path, path.parent
    elif not path.exists():
        for match in _matches(named):
            if (match.is_file() or match.is_dir()) and not _in(match, out):
                yield from _found(str(match), out, result)


def _matches(pattern: str) -> list[Path]:
    """What a glob matches, without hidden files."""
    path = Path(pattern)
    if "**" not in path.parts:
        return [Path(match) for match in sorted(glob(pattern))]  # noqa: PTH207  # may be absolute
    # glob would follow links to folders, and one to its own folder without end.
    anchor = Path(path.anchor)
    relative = [part if part == "**" else part.replace("**", "*") for part in path.parts]
    if path.anchor:
        relative = relative[1:]
    try:
        matches = sorted(anchor.glob(str(Path(*relative))))
    except (ValueError, OSError):
        return []
    shown = set(relative)
    return [
        match
        for match in matches
        if all(not part.startswith(".") or part in shown for part in match.parts)
    ]


def _photos_in(folder: Path, out: Path, result: FoundPhotos) -> list[Path]:
    """The photos in a folder and those below it, sorted; the rest is noted in ``result``."""
    found: list[Path] = []
    visited: set[Path] = set()
    # Links come after the folders themselves, so that a photo is found where it lies.
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        real = here.resolve()
        if real in visited or real.is_relative_to(out):
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as failure:
            result.skip(f"that cannot be read: {failure.strerror}", here)
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                result.skip("hidden", path)
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif not entry.is_file():
                kind = "broken links" if entry.is_symlink() else "that are no files"
                result.skip(kind, path)
            elif path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                result.skip(path.suffix.lower() or "without a suffix", path)
    return sorted(found)


def _real(path: Path) -> Path:
    """One path for a file, by whatever links its folder was reached."""
    return path.parent.resolve() / path.name


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
        warned: the number of photos whose reply has warnings of the file.
    """

    out: Path
    lines: TextIO
    done: int = 0
    failed: int = 0
    warned: int = 0
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
                await asyncio.to_thread(_save, picture, self.out / name, orientation)
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
        try:
            for number in sorted(self._pending_lines):
                self.lines.write(self._pending_lines[number] + "\n")
        finally:
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


def _save(picture: Picture, path: Path, orientation: int) -> None:
    """Write a picture; where that fails, no half of one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture.save(path, orientation)
    except OSError:
        if path.is_file():
            path.unlink()
        raise


def _slug(label: str) -> str:
    return re.sub(r"\W+", "-", label.lower()).strip("-")[:40]
