"""Options outside a JSON body: in the URL path, in the header X-Explain, in form fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from camserve.errors import RequestError, short_repr
from camserve.protocols import json_limits
from camserve.settings import Limits


def from_path(path: str) -> dict[str, str]:
    """Options in a URL path, such as ``target=285,outputs=heatmap,overlay``.

    Text without ``=`` after a comma belongs to the value before the comma.

    Raises:
        RequestError: ``conflicting_options`` for an option that occurs twice, ``unknown_option``
            for text that is no pair.
    """
    options: dict[str, str] = {}
    name = ""
    for part in path.strip("/").split(","):
        key, separator, value = part.partition("=")
        if separator:
            name = key.strip()
            if name in options:
                raise RequestError(
                    "conflicting_options", f"option {short_repr(name)} is twice in the URL"
                )
            options[name] = value
        elif name:
            options[name] += f",{part}"
        elif part:
            raise RequestError(
                "unknown_option",
                f"the URL path ends in {short_repr(part)}; accepted after the model's version: "
                "options as name=value pairs, separated by commas",
            )
    return options


def from_header(headers: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    """Options in the header ``X-Explain``, a JSON object; empty without that header.

    Raises:
        RequestError: ``invalid_json``, ``json_too_large``.
    """
    value = headers.get("x-explain")
    if value is None:
        return {}
    # Servers decode header bytes as Latin-1 (RFC 9110, 5.5); callers send UTF-8.
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    return json_limits.parse_options("X-Explain", value, limits)


def decode_text_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Form fields with bytes decoded as UTF-8; other values are returned as they are.

    Raises:
        RequestError: ``invalid_option``: a field is not UTF-8.
    """
    return {name: _decode_text(name, value) for name, value in fields.items()}


def merge(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The options of all sources.

    Raises:
        RequestError: ``conflicting_options``: two sources have different values of an option.
    """
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


def _decode_text(name: str, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(
            "invalid_option", f"field {short_repr(name)} is not UTF-8 text"
        ) from None
