"""Checks of a request's body that both KServe protocols make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camserve.errors import RequestError, unknown_name_message


def check_keys(what: str, body: Mapping[str, Any], known: Sequence[str]) -> None:
    """Reject a body that has a key which is not ``known``.

    Args:
        what: what the error message calls a key.

    Raises:
        RequestError: ``invalid_request``.
    """
    for key in body:
        if key not in known:
            raise RequestError("invalid_request", unknown_name_message(what, key, known))


def check_photo_count(count: int, max_instances: int) -> None:
    """Reject a request with more than ``max_instances`` photos.

    Raises:
        RequestError: ``too_many_instances``.
    """
    if count > max_instances:
        raise RequestError(
            "too_many_instances",
            f"the request carries {count} photos; accepted: up to {max_instances}",
        )


def copy_options(name: str, value: Any) -> dict[str, Any]:
    """A copy of a JSON object of options.

    Raises:
        RequestError: ``invalid_request``: the value is not a JSON object.
    """
    if not isinstance(value, dict):
        raise RequestError("invalid_request", f"{name!r} must be an object of options")
    return dict(value)
