"""What both of KServe's protocols check in a body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camserve.errors import RequestError, unknown_name_message


def check_keys(what: str, body: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in body:
        if key not in known:
            raise RequestError("invalid_request", unknown_name_message(what, key, known))


def check_count(count: int, max_instances: int) -> None:
    if count > max_instances:
        raise RequestError(
            "too_many_instances",
            f"the request carries {count} photos; accepted: up to {max_instances}",
        )


def options_object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError("invalid_request", f"{name!r} must be an object of options")
    return dict(value)
