"""Reading JSON that must have a certain form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from camserve_client.errors import ReplyError


@dataclass(frozen=True)
class Node:
    """A JSON value and where it stands; each method raises ReplyError where it is another thing.

    Attributes:
        value: as :func:`json.loads` gives it.
        where: the path to it, as ``reply.explanations[0].peak``.
    """

    value: Any
    where: str

    def get(self, key: str) -> Node:
        """A value of an object."""
        if key not in self.object():
            raise ReplyError(f"{self.where} has no {key!r}")
        return Node(self.value[key], f"{self.where}.{key}")

    def find(self, key: str) -> Node | None:
        """A value of an object, if it is there."""
        return self.get(key) if key in self.object() else None

    def object(self) -> dict[str, Any]:
        return dict(self._of(dict, "an object"))

    def items(self) -> tuple[Node, ...]:
        """The values of a list."""
        return tuple(
            Node(value, f"{self.where}[{n}]") for n, value in enumerate(self._of(list, "a list"))
        )

    def exactly(self, length: int) -> tuple[Node, ...]:
        """The values of a list of one length."""
        items = self.items()
        if len(items) != length:
            raise ReplyError(f"{self.where} must be of {length} values, and is of {len(items)}")
        return items

    def text(self) -> str:
        return str(self._of(str, "text"))

    def flag(self) -> bool:
        return bool(self._of(bool, "true or false"))

    def whole(self, least: int = 0) -> int:
        """A whole number that is not under ``least``."""
        # In Python, a bool is an int.
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < least:
            raise self._wrong(f"a whole number from {least}")
        return self.value

    def number(self) -> float:
        """A finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self._wrong("a number")
        if not math.isfinite(self.value):
            raise self._wrong("a finite number")
        return float(self.value)

    def _of(self, kind: type, name: str) -> Any:
        if not isinstance(self.value, kind):
            raise self._wrong(name)
        return self.value

    def _wrong(self, wanted: str) -> ReplyError:
        return ReplyError(f"{self.where} must be {wanted}, and is {str(self.value)[:80]!r}")
