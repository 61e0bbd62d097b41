"""A record of each answered request: a line of the log, and samples for the server's metrics.

Nothing in a record was sent by a caller: no image, no option's text, no message that quotes one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from camserve.errors import RequestError
from camserve.explain import TargetKind
from camserve.options import Method
from camserve.photo_preparation import PreparedPhoto
from camserve.protocols import AnswerBody, IncomingRequest, ModelBody, Reply
from camserve.runtime import traceback_summary

#: How a request ended: all photos answered, some, none by the caller's fault, none by the server's.
Outcome = Literal["answered", "partly", "refused", "failed"]
#: The code of a request without an error.
NO_ERROR: Final = "none"


@dataclass(frozen=True)
class ExplanationRecord:
    """One explanation: its method, the kind of its target, and whether its map has evidence."""

    method: Method
    target_kind: TargetKind
    evidence: bool


@dataclass(frozen=True)
class PhotoSize:
    """The number of a photo's pixels, and the size of its file in bytes."""

    pixels: int
    file_bytes: int


@dataclass(frozen=True)
class RequestRecord:
    """One answered request.

    Attributes:
        id: assigned by the server.
        transport, protocol: by which it arrived.
        status: the reply's HTTP status.
        errors: of the request or of its photos.
        photos: the answered ones.
        explanations: of the answered photos.
    """

    id: str
    transport: Literal["http", "grpc"]
    protocol: str
    status: int
    errors: tuple[RequestError, ...]
    photos: tuple[PhotoSize, ...]
    explanations: tuple[ExplanationRecord, ...]

    @classmethod
    def of(
        cls,
        request: IncomingRequest,
        reply: Reply,
        protocol: str,
        errors: Sequence[RequestError],
        answered: Sequence[tuple[PreparedPhoto, AnswerBody]],
    ) -> RequestRecord:
        """The record of a request that was replied to."""
        return cls(
            request.id,
            "http" if request.over_http else "grpc",
            protocol,
            reply.status,
            tuple(errors),
            tuple(
                PhotoSize(photo.frame.width * photo.frame.height, photo.file_bytes)
                for photo, _ in answered
            ),
            tuple(
                ExplanationRecord(photo.explanation_request.method, kind, explanation["evidence"])
                for photo, answer in answered
                for kind, explanation in zip(
                    photo.explanation_request.target_kinds(len(answer["explanations"])),
                    answer["explanations"],
                    strict=True,
                )
            ),
        )

    @property
    def outcome(self) -> Outcome:
        if not self.errors:
            return "answered"
        if self.status < 400:
            return "partly"
        return "refused" if self.status < 500 else "failed"

    @property
    def code(self) -> str:
        """The code of the most severe error."""
        return max(self.errors, key=lambda error: error.status).code if self.errors else NO_ERROR

    @property
    def level(self) -> int:
        """The level of its line in the log."""
        return logging.ERROR if any(error.status >= 500 for error in self.errors) else logging.INFO


@dataclass(frozen=True)
class MetricSample:
    """One value for the server's metrics.

    Attributes:
        name, unit, labels: as metrics.yaml declares them.
        value: to add to a counter, or to observe in a histogram.
        is_counter: the metric is a counter; else a histogram.
    """

    name: str
    value: float
    unit: str
    is_counter: bool
    labels: Mapping[str, str] = field(default_factory=dict)


def log_line(record: RequestRecord, model: ModelBody, batch_size: int, seconds: float) -> str:
    """A request's line in the log, a JSON object.

    Args:
        record: of the request.
        model: that answered it.
        batch_size: how many requests shared the batch.
        seconds: the time that the batch took.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any] = {
        "time": now,
        "level": logging.getLevelName(record.level),
        "logger": "request",
        "request_id": record.id,
        "model": model["name"],
        "version": model["version"],
        "transport": record.transport,
        "protocol": record.protocol,
        "status": record.status,
        "outcome": record.outcome,
        "code": record.code,
        "photos": len(record.photos),
        "explanations": len(record.explanations),
        "batch": batch_size,
        "ms": round(seconds * 1000, 1),
    }
    if locations := [error.location for error in record.errors if error.location]:
        fields["failure"] = locations[0]
    return orjson.dumps(fields).decode()


def drop_torchserve_request_lines(record: logging.LogRecord) -> bool:
    """A logging filter that drops the lines which TorchServe's worker writes for each request.

    The worker logs that a request arrived, and, with a stack trace, that a body is not JSON.
    """
    return record.funcName not in ("retrieve_msg", "_retrieve_input_data")


def hide_exception_message(record: logging.LogRecord) -> bool:
    """A logging filter that reduces an exception to its class and its frames' locations.

    An exception's message may quote a request.
    """
    failure = record.exc_info[1] if record.exc_info else None
    if failure is not None:
        # A formatter writes exc_text, where it is set, instead of the traceback.
        record.exc_text = traceback_summary(failure)
    return True


def metric_samples(
    records: Sequence[RequestRecord], stage_seconds: Mapping[str, float]
) -> Iterator[MetricSample]:
    """What a batch adds to the metrics.

    Args:
        records: of the batch's requests.
        stage_seconds: the time spent in each stage.
    """
    yield MetricSample("BatchSize", len(records), "Count", is_counter=False)
    for stage, seconds in stage_seconds.items():
        yield MetricSample("StageTime", seconds, "s", is_counter=False, labels={"Stage": stage})
    outcomes = Counter((record.outcome, record.code) for record in records)
    for (outcome, code), count in outcomes.items():
        yield MetricSample("Requests", count, "Count", True, {"Outcome": outcome, "Code": code})
    explanations = [explanation for record in records for explanation in record.explanations]
    kinds = Counter((explanation.method, explanation.target_kind) for explanation in explanations)
    for (method, target_kind), count in kinds.items():
        labels = {"Method": method, "TargetKind": target_kind}
        yield MetricSample("Explanations", count, "Count", True, labels)
    without_evidence = Counter(
        explanation.method for explanation in explanations if not explanation.evidence
    )
    for method, count in without_evidence.items():
        yield MetricSample("MapsWithoutEvidence", count, "Count", True, {"Method": method})
    for photo in (photo for record in records for photo in record.photos):
        yield MetricSample("PhotoMegapixels", photo.pixels / 1e6, "Megapixels", is_counter=False)
        yield MetricSample("PhotoMegabytes", photo.file_bytes / 1e6, "Megabytes", is_counter=False)
