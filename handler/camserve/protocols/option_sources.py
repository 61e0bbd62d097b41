"""Where options stand besides a body's JSON: the URL's path, a header, fields of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from camserve.errors import RequestError, short_repr
from camserve.protocols import json_limits
from camserve.settings import Limits


def from_path(path: str) -> dict[str, str]:
    """``target=285,outputs=heatmap,overlay``: a piece without ``=`` goes on with the one before."""
    options: dict[str, str] = {}
    name = ""
    for piece in path.strip("/").split(","):
        left, equals, right = piece.partition("=")
        if equals:
            name = left.strip()
            if name in options:
                raise RequestError(
                    "conflicting_options", f"option {short_repr(name)} is twice in the URL"
                )
            options[name] = right
        elif name:
            options[name] += f",{piece}"
        elif piece:
            raise RequestError(
                "unknown_option",
                f"the URL path ends in {short_repr(piece)}; accepted after the model's version: "
                "options as name=value pairs, separated by commas",
            )
    return options


def from_header(headers: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    value = headers.get("x-explain")
    if value is None:
        return {}
    # A header's bytes are read as Latin-1 (RFC 9110, 5.5); callers write UTF-8.
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    return json_limits.parse("X-Explain", value, limits)


def decode_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(name, value) for name, value in fields.items()}


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(
            "invalid_option", f"field {short_repr(name)} is not UTF-8 text"
        ) from None


def merge(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All sources in one; an option that stands in two of them has no right value."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            if name in merged and merged[name] != value:
                raise RequestError(
                    "conflicting_options",
                    f"option {short_repr(name)} is given twice, as {short_repr(merged[name])} and "
                    f"{short_repr(value)}",
                )
            merged[name] = value
    return merged
