"""What is told of each request once it is answered: a line of the log, and samples of metrics.

Nothing in it was sent by a caller: no image, no option's text, no message that quotes one.
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
from camserve.explain.targets import TargetKind
from camserve.options import Method
from camserve.photo_preparation import PreparedPhoto
from camserve.protocols.parsing import IncomingRequest
from camserve.protocols.replies import Reply
from camserve.protocols.schema import AnswerBody, ModelBody
from camserve.runtime import failures

#: How a request can end: every photo answered, some, none through its own fault or the server's.
Ending = Literal["answered", "partly", "refused", "failed"]
#: The code of a request without an error.
NO_ERROR: Final = "none"


@dataclass(frozen=True)
class ExplanationRecord:
    """One explanation: how it was made, of what kind of target, and whether it shows anything."""

    method: Method
    kind: TargetKind
    evidence: bool


@dataclass(frozen=True)
class PhotoSize:
    """A photo's pixels, and the bytes of its file."""

    pixels: int
    bytes: int


@dataclass(frozen=True)
class RequestRecord:
    """One request.

    Attributes:
        id: the server's own.
        transport, protocol: that it came by.
        status: of its reply.
        errors: of the request or of its photos.
        photos: those that were answered.
        explanations: of all of them.
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
        row: IncomingRequest,
        reply: Reply,
        protocol: str,
        errors: Sequence[RequestError],
        answered: Sequence[tuple[PreparedPhoto, AnswerBody]],
    ) -> RequestRecord:
        """The entry of a request that was replied to."""
        return cls(
            row.id,
            "http" if row.over_http else "grpc",
            protocol,
            reply.status,
            tuple(errors),
            tuple(
                PhotoSize(photo.frame.width * photo.frame.height, photo.file_bytes)
                for photo, _ in answered
            ),
            tuple(
                ExplanationRecord(
                    photo.explanation_request.method, target.kind, explanation["evidence"]
                )
                for photo, answer in answered
                for target, explanation in zip(
                    photo.explanation_request.targets, answer["explanations"], strict=True
                )
            ),
        )

    @property
    def ending(self) -> Ending:
        if not self.errors:
            return "answered"
        if self.status < 400:
            return "partly"
        return "refused" if self.status < 500 else "failed"

    @property
    def code(self) -> str:
        """Of its gravest error."""
        return max(self.errors, key=lambda error: error.status).code if self.errors else NO_ERROR

    @property
    def level(self) -> int:
        """Of its line in the log."""
        return logging.ERROR if any(error.status >= 500 for error in self.errors) else logging.INFO


@dataclass(frozen=True)
class MetricSample:
    """One figure for the server's metrics.

    Attributes:
        name, unit, labels: as metrics.yaml has them.
        value: to add to a counter, or observed by a histogram.
        counts: it is a counter's.
    """

    name: str
    value: float
    unit: str
    counts: bool
    labels: Mapping[str, str] = field(default_factory=dict)


def line(entry: RequestRecord, model: ModelBody, batch: int, seconds: float) -> str:
    """The request's line in the log, a JSON object.

    Args:
        model: that answered.
        batch: how many requests shared it.
        seconds: that the batch took.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told: dict[str, Any] = {
        "time": now,
        "level": logging.getLevelName(entry.level),
        "logger": "request",
        "request_id": entry.id,
        "model": model["name"],
        "version": model["version"],
        "transport": entry.transport,
        "protocol": entry.protocol,
        "status": entry.status,
        "outcome": entry.ending,
        "code": entry.code,
        "photos": len(entry.photos),
        "explanations": len(entry.explanations),
        "batch": batch,
        "ms": round(seconds * 1000, 1),
    }
    if places := [error.location for error in entry.errors if error.location]:
        told["failure"] = places[0]
    return orjson.dumps(told).decode()


def is_torchserve_request_noise(record: logging.LogRecord) -> bool:
    """Whether a record is none of those that TorchServe's worker writes for each request.

    It notes when one arrives, and, with a stack trace, that a body is no JSON.
    """
    return record.funcName not in ("retrieve_msg", "_retrieve_input_data")


def hide_exception_message(record: logging.LogRecord) -> bool:
    """Leave only places and class of a record's exception: what it says may quote a request."""
    failure = record.exc_info[1] if record.exc_info else None
    if failure is not None:
        # What formatters write instead of the traceback, where it is there.
        record.exc_text = failures.traceback_summary(failure)
    return True


def samples(
    entries: Sequence[RequestRecord], stages: Mapping[str, float]
) -> Iterator[MetricSample]:
    """What a batch adds to the metrics.

    Args:
        entries: its requests.
        stages: the seconds spent in each.
    """
    yield MetricSample("BatchSize", len(entries), "Count", counts=False)
    for stage, spent in stages.items():
        yield MetricSample("StageTime", spent, "s", counts=False, labels={"Stage": stage})
    endings = Counter((entry.ending, entry.code) for entry in entries)
    for (ending, code), count in endings.items():
        yield MetricSample("Requests", count, "Count", True, {"Outcome": ending, "Code": code})
    drawn = [one for entry in entries for one in entry.explanations]
    for (method, kind), count in Counter((one.method, one.kind) for one in drawn).items():
        labels = {"Method": method, "TargetKind": kind}
        yield MetricSample("Explanations", count, "Count", True, labels)
    for method, count in Counter(one.method for one in drawn if not one.evidence).items():
        yield MetricSample("MapsWithoutEvidence", count, "Count", True, {"Method": method})
    for photo in (photo for entry in entries for photo in entry.photos):
        yield MetricSample("PhotoMegapixels", photo.pixels / 1e6, "Megapixels", counts=False)
        yield MetricSample("PhotoMegabytes", photo.bytes / 1e6, "Megabytes", counts=False)
