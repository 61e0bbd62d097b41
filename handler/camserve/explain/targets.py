"""A request's ``target`` option -> the scores to explain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from camserve.errors import RequestError, short_repr
from camserve.networks import Labels
from camserve.options import PREDICTED, RawTarget

_TOP: Final = re.compile("top:([0-9]{1,9})")
_INDEX: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class TopRank:
    """The class at a rank in a photo's own order of scores; 0 is the highest."""

    rank: int


#: A class by its index, or by its rank among a photo's scores.
ClassRef = int | TopRank
#: How a request names a score: as the highest, by a lower rank, by its class, or as a contrast.
TargetKind = Literal["predicted", "ranked", "class", "contrast"]


@dataclass(frozen=True)
class Target:
    """A score to explain: the logit of a class, or its difference from the logit of another class.

    Attributes:
        class_ref: the class.
        against: the other class of a contrast, "why A rather than B".
        every_predicted: stands for the scores of all predicted classes, of which a multilabel
            network may have several; ``class_ref`` is then the highest.
    """

    class_ref: ClassRef
    against: ClassRef | None = None
    every_predicted: bool = False

    @property
    def kind(self) -> TargetKind:
        """How the request names the score."""
        if self.against is not None:
            return "contrast"
        if isinstance(self.class_ref, TopRank):
            return "ranked" if self.class_ref.rank else "predicted"
        return "class"


def resolve_targets(labels: Labels, target: RawTarget, max_targets: int) -> tuple[Target, ...]:
    """The scores that a request's ``target`` option names, in its order.

    Labels can contain commas and hyphens, so text is first looked up as a label. Only text that is
    no label is split: at commas into a list, at a hyphen into the two classes of a contrast.

    Args:
        labels: of the model.
        target: the option's value.
        max_targets: how many scores one request may ask for.

    Raises:
        RequestError: ``unknown_class``: an index out of range, an unknown label, or a label of
            several classes. ``too_many_targets``: more than ``max_targets``. ``invalid_option``: no
            target at all, or a rank below 1 or above the number of classes.
    """
    return _Resolver(labels, max_targets).resolve(target)


@dataclass(frozen=True)
class _Resolver:
    """Resolves targets with one model's labels."""

    labels: Labels
    max_targets: int

    def resolve(self, target: RawTarget) -> tuple[Target, ...]:
        items = target if isinstance(target, tuple) else self._split_list(target)
        self._check_count(len(items))
        targets: list[Target] = []
        for item in items:
            top = _TOP.fullmatch(item) if isinstance(item, str) else None
            if top and item not in self.labels.indices:
                self._check_top(int(top[1]))
                targets += [Target(TopRank(rank)) for rank in range(int(top[1]))]
            else:
                targets.append(self._resolve_item(item))
        self._check_count(len(targets))
        return tuple(targets)

    def _split_list(self, target: int | str) -> tuple[int | str, ...]:
        """The items of a comma-separated list; of anything else, the target as the only item."""
        if isinstance(target, int) or "," not in target or self._parse_target(target):
            return (target,)
        return tuple(item.strip() for item in target.split(","))

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self.max_targets:
            raise RequestError(
                "too_many_targets" if count else "invalid_option",
                f"option 'target' names {count} scores; accepted: 1 to {self.max_targets}",
            )

    def _check_top(self, count: int) -> None:
        max_count = min(self.max_targets, len(self.labels))
        if not 1 <= count <= max_count:
            raise RequestError(
                "too_many_targets"
                if self.max_targets < count <= len(self.labels)
                else "invalid_option",
                f"option 'target': 'top:{count}' is not accepted; accepted: top:1 to "
                f"top:{max_count}",
            )

    def _resolve_item(self, item: int | str) -> Target:
        if isinstance(item, int):
            return Target(self._check_index(item))
        if target := self._parse_target(item):
            return target
        nearest = self.labels.nearest(item)
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise RequestError(
            "unknown_class",
            f"target {short_repr(item)} is no label{hint}; accepted: {self._accepted()}",
        )

    def _parse_target(self, text: str) -> Target | None:
        """The score that a text without a list names: a class, or a contrast ``A-B``; else None.

        Labels can contain hyphens, so each hyphen is tried. An error in an operand is raised only
        if no other hyphen separates two classes.
        """
        if (single := self._parse_class(text)) is not None:
            return Target(single, every_predicted=isinstance(single, TopRank))
        contrasts: list[Target] = []
        error: RequestError | None = None
        for hyphen in re.finditer("-", text):
            class_ref = self._parse_operand(text[: hyphen.start()])
            against = self._parse_operand(text[hyphen.end() :])
            if class_ref is None or against is None:
                continue
            if isinstance(class_ref, RequestError):
                error = class_ref
            elif isinstance(against, RequestError):
                error = against
            else:
                contrasts.append(Target(class_ref, against))
        if len(contrasts) > 1:
            raise RequestError(
                "unknown_class",
                f"target {short_repr(text)} can be parted into two classes in {len(contrasts)} "
                "ways; accepted: their indices, as in '281-285'",
            )
        if error and not contrasts:
            raise error
        return contrasts[0] if contrasts else None

    def _parse_operand(self, text: str) -> ClassRef | RequestError | None:
        """As :meth:`_parse_class`, for one side of a contrast; its error is returned."""
        try:
            return self._parse_class(text.strip())
        except RequestError as error:
            return error

    def _parse_class(self, text: str) -> ClassRef | None:
        """The class that a text names; None for other text.

        A label comes first, then ``predicted`` and an index, and last a WordNet ID.
        """
        if (index := self._unique("label", text, self.labels.indices)) is not None:
            return index
        if text == PREDICTED:
            return TopRank(0)
        if _INDEX.fullmatch(text):
            return self._check_index(int(text))
        return self._unique("wnid", text, self.labels.wnid_indices)

    def _unique(self, kind: str, text: str, known: Mapping[str, Sequence[int]]) -> int | None:
        """The class that has a text as its label or wnid; None where none has it."""
        indices = known.get(text, [])
        if len(indices) > 1:
            raise RequestError(
                "unknown_class",
                f"{kind} {short_repr(text)} stands for the classes {', '.join(map(str, indices))}; "
                "accepted: one of these indices",
            )
        return indices[0] if indices else None

    def _check_index(self, index: int) -> int:
        if index < len(self.labels):
            return index
        raise RequestError(
            "unknown_class",
            f"target {short_repr(index)} is no class index; accepted: {self._accepted()}",
        )

    def _accepted(self) -> str:
        return (
            f"a class index from 0 to {len(self.labels) - 1}, an exact label, "
            f"{'a wnid, ' if self.labels.wnid_indices else ''}{PREDICTED!r}, "
            "'top:k', 'A-B' of two classes, or a list of these"
        )
