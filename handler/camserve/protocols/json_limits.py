"""Parsing of callers' JSON, and its limits, which are checked before anything walks through it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from camserve.errors import RequestError, short_repr
from camserve.options import Options
from camserve.settings import Limits

#: The keys that hold photos or tensors, and not options.
_CONTENT_KEYS: Final = ("image", "data", "b64", "image_bytes", "instances", "inputs")


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
            value = parse_json(value, limits)
        except (ValueError, RecursionError):
            raise RequestError("invalid_json", f"{name!r} is no valid JSON") from None
    if not isinstance(value, dict):
        raise RequestError(
            "invalid_json",
            f"{name!r} must be a JSON object of options, not {json_type_name(value)}",
        )
    check_structure(name, value, limits)
    return value


def parse_json(text: bytes | bytearray | str, limits: Limits) -> Any:
    """Parse JSON whose objects have each key once, or with values that mean the same.

    Args:
        text: in UTF-8, UTF-16 or UTF-32 if it is bytes.
        limits: of the number of values; objects with more are not looked through.

    Raises:
        ValueError, RecursionError: it is no JSON, or nested too deep.
        RequestError: ``conflicting_options``: a key has two values; ``invalid_request``: a key that
            holds a photo or tensors has; ``json_too_large``.
    """
    count = 0

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal count
        count += len(pairs)
        check_count("the JSON", count, limits)
        values = dict(pairs)
        if len(values) < len(pairs):
            for name, value in pairs:
                check_same(name, value, values[name], limits)
        return values

    return json.loads(text, object_pairs_hook=unique)


def check_same(name: str, one: Any, other: Any, limits: Limits) -> None:
    """Reject two values of one option, or of another key, that do not mean the same.

    Args:
        name: of the option or key.
        one, other: its values.
        limits: of the length of an option's text.

    Raises:
        RequestError: ``conflicting_options``, or ``invalid_request`` for what is no option and too
            long to be quoted, as a photo is; ``json_too_large``.
    """
    if type(one) is type(other) and one == other:
        return
    if name not in Options.model_fields:
        raise RequestError(
            "invalid_request" if name in _CONTENT_KEYS else "conflicting_options",
            f"{short_repr(name)} is given twice, with two values; give it once",
        )
    for value in (one, other):
        if isinstance(value, str):
            check_text(name, value, limits)
    if not Options.is_same(name, one, other):
        raise RequestError(
            "conflicting_options",
            f"option {short_repr(name)} is given twice, as {short_repr(one)} and "
            f"{short_repr(other)}; give it once",
        )


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
        check_count(name, count, limits)
    raise RequestError(
        "json_too_large",
        f"{name} is nested more than {limits.json_depth} deep; accepted: up to that",
    )


def check_count(name: str, count: int, limits: Limits) -> None:
    """Reject more values than a request needs.

    Raises:
        RequestError: ``json_too_large``.
    """
    if count > limits.json_values:
        raise RequestError(
            "json_too_large",
            f"{name} holds more than {limits.json_values} values; accepted: up to that",
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
