"""The plain protocol: one photo in a request, its answer or its error as the reply's body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from camserve.errors import RequestError
from camserve.protocols.replies import PhotoOutcome, Reply, error_body, json_reply
from camserve.protocols.schema import ModelBody


@dataclass(frozen=True)
class PlainProtocol:
    """One photo in a request, its answer or its error as the reply's body."""

    protocol: ClassVar[str] = "plain"

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        """The answer or the error of the only photo."""
        (outcome,) = outcomes
        if isinstance(outcome, RequestError):
            return self.error_reply(outcome, model)
        return json_reply(outcome)

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        """The error as JSON, with its HTTP status."""
        return json_reply(error_body(error), error.status)
