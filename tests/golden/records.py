"""The records and their files: one JSON object a line."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).resolve().parent
Api = Literal["inference", "management"]


@dataclass(frozen=True)
class HttpRequest:
    """An HTTP request as it is sent.

    Attributes:
        method: GET, POST or PUT.
        path: with its query, escaped.
        headers: without those that the client adds, and without the token.
        body: as sent.
        api: which of the server's two addresses it is sent to.
        token: whether it is sent with a valid token.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    api: Api = "inference"
    token: bool = True


@dataclass(frozen=True)
class GrpcRequest:
    """A gRPC call.

    Attributes:
        method: its full name, ``/package.Service/Method``.
        message: the serialized request.
        stream: the reply is a stream of messages.
        api: as of :class:`HttpRequest`.
        token: as of :class:`HttpRequest`.
    """

    method: str
    message: bytes
    stream: bool = False
    api: Api = "inference"
    token: bool = True


Request = HttpRequest | GrpcRequest


@dataclass(frozen=True)
class Reply:
    """A reply, parsed as far as the comparison needs.

    Attributes:
        status: HTTP's number, or the name of gRPC's status code.
        content_type: the HTTP header; None over gRPC.
        body: parsed JSON, or text where the body is not JSON. Over gRPC the message as JSON, a
            list of messages for a stream, None where the call failed.
    """

    status: int | str
    content_type: str | None
    body: Any


@dataclass(frozen=True)
class Record:
    """A request and its reply, under a unique name."""

    name: str
    request: Request
    reply: Reply


def load(file: Path) -> list[Record]:
    """The records of one file, in its order."""
    return [_from_json(json.loads(line)) for line in file.read_text("utf-8").splitlines()]


def load_all() -> dict[str, Record]:
    """All records, by name.

    Raises:
        ValueError: two records have the same name.
    """
    records = [record for file in sorted(FOLDER.glob("*.jsonl")) for record in load(file)]
    by_name = {record.name: record for record in records}
    if len(by_name) < len(records):
        raise ValueError("two records have the same name")
    return by_name


def save(file: Path, records: Iterable[Record]) -> None:
    """Write a file, replacing its records."""
    lines = [
        json.dumps(_to_json(record), ensure_ascii=False, separators=(",", ":"))
        for record in records
    ]
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _to_json(record: Record) -> dict[str, Any]:
    request = asdict(record.request)
    for name in ("body", "message"):
        if name in request:
            request[name] = _bytes_to_json(request[name])
    return {"name": record.name, "request": request, "reply": asdict(record.reply)}


def _from_json(line: dict[str, Any]) -> Record:
    fields = dict(line["request"])
    request_type = GrpcRequest if "message" in fields else HttpRequest
    for name in ("body", "message"):
        if name in fields:
            fields[name] = _bytes_from_json(fields[name])
    return Record(line["name"], request_type(**fields), Reply(**line["reply"]))


def _bytes_to_json(data: bytes) -> dict[str, str]:
    """ASCII text as it is; anything else as base64."""
    if data.isascii():
        return {"text": data.decode("ascii")}
    return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes_from_json(encoded: dict[str, str]) -> bytes:
    if "text" in encoded:
        return encoded["text"].encode("ascii")
    return base64.b64decode(encoded["base64"], validate=True)
