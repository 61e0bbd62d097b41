"""What ``camserve explain`` leaves: the pictures, and the replies as JSON lines."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from camserve_cli.explain_files import Photo
from camserve_client import Explanation, InvalidReplyError, Picture, Reply

#: Errors of a disk that is full, read-only or broken: no picture of any photo can be written.
OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
# Bytes of a file's name, on Linux's and macOS's file systems.
_MAX_NAME = 255
# Bytes of a label in it: two labels, and what else the name ends with, leave some to the photo.
_MAX_SLUG = 80


@dataclass
class Results:
    """What a run leaves: pictures, JSON lines in the order of the photos, and its count.

    Attributes:
        out: the folder for it all.
        lines: the file for the JSON lines.
        photos: all of the run, so that the names of one's pictures are never another's.
        done, failed: the number of photos.
        warned: the number of photos whose reply has warnings of the file.
        not_explained: the number of photos for which the condition of the call did not hold.
    """

    out: Path
    lines: TextIO
    photos: Sequence[Photo] = ()
    done: int = 0
    failed: int = 0
    warned: int = 0
    not_explained: int = 0
    _pending_lines: dict[int, str] = field(default_factory=dict)
    _written: int = 0
    _used_names: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._prefixes = {photo.prefix for photo in self.photos}
        self._folders = {folder for prefix in self._prefixes for folder in prefix.parents}

    @property
    def explained(self) -> int:
        """The number of photos that have an explanation."""
        return self.done - self.failed - self.not_explained

    async def save_pictures(self, photo: Photo, reply: Reply, as_stored: bool) -> dict[str, Any]:
        """Write a reply's pictures; the reply with their names in their places.

        Args:
            photo: that it answers.
            reply: to it.
            as_stored: whether the pictures lie as the pixels of the photo's file do.

        Raises:
            OSError: a picture cannot be written; its path is the error's ``filename``. The reply's
                other pictures are removed.
            InvalidReplyError: a picture is none.
        """
        saved: list[Path] = []
        try:
            return await self._save_pictures(photo, reply, as_stored, saved)
        except (OSError, InvalidReplyError):
            for path in saved:
                with suppress(OSError):
                    path.unlink()
            raise

    async def _save_pictures(
        self, photo: Photo, reply: Reply, as_stored: bool, saved: list[Path]
    ) -> dict[str, Any]:
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
                saved.append(self.out / name)
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
        parts = [_slug(explanation.label) or str(explanation.class_id)]
        if explanation.against:
            parts += ["not", _slug(explanation.against.label) or str(explanation.against.class_id)]
        if output != "overlay":
            parts.append(output)
        suffix = _slug(picture.media_type.rpartition("/")[2])
        for n in count(1):
            rest = "-".join(parts if n == 1 else [*parts, str(n)])
            name = self._own_name(photo, rest, suffix)
            # A folder may have the name: one for other photos' pictures, or somebody's.
            taken = name in self._used_names or name in self._folders
            if not taken and not (self.out / name).is_dir():
                break
        self._used_names.add(name)
        return name

    def _own_name(self, photo: Photo, rest: str, suffix: str) -> Path:
        """A name that no picture of another photo can have, whichever is written first."""
        own = photo.prefix.name
        # Of photos a and a-b, "a-b-c" is the latter's: for its class c, not for the other's b-c.
        for dashes in count(1):
            stem = own + "-" * dashes + rest
            longer = (at for at, char in enumerate(stem) if char == "-" and at > len(own))
            if not any(photo.prefix.with_name(stem[:at]) in self._prefixes for at in longer):
                break
        if len(os.fsencode(f"{stem}.{suffix}")) <= _MAX_NAME:
            return photo.prefix.with_name(f"{stem}.{suffix}")
        # What is cut off may be all that the names of two photos differ in.
        digest = hashlib.sha256(os.fsencode(own)).hexdigest()[:8]
        end = f"-{digest}-{rest}.{suffix}"
        kept = os.fsencode(own)[: _MAX_NAME - len(os.fsencode(end))]
        return photo.prefix.with_name(kept.decode("utf-8", "ignore") + end)


def _save(picture: Picture, path: Path, orientation: int) -> None:
    """Write a picture; where that fails, no half of one stays.

    Raises:
        OSError: with ``path``, or its folder, as ``filename``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture.save(path, orientation)
    except OSError as failure:
        # One that names its file did not open it, and what is there is not of this run.
        if failure.filename is None:
            if path.is_file():
                path.unlink()
            failure.filename = str(path)
        raise


def _slug(label: str) -> str:
    # Of 40 letters, each of up to four bytes, two in one name would be too long for a file.
    slug = re.sub(r"\W+", "-", label.lower()).strip("-")[:40]
    return os.fsencode(slug)[:_MAX_SLUG].decode("utf-8", "ignore")
