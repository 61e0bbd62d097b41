"""Typed access to parsed JSON, with errors that name the place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from camserve_client.errors import InvalidReplyError


@dataclass(frozen=True)
class JsonNode:
    """A JSON value and its path. A method raises InvalidReplyError if the value has another type.

    Attributes:
        value: as :func:`json.loads` returns it.
        path: where the value is, such as ``reply.explanations[0].peak``.
    """

    value: Any
    path: str

    def required(self, key: str) -> JsonNode:
        """The value of an object's key, which must be there."""
        if key not in self.object():
            raise InvalidReplyError(f"{self.path} has no {key!r}")
        return JsonNode(self.value[key], f"{self.path}.{key}")

    def optional(self, key: str) -> JsonNode | None:
        """The value of an object's key, or None if the object has no such key."""
        return self.required(key) if key in self.object() else None

    def object(self) -> dict[str, Any]:
        """The value as a dict."""
        return dict(self._of_type(dict, "an object"))

    def items(self) -> tuple[JsonNode, ...]:
        """The items of a list."""
        return tuple(
            JsonNode(value, f"{self.path}[{index}]")
            for index, value in enumerate(self._of_type(list, "a list"))
        )

    def list_of_length(self, length: int) -> tuple[JsonNode, ...]:
        """The items of a list that must have this length."""
        items = self.items()
        if len(items) != length:
            raise InvalidReplyError(f"{self.path} must have {length} values, and has {len(items)}")
        return items

    def string(self) -> str:
        """The value as a string."""
        return str(self._of_type(str, "text"))

    def boolean(self) -> bool:
        """The value as a bool."""
        return bool(self._of_type(bool, "true or false"))

    def integer(self, minimum: int = 0) -> int:
        """The value as an integer of at least ``minimum``."""
        # In Python, a bool is an int.
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < minimum:
            raise self._type_error(f"a whole number from {minimum}")
        return self.value

    def number(self) -> float:
        """The value as a finite float."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self._type_error("a number")
        if not math.isfinite(self.value):
            raise self._type_error("a finite number")
        return float(self.value)

    def _of_type(self, type_: type, name: str) -> Any:
        if not isinstance(self.value, type_):
            raise self._type_error(name)
        return self.value

    def _type_error(self, expected: str) -> InvalidReplyError:
        return InvalidReplyError(f"{self.path} must be {expected}, and is {str(self.value)[:80]!r}")
