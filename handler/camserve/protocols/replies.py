"""A reply, and the interface of the protocols that write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol

import orjson

from camserve.errors import RequestError
from camserve.protocols.schema import AnswerBody, Body, ErrorBody, ModelBody

JSON: Final = "application/json"
#: Of a body that is not JSON alone.
BINARY: Final = "application/octet-stream"
#: The answer to one photo, or why there is none.
PhotoOutcome = AnswerBody | RequestError


@dataclass(frozen=True)
class Reply:
    """The HTTP reply to one request.

    Attributes:
        body: the encoded body.
        status: the HTTP status.
        content_type: the body's media type.
        headers: further headers.
    """

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class ReplyFormat(Protocol):
    """How a protocol writes the reply to a request.

    Attributes:
        protocol: the protocol's name.
    """

    protocol: ClassVar[str]

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        """The reply to a request.

        Args:
            outcomes: of the request's photos, in order; at least one.
            model: the model that answered.
        """

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        """The reply to a request that failed as a whole."""


def error_body(error: RequestError) -> ErrorBody:
    """An error as JSON, with the HTTP status, which gRPC loses."""
    return {"error": {"code": error.code, "status": error.status, "message": error.message}}


def json_reply(body: Body | dict[str, Any], status: int = 200) -> Reply:
    """A reply with a JSON body in UTF-8."""
    return Reply(orjson.dumps(body), status)


def combined_status(outcomes: Sequence[PhotoOutcome]) -> int:
    """The HTTP status of a request: 200 if any photo is answered, else the highest error status."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, RequestError)]
    return max(error.status for error in errors) if len(errors) == len(outcomes) else 200
