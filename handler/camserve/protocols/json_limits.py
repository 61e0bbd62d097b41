"""Parsing of callers' JSON, and its limits, which are checked before anything walks through it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from camserve.errors import RequestError
from camserve.settings import Limits


def parse_options(name: str, value: Any, limits: Limits) -> dict[str, Any]:
    """Parse a JSON object of options.

    Args:
        name: what the error message calls it.
        value: JSON text, or what was already parsed from it.
        limits: of the text's length, the number of values and the depth.

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
    """Reject a value that contains too many values, or is nested too deep.

    The walk goes level by level and stops at the limits; a recursive one would end in Python's own
    recursion limit.

    Args:
        name: what the error message calls the value.
        value: parsed JSON.
        limits: of the number of values and the depth.

    Raises:
        RequestError: ``json_too_large``.
    """
    level, count = [value], 1
    for _ in range(limits.json_depth + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
        count += len(level)
        if count > limits.json_values:
            raise RequestError(
                "json_too_large",
                f"{name} holds more than {limits.json_values} values; accepted: up to that",
            )
    raise RequestError(
        "json_too_large",
        f"{name} is nested more than {limits.json_depth} deep; accepted: up to that",
    )


def check_text(name: str, text: bytes | bytearray | str, limits: Limits) -> None:
    """Reject an option's text that is longer than any option needs.

    Raises:
        RequestError: ``json_too_large``.
    """
    if len(text) > limits.json_bytes:
        raise RequestError(
            "json_too_large",
            f"{name!r} has {len(text)} bytes; accepted: up to {limits.json_bytes}",
        )


def json_type_name(value: Any) -> str:
    """JSON's name for the type of a parsed value, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number"}
    return names.get(type(value), "null" if value is None else "a number")


def _children(value: Any) -> Iterable[Any]:
    """The values that an object or a list contains directly."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()
