"""What a record holds, and the files of records: one JSON object a line."""

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
    """An HTTP request as it stands on the wire.

    Attributes:
        method: GET, POST or PUT.
        path: with its query, escaped.
        headers: without those of the connection, and without the token.
        body: as sent.
        api: which of the server's two addresses it goes to.
        token: whether a valid token goes with it.
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
    """What came back, parsed as far as a comparison needs.

    Attributes:
        status: HTTP's number, or the name of gRPC's status code.
        content_type: the HTTP header; None over gRPC.
        body: parsed JSON; text where the body is none. Over gRPC the message as JSON, a list of
            them where it is a stream, None where the call failed.
    """

    status: int | str
    content_type: str | None
    body: Any


@dataclass(frozen=True)
class Record:
    """A request and its reply, by a name that no other record has."""

    name: str
    request: Request
    reply: Reply


def load(file: Path) -> list[Record]:
    """The records of one file, in its order."""
    return [_parsed(json.loads(line)) for line in file.read_text("utf-8").splitlines()]


def load_all() -> dict[str, Record]:
    """Every record there is, by name."""
    records = [record for file in sorted(FOLDER.glob("*.jsonl")) for record in load(file)]
    found = {record.name: record for record in records}
    if len(found) < len(records):
        raise ValueError("two records have one name")
    return found


def save(file: Path, records: Iterable[Record]) -> None:
    """Write a file anew."""
    lines = [
        json.dumps(_written(record), ensure_ascii=False, separators=(",", ":"))
        for record in records
    ]
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _written(record: Record) -> dict[str, Any]:
    request = asdict(record.request)
    for name in ("body", "message"):
        if name in request:
            request[name] = _bytes_written(request[name])
    return {"name": record.name, "request": request, "reply": asdict(record.reply)}


def _parsed(line: dict[str, Any]) -> Record:
    fields = dict(line["request"])
    kind = GrpcRequest if "message" in fields else HttpRequest
    for name in ("body", "message"):
        if name in fields:
            fields[name] = _bytes_parsed(fields[name])
    return Record(line["name"], kind(**fields), Reply(**line["reply"]))


def _bytes_written(data: bytes) -> dict[str, str]:
    """ASCII text stays readable; all else is base64."""
    if data.isascii():
        return {"text": data.decode("ascii")}
    return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes_parsed(written: dict[str, str]) -> bytes:
    if "text" in written:
        return written["text"].encode("ascii")
    return base64.b64decode(written["base64"], validate=True)
