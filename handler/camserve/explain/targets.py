"""The scores that a request's targets name."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from camserve.errors import RequestError, short_repr
from camserve.networks.labels import Labels
from camserve.options import PREDICTED, RawTarget

_TOP = re.compile("top:([0-9]{1,9})")


@dataclass(frozen=True)
class TopRank:
    """The class at a place in a photo's own order of classes, 0 for the one with most score."""

    rank: int


#: A class by its index, or by its place in the photo's order.
ClassRef = int | TopRank
#: How a score was named: as the best class or one after it, by its own name, against another's.
TargetKind = Literal["predicted", "ranked", "class", "contrast"]


@dataclass(frozen=True)
class Target:
    """A score to explain: a class's logit, or by how much it exceeds another's.

    Attributes:
        class_ref: the class.
        against: the other one, in "why A rather than B".
    """

    class_ref: ClassRef
    against: ClassRef | None = None

    @property
    def kind(self) -> TargetKind:
        if self.against is not None:
            return "contrast"
        if isinstance(self.class_ref, TopRank):
            return "ranked" if self.class_ref.rank else "predicted"
        return "class"


def resolve_targets(labels: Labels, target: RawTarget, max_targets: int) -> tuple[Target, ...]:
    """The scores that a request's ``target`` names, in its order.

    Text is read as a label where there is one of that name; only then does a comma part a list
    and a hyphen two classes, for labels have commas and hyphens in them.

    Args:
        labels: of the model.
        target: the option's value.
        max_targets: how many scores a request may have explained.

    Raises:
        RequestError: ``unknown_class``: out of range, no such label, or a label of several
            classes; ``too_many_targets``: more than ``max_targets``; ``invalid_option``: none.
    """
    return _Resolver(labels, max_targets).resolve(target)


@dataclass(frozen=True)
class _Resolver:
    """Reads targets with one model's labels."""

    labels: Labels
    max_targets: int

    def resolve(self, target: RawTarget) -> tuple[Target, ...]:
        parts = target if isinstance(target, tuple) else self._parted(target)
        self._check_count(len(parts))
        targets: list[Target] = []
        for part in parts:
            top = _TOP.fullmatch(part) if isinstance(part, str) else None
            if top and part not in self.labels.indices:
                self._check_top(int(top[1]))
                targets += [Target(TopRank(place)) for place in range(int(top[1]))]
            else:
                targets.append(self._target(part))
        self._check_count(len(targets))
        return tuple(targets)

    def _parted(self, target: int | str) -> tuple[int | str, ...]:
        """The parts of a list in text; the one target where it is none."""
        if isinstance(target, int) or "," not in target or self._named(target):
            return (target,)
        return tuple(part.strip() for part in target.split(","))

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self.max_targets:
            raise RequestError(
                "too_many_targets" if count else "invalid_option",
                f"option 'target' names {count} scores; accepted: 1 to {self.max_targets}",
            )

    def _check_top(self, count: int) -> None:
        most = min(self.max_targets, len(self.labels))
        if not 1 <= count <= most:
            raise RequestError(
                "too_many_targets"
                if self.max_targets < count <= len(self.labels)
                else "invalid_option",
                f"option 'target': 'top:{count}' is not accepted; accepted: top:1 to top:{most}",
            )

    def _target(self, part: int | str) -> Target:
        if isinstance(part, int):
            return Target(self._index(part))
        if target := self._named(part):
            return target
        # No label is that long, and the search for near ones takes its time.
        nearest = difflib.get_close_matches(part[:100], self.labels.indices, n=3)
        hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise RequestError(
            "unknown_class",
            f"target {short_repr(part)} is no label{hint}; accepted: {self._accepted()}",
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
                f"target {short_repr(text)} can be parted into two classes in {len(pairs)} ways; "
                "accepted: their indices, as in '281-285'",
            )
        if failure and not pairs:
            raise failure
        return pairs[0] if pairs else None

    def _side(self, text: str) -> ClassRef | RequestError | None:
        try:
            return self._class(text.strip())
        except RequestError as error:
            return error

    def _class(self, text: str) -> ClassRef | None:
        """The class of a label, of ``predicted``, or of an index as text; None of other text."""
        indices = self.labels.indices.get(text, [])
        if len(indices) == 1:
            return indices[0]
        if indices:
            raise RequestError(
                "unknown_class",
                f"label {short_repr(text)} stands for the classes {', '.join(map(str, indices))}; "
                "accepted: one of these indices",
            )
        if text == PREDICTED:
            return TopRank(0)
        return self._index(int(text)) if re.fullmatch("[0-9]{1,9}", text) else None

    def _index(self, index: int) -> int:
        if index < len(self.labels):
            return index
        raise RequestError(
            "unknown_class",
            f"target {short_repr(index)} is no class index; accepted: {self._accepted()}",
        )

    def _accepted(self) -> str:
        return (
            f"a class index from 0 to {len(self.labels) - 1}, an exact label, {PREDICTED!r}, "
            "'top:k', 'A-B' of two classes, or a list of these"
        )
