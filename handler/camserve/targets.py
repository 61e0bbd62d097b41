"""The classes' names, and the scores that a request's targets name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camserve.errors import RequestError, SettingsError, shown
from camserve.options import PREDICTED, Words

_TOP = re.compile(r"top:(\d{1,9})")


@dataclass(frozen=True)
class Rank:
    """The class at a place in a photo's own order of classes, 0 for the one with most score."""

    place: int


#: A class by its index, or by its place in the photo's order.
Class = int | Rank


@dataclass(frozen=True)
class Target:
    """A score to explain: a class's logit, or by how much it exceeds another's.

    Attributes:
        toward: the class.
        against: the other one, in "why A rather than B".
    """

    toward: Class
    against: Class | None = None


class Labels:
    """The classes' names, by index.

    Args:
        names: one for each class; a name may stand for several, as "crane" does, bird and machine,
            in some lists of ImageNet's.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._indices: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self._indices.setdefault(name, []).append(index)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def resolve(self, target: Words, at_most: int) -> tuple[Target, ...]:
        """The scores that a request's ``target`` names, in its order.

        Text is read as a label where there is one of that name; only then does a comma part a list
        and a hyphen two classes, for labels have commas and hyphens in them.

        Args:
            target: the option's value.
            at_most: how many scores a request may have explained.

        Raises:
            RequestError: ``unknown_class``: out of range, no such label, or a label of several
                classes; ``invalid_option``: more than ``at_most``, or none.
        """
        if isinstance(target, str) and target not in self._indices and "," in target:
            target = tuple(part.strip() for part in target.split(","))
        parts = target if isinstance(target, tuple) else (target,)
        self._check_count(len(parts), at_most)
        targets: list[Target] = []
        for part in parts:
            top = _TOP.fullmatch(part) if isinstance(part, str) else None
            if top and part not in self._indices:
                self._check_top(int(top[1]), at_most)
                targets += [Target(Rank(place)) for place in range(int(top[1]))]
            else:
                targets.append(self._target(part))
        self._check_count(len(targets), at_most)
        return tuple(targets)

    @staticmethod
    def _check_count(count: int, at_most: int) -> None:
        if count > at_most:
            raise RequestError(
                "invalid_option",
                f"option 'target' names {count} scores; accepted: up to {at_most}",
            )

    def _check_top(self, count: int, at_most: int) -> None:
        most = min(at_most, len(self))
        if not 1 <= count <= most:
            raise RequestError(
                "invalid_option",
                f"option 'target': 'top:{count}' is not accepted; accepted: top:1 to top:{most}",
            )

    def _target(self, part: int | str) -> Target:
        if isinstance(part, int):
            return Target(self._index(part))
        found = self._class(part)
        if found is not None:
            return Target(found)
        splits = [match.start() for match in re.finditer("-", part)]
        pairs = [
            (toward, against)
            for at in splits
            if (toward := self._class(part[:at].strip())) is not None
            and (against := self._class(part[at + 1 :].strip())) is not None
        ]
        if len(pairs) == 1:
            return Target(*pairs[0])
        if pairs:
            raise RequestError(
                "unknown_class",
                f"target {shown(part)} can be parted into two classes in {len(pairs)} ways; "
                "accepted: their indices, as in '281-285'",
            )
        # No label is that long, and the search for near ones takes its time.
        nearest = difflib.get_close_matches(part[:100], self._indices, n=3)
        hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise RequestError(
            "unknown_class", f"target {shown(part)} is no label{hint}; accepted: {self._accepted()}"
        )

    def _class(self, text: str) -> Class | None:
        """The class of a label, of ``predicted``, or of an index as text; None of other text."""
        indices = self._indices.get(text, [])
        if len(indices) == 1:
            return indices[0]
        if indices:
            raise RequestError(
                "unknown_class",
                f"label {shown(text)} stands for the classes {', '.join(map(str, indices))}; "
                "accepted: one of these indices",
            )
        if text == PREDICTED:
            return Rank(0)
        return self._index(int(text)) if re.fullmatch("[0-9]{1,9}", text) else None

    def _index(self, index: int) -> int:
        if index < len(self):
            return index
        raise RequestError(
            "unknown_class",
            f"target {shown(index)} is no class index; accepted: {self._accepted()}",
        )

    def _accepted(self) -> str:
        return (
            f"a class index from 0 to {len(self) - 1}, an exact label, {PREDICTED!r}, 'top:k', "
            "'A-B' of two classes, or a list of these"
        )

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read a JSON list of names, or TorchServe's index_to_name.json.

        Raises:
            SettingsError: the file is missing or of another form.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as failure:
            raise SettingsError(f"labels {path.name}: {failure}") from None
        if isinstance(content, dict):
            content = _by_index(content, path.name)
        if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
            raise SettingsError(
                f'labels {path.name}: accepted are a JSON list of names, or {{"0": "name", ..}}'
            )
        if not content:
            raise SettingsError(f"labels {path.name}: no label in it")
        return cls(tuple(content))


def _by_index(content: Mapping[str, Any], name: str) -> list[Any]:
    """TorchServe's form: index -> label, or index -> [.., label] as its ImageNet file has it."""
    labels = []
    for index in map(str, range(len(content))):
        if index not in content:
            raise SettingsError(f"labels {name}: the keys must be 0 to {len(content) - 1}")
        label = content[index]
        labels.append(label[-1] if isinstance(label, list) and label else label)
    return labels
