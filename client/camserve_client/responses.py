"""Turns the body of a response into a reply, or into the error that it carries."""

from __future__ import annotations

import json
from typing import Any

from camserve_client.errors import (
    AuthenticationError,
    InvalidReplyError,
    RequestRejectedError,
    ServerFailedError,
    StatusError,
)
from camserve_client.replies import Reply

#: The name of TorchServe's exception for a missing, wrong or expired token.
INVALID_TOKEN = "InvalidKeyException"  # noqa: S105  # a name, not a secret


def parse_reply(body: bytes) -> Reply:
    """Parse the body of a successful response.

    Raises:
        StatusError: the body carries an error; over gRPC, the handler's errors arrive only so.
        InvalidReplyError: the body does not match the schema.
    """
    try:
        parsed = json.loads(body)
    except ValueError:
        raise InvalidReplyError(f"the reply is not JSON; it begins with {body[:80]!r}") from None
    if isinstance(parsed, dict) and (error := _embedded_error(parsed)):
        raise error
    return Reply.from_json(parsed)


def error_from_http(status: int, body: bytes, reason: str) -> StatusError:
    """The error of an HTTP response whose status is not 200.

    Args:
        status: the HTTP status.
        body: the handler's JSON, TorchServe's JSON, or anything if a proxy answered.
        reason: the message if the body has none, such as ``Bad Gateway``.
    """
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        if error := _embedded_error(parsed):
            return error
        match parsed:
            case {"type": str(exception), "message": str(message)}:
                return error_from_torchserve(exception, status, message)
            case {"status": str(message)}:
                # TorchServe, asked over HTTP where it speaks TLS.
                return status_error(f"http_{status}", status, message)
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    if text.startswith("<"):
        # An HTML page.
        text = ""
    return status_error(f"http_{status}", status, text or reason)


def error_from_torchserve(exception: str, status: int, message: str) -> StatusError:
    """The error for an exception of TorchServe, given by its name."""
    if exception == INVALID_TOKEN:
        return AuthenticationError(exception, status, message)
    return status_error(exception, status, message)


def status_error(code: str, status: int, message: str) -> StatusError:
    """The error for a status: the server failed from 500 on, and refused token or request below."""
    if status == 401:
        # What checks tokens before the server, as the edge does, answers so.
        return AuthenticationError(code, status, message)
    error_class = ServerFailedError if status >= 500 else RequestRejectedError
    return error_class(code, status, message)


def _embedded_error(parsed: dict[str, Any]) -> StatusError | None:
    """The handler's error object in a body, if there is one."""
    match parsed:
        case {"error": {"code": str(code), "status": int(status), "message": str(message)}}:
            return status_error(code, status, message)
        case {"error": _}:
            raise InvalidReplyError(
                f"the error in the reply does not match the schema: {str(parsed)[:200]}"
            )
    return None
