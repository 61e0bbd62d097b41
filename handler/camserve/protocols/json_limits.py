"""JSON that callers send, parsed and held to the limits before anything walks through it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from camserve.errors import RequestError
from camserve.settings import Limits


def parse(name: str, value: Any, limits: Limits) -> dict[str, Any]:
    """An object of options, as text or parsed already.

    Args:
        name: what it is called where it is refused.

    Raises:
        RequestError: ``invalid_json``, ``json_too_large``.
    """
    if isinstance(value, bytes | bytearray | str):
        check_text(name, value, limits)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RequestError("invalid_json", f"{name!r} is no valid JSON") from None
    if not isinstance(value, dict):
        raise RequestError(
            "invalid_json",
            f"{name!r} must be a JSON object of options, not {json_type_name(value)}",
        )
    check_structure(name, value, limits)
    return value


def check_structure(name: str, value: Any, limits: Limits) -> None:
    """Refuse a value with too many others in it, or too deep ones.

    It is walked level by level, and no further than is accepted: a recursion would end in Python's
    own limit.

    Raises:
        RequestError: ``json_too_large``.
    """
    level, seen = [value], 1
    for _ in range(limits.json_depth + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
        seen += len(level)
        if seen > limits.json_values:
            raise RequestError(
                "json_too_large",
                f"{name} holds more than {limits.json_values} values; accepted: up to that",
            )
    raise RequestError(
        "json_too_large",
        f"{name} is nested more than {limits.json_depth} deep; accepted: up to that",
    )


def check_text(name: str, text: bytes | bytearray | str, limits: Limits) -> None:
    """Refuse an option's text that is longer than any needs to be.

    Raises:
        RequestError: ``json_too_large``.
    """
    if len(text) > limits.json_bytes:
        raise RequestError(
            "json_too_large",
            f"{name!r} has {len(text)} bytes; accepted: up to {limits.json_bytes}",
        )


def json_type_name(value: Any) -> str:
    """What JSON calls a value of that type."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number"}
    return names.get(type(value), "null" if value is None else "a number")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()
