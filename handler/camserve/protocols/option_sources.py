"""Options outside a JSON body: in the URL path, in the header X-Explain, in form fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from camserve.errors import RequestError, short_repr
from camserve.protocols import json_limits
from camserve.settings import Limits


def from_path(path: str, limits: Limits) -> dict[str, Any]:
    """Options in a URL path, such as ``target=285,outputs=heatmap,overlay``.

    Text without ``=`` after a comma belongs to the value before the comma, and so does what is in
    the list of a condition, as in ``explain_when=class in [1,2] and probability<=0.5``.

    Raises:
        RequestError: ``conflicting_options`` for an option with two values, ``unknown_option`` for
            text that is no pair.
    """
    pairs: list[tuple[str, str]] = []
    for part in path.strip("/").split(","):
        key, separator, value = part.partition("=")
        in_list = bool(pairs) and pairs[-1][0] == "explain_when" and _is_open(pairs[-1][1])
        if separator and not in_list:
            pairs.append((key.strip(), value))
        elif pairs:
            name, begin = pairs[-1]
            pairs[-1] = (name, f"{begin},{part}")
        elif part:
            raise RequestError(
                "unknown_option",
                f"the URL path ends in {short_repr(part)}; accepted after the model's version: "
                "options as name=value pairs, separated by commas",
            )
    return merge([{name: value} for name, value in pairs], limits)


def from_header(headers: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    """Options in the header ``X-Explain``, a JSON object; empty without that header.

    A header that is sent in several lines arrives as their values with commas between (RFC 9110,
    5.3), so it may hold several objects.

    Raises:
        RequestError: ``invalid_json``, ``json_too_large``, ``conflicting_options``.
    """
    value = headers.get("x-explain")
    if value is None:
        return {}
    # Servers decode header bytes as Latin-1 (RFC 9110, 5.5); callers send UTF-8.
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    json_limits.check_text("X-Explain", value, limits)
    try:
        objects = json_limits.parse_json(f"[{value}]", limits)
    except (ValueError, RecursionError):
        raise RequestError("invalid_json", "'X-Explain' is no valid JSON") from None
    if not objects:
        raise RequestError("invalid_json", "'X-Explain' is empty; accepted: a JSON object")
    return merge([json_limits.parse_options("X-Explain", one, limits) for one in objects], limits)


def decode_text_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Form fields with bytes decoded as UTF-8; other values are returned as they are.

    Raises:
        RequestError: ``invalid_option``: a field is not UTF-8.
    """
    return {name: _decode_text(name, value) for name, value in fields.items()}


def merge(sources: Iterable[Mapping[str, Any]], limits: Limits) -> dict[str, Any]:
    """The options of all sources.

    Raises:
        RequestError: ``conflicting_options``: two sources have values of an option that do not mean
            the same; ``json_too_large``.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            if name in merged:
                json_limits.check_same(name, merged[name], value, limits)
            merged[name] = value
    return merged


def _is_open(condition: str) -> bool:
    """Whether a condition that a comma has cut ends within a list."""
    return condition.count("[") > condition.count("]")


def _decode_text(name: str, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(
            "invalid_option", f"field {short_repr(name)} is not UTF-8 text"
        ) from None
