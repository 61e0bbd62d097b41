"""What goes back for a request, and how each protocol has it written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import orjson

from camserve.errors import RequestError
from camserve.protocols.schema import AnswerBody, Body, ErrorBody, ModelBody

JSON: Final = "application/json"
#: What became of one photo.
PhotoOutcome = AnswerBody | RequestError


@dataclass(frozen=True)
class Reply:
    """What goes back for one request."""

    body: bytes
    status: int = 200
    content_type: str = JSON


class ReplyFormat(Protocol):
    """How a protocol has the answers to a request's photos written.

    Attributes:
        protocol: its name.
    """

    protocol: ClassVar[str]

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        """The reply to a request with these photos, one at least."""

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        """The reply to a request that failed as a whole."""


def error_body(error: RequestError) -> ErrorBody:
    return {"error": {"code": error.code, "status": error.status, "message": error.message}}


def json_reply(body: Body | dict[str, Any], status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(orjson.dumps(body), status)


def combined_status(outcomes: Sequence[PhotoOutcome]) -> int:
    """The HTTP status of several outcomes: 200 where any is an answer, else the gravest."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, RequestError)]
    return max(error.status for error in errors) if len(errors) == len(outcomes) else 200
