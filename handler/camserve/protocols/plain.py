"""The plain protocol: one photo a request, its answer as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from camserve.errors import RequestError
from camserve.protocols.replies import PhotoOutcome, Reply, error_body, json_reply
from camserve.protocols.schema import ModelBody


@dataclass(frozen=True)
class PlainProtocol:
    """One photo a request, its answer as it is."""

    protocol: ClassVar[str] = "plain"

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        (outcome,) = outcomes
        if isinstance(outcome, RequestError):
            return self.error_reply(outcome, model)
        return json_reply(outcome)

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        return json_reply(error_body(error), error.status)
