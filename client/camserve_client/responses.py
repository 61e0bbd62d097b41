"""The body of an answer -> the reply, or the error that it carries."""

from __future__ import annotations

import json
from typing import Any

from camserve_client.errors import RefusedError, ReplyError, TokenRefusedError
from camserve_client.replies import Reply

#: What TorchServe calls a token that it does not take.
TOKEN_REFUSED = "InvalidKeyException"  # noqa: S105  # a name, no secret


def reply(body: bytes) -> Reply:
    """The reply in a body.

    Raises:
        RefusedError: it carries an error; over gRPC, errors come by no other way.
        ReplyError: it is not as agreed.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        raise ReplyError(f"the reply is no JSON, but begins with {body[:80]!r}") from None
    if isinstance(answer, dict) and (error := _carried(answer)):
        raise error
    return Reply.from_json(answer)


def refusal(status: int, body: bytes, reason: str) -> RefusedError:
    """The error of an HTTP answer that is not a reply.

    Args:
        status: its HTTP status.
        body: the handler's JSON, TorchServe's own, or anything where a proxy answered.
        reason: the status in words, for a body that says nothing.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        if error := _carried(answer):
            return error
        match answer:
            case {"type": str(kind), "message": str(message)}:
                return torchserve(kind, status, message)
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    if text.startswith("<"):
        # A page for browsers.
        text = ""
    # A proxy that holds a token to be wrong says so.
    error_class = TokenRefusedError if status == 401 else RefusedError
    return error_class(f"http_{status}", status, text or reason)


def torchserve(kind: str, status: int, message: str) -> RefusedError:
    """TorchServe's own error, by the name of its exception."""
    error_class = TokenRefusedError if kind == TOKEN_REFUSED else RefusedError
    return error_class(kind, status, message)


def _carried(answer: dict[str, Any]) -> RefusedError | None:
    """The handler's error, if the answer is one."""
    match answer:
        case {"error": {"code": str(code), "status": int(status), "message": str(message)}}:
            return RefusedError(code, status, message)
        case {"error": _}:
            raise ReplyError(f"the error in the reply is not as agreed: {str(answer)[:200]}")
    return None
