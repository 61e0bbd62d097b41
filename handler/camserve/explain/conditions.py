"""The option ``explain_when``: whether a prediction is one to explain, judged before a backward."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from camserve.errors import RequestError, short_repr
from camserve.networks import Labels

ACCEPTED: Final = (
    "comparisons as 'probability<0.8', 'margin<0.1' or 'class in [281, \"tiger cat\"]', joined by "
    "'and' and 'or'"
)

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER: Final = re.compile(
    r"(probability|margin)\s*(<=|>=|<|>)\s*([0-9]{1,9}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})"
)
_CLASS: Final = re.compile(r"class\s+(not\s+)?in\s*(\[)")
_JOIN: Final = re.compile(r"\s+(and|or)\s+")
#: More than anyone writes.
_MAX_COMPARISONS: Final = 32


@dataclass(frozen=True)
class Verdict:
    """What a condition judges: the best class of a forward pass.

    Attributes:
        probability: of the class, in [0, 1].
        margin: how far the prediction is from another one, in [0, 1].
        class_id: the class's index.
    """

    probability: float
    margin: float
    class_id: int


@dataclass(frozen=True)
class Comparison:
    """One comparison of a condition.

    Attributes:
        figure: what is compared.
        holds_for: whether the comparison holds for a figure.
    """

    figure: Literal["probability", "margin", "class"]
    holds_for: Callable[[float], bool]

    def value_of(self, verdict: Verdict) -> float:
        """The figure that is compared."""
        if self.figure == "class":
            return verdict.class_id
        return verdict.probability if self.figure == "probability" else verdict.margin


@dataclass(frozen=True)
class Condition:
    """A condition on a prediction.

    Attributes:
        text: as it was given.
        any_of: groups of comparisons; it holds where all of one group do.
    """

    text: str
    any_of: tuple[tuple[Comparison, ...], ...]

    def holds(self, verdict: Verdict) -> bool:
        """Whether the prediction is one to explain."""
        return any(
            all(one.holds_for(one.value_of(verdict)) for one in group) for group in self.any_of
        )

    def values(self, verdict: Verdict) -> list[float]:
        """The figure of each comparison, in their order."""
        return [one.value_of(verdict) for group in self.any_of for one in group]


def parse_condition(text: str, labels: Labels) -> Condition:
    """Parse a condition; ``and`` binds more tightly than ``or``.

    Args:
        text: comparisons of ``probability`` and ``margin`` with a number and of ``class`` with a
            list in JSON, joined by ``and`` and ``or``.
        labels: of the model; a list of classes holds their indices, labels or wnids.

    Raises:
        RequestError: ``invalid_option``; ``unknown_class``.
    """
    rest, groups, count = text.strip(), list[list[Comparison]]([[]]), 0
    while True:
        comparison, end = _parse_comparison(text, rest, labels)
        groups[-1].append(comparison)
        count += 1
        rest = rest[end:]
        if not rest.strip():
            return Condition(text, tuple(map(tuple, groups)))
        join = _JOIN.match(rest)
        if join is None:
            raise _invalid(text, f"after a comparison stands {short_repr(rest.strip())}")
        if count == _MAX_COMPARISONS:
            raise _invalid(text, f"it has more than {_MAX_COMPARISONS} comparisons")
        if join[1] == "or":
            groups.append([])
        rest = rest[join.end() :]


def _parse_comparison(text: str, rest: str, labels: Labels) -> tuple[Comparison, int]:
    """The comparison that ``rest`` begins with, and where it ends."""
    if number := _NUMBER.match(rest):
        compare, limit = _OPERATORS[number[2]], float(number[3])
        figure: Literal["probability", "margin"] = (
            "probability" if number[1] == "probability" else "margin"
        )
        if limit > 1:
            raise _invalid(text, f"{number[0]!r}: a {figure} is at most 1")
        return Comparison(figure, lambda value: compare(value, limit)), number.end()
    if membership := _CLASS.match(rest):
        start = membership.start(2)
        try:
            items, length = json.JSONDecoder().raw_decode(rest[start:])
        except (ValueError, RecursionError):
            raise _invalid(text, f"{short_repr(rest[start:])} begins with no JSON list") from None
        classes = frozenset(_class_id(text, item, labels) for item in items)
        inside = membership[1] is None
        return Comparison("class", lambda value: (value in classes) == inside), start + length
    raise _invalid(
        text, f"{short_repr(rest)} is no comparison" if rest else "a comparison is missing"
    )


def _class_id(text: str, item: object, labels: Labels) -> int:
    """The class that an item of a list names.

    Raises:
        RequestError: ``invalid_option``, ``unknown_class``.
    """
    problem = "is no class index"
    if isinstance(item, str):
        for known in (labels.indices, labels.wnid_indices):
            indices = known.get(item, [])
            if len(indices) == 1:
                return indices[0]
            if indices:
                problem = f"stands for the classes {', '.join(map(str, indices))}"
                break
        else:
            nearest = labels.nearest(item)
            problem = f"is no label; did you mean {nearest}?" if nearest else "is no label"
    elif not isinstance(item, int) or isinstance(item, bool):
        raise _invalid(text, f"{short_repr(item)} is no class")
    elif 0 <= item < len(labels):
        return item
    raise RequestError(
        "unknown_class",
        f"option 'explain_when': {short_repr(item)} {problem}; accepted: a class index from 0 to "
        f"{len(labels) - 1}, or an exact label",
    )


def _invalid(text: str, problem: str) -> RequestError:
    return RequestError(
        "invalid_option",
        f"option 'explain_when': {short_repr(text)} is not accepted ({problem}); "
        f"accepted: {ACCEPTED}",
    )
