"""The photos that ``camserve explain`` finds, and what the names of their pictures begin with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from glob import glob
from itertools import chain, islice
from itertools import count as count_from
from pathlib import Path

from camserve_cli.terminal import printable

#: What is taken for a photo in a folder, in any case.
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib",
        ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif",
    }
)  # fmt: skip
#: The file for the JSON lines, in --out.
LINES = "explanations.jsonl"
# How many files that were passed over are named, of each kind.
_NAMED = 3


@dataclass(frozen=True)
class Photo:
    """A photo to explain.

    Attributes:
        path: as it was named or found.
        prefix: what the names of its pictures begin with, a path under --out; no other photo's is
            the same.
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
        """What was passed over, in one line for a terminal; empty if nothing was."""
        kinds = sorted(self.passed_over.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        listed = [
            f"{len(paths)} {kind} ({', '.join(map(str, islice(paths, _NAMED)))}"
            f"{', ..' if len(paths) > _NAMED else ''})"
            for kind, paths in kinds
        ]
        count = sum(len(paths) for _, paths in kinds)
        return printable(f"passed over {count}: {'; '.join(listed)}") if count else ""


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
    prefixes = _prefixes(list(found.values()), stems)
    result.photos = [
        Photo(path, prefix) for path, prefix in zip(found.values(), prefixes, strict=True)
    ]
    return result


def _prefixes(paths: Sequence[Path], stems: Sequence[Path]) -> list[Path]:
    """What the pictures' names of each photo begin with: unique, by the photos' order alone."""
    count = Counter(stems)
    used = {stem for stem in stems if count[stem] == 1}
    prefixes = []
    for path, stem in zip(paths, stems, strict=True):
        prefix = stem
        if count[stem] > 1:
            # cat.jpg and cat.png beside each other become cat-jpg and cat-png.
            prefix = Path("-".join([str(stem), *filter(None, [path.suffix[1:]])]))
            prefix = _next_free(prefix, used)
            used.add(prefix)
        prefixes.append(prefix)
    folders = {Path(prefix.parts[0]) for prefix in prefixes if len(prefix.parts) > 1}
    if Path(LINES) not in folders:
        return prefixes
    # The JSON lines have that name.
    instead = _next_free(Path(LINES), folders)
    return [
        Path(instead, *prefix.parts[1:])
        if len(prefix.parts) > 1 and prefix.parts[0] == LINES
        else prefix
        for prefix in prefixes
    ]


def _next_free(path: Path, used: Set[Path]) -> Path:
    """The path, with a number from 2 on at its end if it is used."""
    numbered = (Path(f"{path}-{n}") for n in count_from(2))
    return next(one for one in chain([path], numbered) if one not in used)


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
            if _in(match, out):
                continue
            if _is(match.is_file) or _is(match.is_dir):
                yield from _found(str(match), out, result)
            else:
                result.skip(_kind_of_no_file(match), match)


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
            elif _is(entry.is_dir):
                (links if entry.is_symlink() else folders).append(path)
            elif not _is(entry.is_file):
                result.skip(_kind_of_no_file(path), path)
            elif path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                result.skip(path.suffix.lower() or "without a suffix", path)
    return sorted(found)


def _is(kind: Callable[[], bool]) -> bool:
    """Whether a path is of a kind; a link to itself, or past a locked folder, is of none."""
    try:
        return kind()
    except OSError:
        return False


def _kind_of_no_file(path: Path) -> str:
    """How what is neither a file nor a folder is counted among what is passed over."""
    try:
        path.stat()
    except FileNotFoundError:
        return "broken links"
    except OSError as failure:
        return f"that cannot be read: {failure.strerror}"
    return "that are no files"


def _real(path: Path) -> Path:
    """One path for a file, by whatever links its folder was reached."""
    return path.parent.resolve() / path.name


def _whole(path: Path) -> Path:
    # Without "..", by which a picture's place under --out could leave it.
    return Path(os.path.normpath(path.absolute()))


def _in(path: Path, folder: Path) -> bool:
    # Unlike Path.resolve, without an error for a link to itself.
    return Path(os.path.realpath(path)).is_relative_to(folder)
