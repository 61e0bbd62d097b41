"""The classes' names, and the scores that a request's targets name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from camserve.errors import RequestError, SettingsError, shown
from camserve.options import PREDICTED, Words

_TOP = re.compile("top:([0-9]{1,9})")


@dataclass(frozen=True)
class Rank:
    """The class at a place in a photo's own order of classes, 0 for the one with most score."""

    place: int


#: A class by its index, or by its place in the photo's order.
Class = int | Rank
#: How a score was named: as the best class or one after it, by its own name, against another's.
Kind = Literal["predicted", "ranked", "class", "contrast"]


@dataclass(frozen=True)
class Target:
    """A score to explain: a class's logit, or by how much it exceeds another's.

    Attributes:
        toward: the class.
        against: the other one, in "why A rather than B".
    """

    toward: Class
    against: Class | None = None

    @property
    def kind(self) -> Kind:
        if self.against is not None:
            return "contrast"
        if isinstance(self.toward, Rank):
            return "ranked" if self.toward.place else "predicted"
        return "class"


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
                classes; ``too_many_targets``: more than ``at_most``; ``invalid_option``: none.
        """
        parts = target if isinstance(target, tuple) else self._parted(target)
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

    def _parted(self, target: int | str) -> tuple[int | str, ...]:
        """The parts of a list in text; the one target where it is none."""
        if isinstance(target, int) or "," not in target or self._named(target):
            return (target,)
        return tuple(part.strip() for part in target.split(","))

    @staticmethod
    def _check_count(count: int, at_most: int) -> None:
        if not 1 <= count <= at_most:
            raise RequestError(
                "too_many_targets" if count else "invalid_option",
                f"option 'target' names {count} scores; accepted: 1 to {at_most}",
            )

    def _check_top(self, count: int, at_most: int) -> None:
        most = min(at_most, len(self))
        if not 1 <= count <= most:
            raise RequestError(
                "too_many_targets" if at_most < count <= len(self) else "invalid_option",
                f"option 'target': 'top:{count}' is not accepted; accepted: top:1 to top:{most}",
            )

    def _target(self, part: int | str) -> Target:
        if isinstance(part, int):
            return Target(self._index(part))
        if target := self._named(part):
            return target
        # No label is that long, and the search for near ones takes its time.
        nearest = difflib.get_close_matches(part[:100], self._indices, n=3)
        hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise RequestError(
            "unknown_class", f"target {shown(part)} is no label{hint}; accepted: {self._accepted()}"
        )

    def _named(self, text: str) -> Target | None:
        """The score that one text names: a class, or two with a hyphen between them.

        A hyphen may stand within a label, so each is tried; what is wrong with a part counts only
        where no other parting is right.
        """
        found = self._class(text)
        if found is not None:
            return Target(found)
        pairs: list[Target] = []
        failure: RequestError | None = None
        for hyphen in re.finditer("-", text):
            toward = self._side(text[: hyphen.start()])
            against = self._side(text[hyphen.end() :])
            if toward is None or against is None:
                continue
            if isinstance(toward, RequestError):
                failure = toward
            elif isinstance(against, RequestError):
                failure = against
            else:
                pairs.append(Target(toward, against))
        if len(pairs) > 1:
            raise RequestError(
                "unknown_class",
                f"target {shown(text)} can be parted into two classes in {len(pairs)} ways; "
                "accepted: their indices, as in '281-285'",
            )
        if failure and not pairs:
            raise failure
        return pairs[0] if pairs else None

    def _side(self, text: str) -> Class | RequestError | None:
        try:
            return self._class(text.strip())
        except RequestError as error:
            return error

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
        except (OSError, ValueError, RecursionError) as failure:
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
