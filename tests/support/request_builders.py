"""Requests as the server hands them to a pipeline, by every protocol, and what became of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest, detect_protocol
from tests.support import contract
from tests.support.contract import inputs_of

HTTP = {"host": "localhost:8080", "content-type": "application/json"}


def form(image: bytes, **options: str) -> IncomingRequest:
    """A multipart form, or a gRPC map: bytes under each name."""
    return IncomingRequest(
        {"data": image, **{name: value.encode() for name, value in options.items()}}, {}
    )


def raw(image: bytes, options: str = "{}", path: str = "") -> IncomingRequest:
    """A raw body, its options in the header or the URL."""
    return IncomingRequest({"body": bytearray(image)}, {"x-explain": options}, path=path)


def b64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def json_request(image: bytes, **options: Any) -> IncomingRequest:
    return IncomingRequest({"body": {"image": {"b64": b64(image)}, **options}}, HTTP)


def v1(*instances: Any, force_explain: bool = False, **common: Any) -> IncomingRequest:
    """KServe v1; an instance is a photo, or a photo and its options."""
    objects = [
        b64(one) if isinstance(one, bytes) else {"image": b64(one[0]), **one[1]}
        for one in instances
    ]
    fields = {"body": {"instances": objects, "parameters": common}}
    return IncomingRequest(fields, HTTP, force_explain=force_explain)


def v2(*images: bytes, columns: Sequence[dict[str, Any]] = (), **options: Any) -> IncomingRequest:
    """KServe v2 over HTTP."""
    inputs = [*inputs_of([b64(image) for image in images], **options), *columns]
    return IncomingRequest({"body": {"id": "seven", "inputs": inputs}}, HTTP)


def grpc(*images: bytes, target: str = "predicted") -> IncomingRequest:
    """Open Inference over gRPC."""
    inputs = inputs_of([b64(image) for image in images], target=b64(target.encode()))
    return IncomingRequest({"body": {"id": "seven", "model_name": "colours", "inputs": inputs}}, {})


def protocol_of(row: IncomingRequest) -> contract.Protocol:
    """The short name of the protocol that a request follows."""
    names: dict[str, contract.Protocol] = {"plain": "plain", "kserve v1": "v1", "kserve v2": "v2"}
    return names[detect_protocol(row).protocol]


def photo_outcomes(pipeline: Pipeline, *rows: IncomingRequest) -> list[list[dict[str, Any]]]:
    """What became of each row's photos; the reply's form and status are right."""
    replies = pipeline.postprocess(pipeline.inference(pipeline.preprocess(rows)))
    found = []
    for row, reply in zip(rows, replies, strict=True):
        assert reply.content_type == "application/json"
        found.append(contract.outcomes(json.loads(reply.body), protocol_of(row)))
        errors = [one["error"]["status"] for one in found[-1] if "error" in one]
        assert reply.status == (max(errors) if len(errors) == len(found[-1]) else 200)
    return found


def single_reply(pipeline: Pipeline, *rows: IncomingRequest) -> list[dict[str, Any]]:
    """The reply to each row, which has one photo."""
    return [one for (one,) in photo_outcomes(pipeline, *rows)]


def error_codes(found: Sequence[dict[str, Any]]) -> list[str | None]:
    """The codes of errors, None for answers."""
    return [one["error"]["code"] if "error" in one else None for one in found]
