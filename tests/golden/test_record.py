"""The recorder: what it writes and what it rejects; and the recorded files against the schemas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from tests.golden.compare import ANY
from tests.golden.record import mask_volatile, rounding_dependencies, update_file
from tests.golden.records import (
    GrpcRequest,
    HttpRequest,
    Record,
    Reply,
    Request,
    load,
    load_all,
    save,
)
from tests.golden.replay import ReplayClient
from tests.support.scripts import ROOT

BINARY = HttpRequest("PUT", "/predictions/m/1.0/a=%2C", {"X-Explain": "{}"}, b"\xff\x00\n")
TEXT = HttpRequest("GET", "/models/m", {}, b'{"a": 1}\n', "management", token=False)
CALL = GrpcRequest("/package.Service/Method", b"\n\x01\xe4", stream=True)
PLAIN = Reply(200, "application/json", {"label": "grün", "peak": 0.1, "count": 1})


@pytest.mark.parametrize("request_", [BINARY, TEXT, CALL], ids=["binary", "text", "gRPC"])
def test_a_record_is_read_as_it_was_written(tmp_path: Path, request_: Request) -> None:
    records = [Record("one", request_, PLAIN), Record("two", request_, Reply("OK", None, [None]))]
    save(tmp_path / "some.jsonl", records)
    assert load(tmp_path / "some.jsonl") == records
    assert len((tmp_path / "some.jsonl").read_text().splitlines()) == 2


class FakeServer:
    """Gives the same reply to every request."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def send(self, request: Request) -> Reply:
        return self.reply


def run_recorder(
    file: Path, *replaced: str, reply: Reply = PLAIN, reference: Reply | None = None
) -> tuple[list[str], list[str]]:
    """Run the recorder with two requests, one of which the file has already."""
    clients = [cast(ReplayClient, FakeServer(each)) for each in (reply, reference or reply)]
    return update_file(file, {"known": TEXT, "new": CALL}, replaced, *clients)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two records; the request of the second is no longer among the cases."""
    file = tmp_path / "some.jsonl"
    before = Reply(200, "application/json", {"label": "before"})
    save(file, [Record("known", BINARY, before), Record("old", BINARY, before)])
    return file


def test_an_existing_record_stays_and_a_new_one_is_appended(file: Path) -> None:
    before = load(file)
    assert run_recorder(file) == (["new"], [])
    assert load(file) == [*before, Record("new", CALL, PLAIN)]


def test_a_named_record_keeps_its_request_and_gets_a_new_reply(file: Path) -> None:
    known, old = load(file)
    assert run_recorder(file, "old") == (["old", "new"], [])
    assert load(file) == [known, replace(old, reply=PLAIN), Record("new", CALL, PLAIN)]


def test_a_reply_that_differs_from_the_reference_is_rejected(file: Path) -> None:
    before = load(file)
    reference = Reply(200, "application/json", {**PLAIN.body, "peak": 0.2})
    made, (reason,) = run_recorder(file, reference=reference)
    assert made == []
    assert reason.startswith("new: body.peak")
    assert load(file) == before


def test_a_reply_that_depends_on_rounding_is_rejected(file: Path) -> None:
    before = load(file)
    reply = Reply(200, "application/json", {"evidence": True, "peak": 1e-7})
    made, (reason,) = run_recorder(file, reply=reply)
    assert made == []
    assert "peak" in reason
    assert load(file) == before


def scores(*values: float) -> list[dict[str, float]]:
    return [{"score": value} for value in values]


def tensor(name: str, shape: list[int], *data: float) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": shape, "data": list(data)}


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ({"predictions": scores(0.3, 0.2, 0.1)}, 0),
        ({"predictions": scores(0.3, 0.2995, 0.1)}, 1),
        ({"predictions": scores(0.3, 0.1, 0.1)}, 1),
        ({"predictions": [{"predictions": scores(0.3, 0.2995)}, {"error": {}}]}, 1),
        ([{"boxes": [{"share": 0.4}, {"share": 0.3}]}], 0),
        ([{"boxes": [{"share": 0.4}, {"share": 0.4}]}], 1),
        ({"evidence": True, "peak": 0.01}, 0),
        ({"evidence": True, "peak": 1e-6}, 1),
        ({"evidence": False, "peak": 0.0}, 0),
        ({"outputs": [tensor("score", [2, 2], 0.3, 0.2, 0.2, 0)]}, 0),
        ({"outputs": [tensor("score", [2, 3], 0.3, 0.2, 0.1, 0.3, 0.3, 0)]}, 1),
        ({"outputs": [tensor("map", [1, 2], 0.3, 0.3)]}, 0),
        ("Healthy", 0),
        (None, 0),
    ],
)
def test_near_ties_and_maps_of_rounding_are_found(body: Any, reasons: int) -> None:
    assert len(list(rounding_dependencies(body))) == reasons


def test_what_depends_on_the_machine_is_masked_in_a_description() -> None:
    content = {"precision": "float32", "threads": 2, "compiled": True, "versions": {"torch": "2"}}
    body = [{"workers": [{"pid": 7}], "customizedMetadata": content}]
    any_value = {"threads": {ANY: "integer"}, "compiled": {ANY: "boolean"}}
    assert mask_volatile(body) == [
        {
            "workers": {ANY: "array"},
            "customizedMetadata": {
                "precision": "float32", **any_value, "versions": {ANY: "object"},
            },
        }
    ]  # fmt: skip


RECORDS = load_all()


def answered_json() -> dict[str, Record]:
    """The records of JSON requests that the model answered, by name."""
    return {
        name: record
        for name, record in RECORDS.items()
        if isinstance(record.request, HttpRequest)
        and record.request.headers.get("Content-Type") == "application/json"
        and record.reply.status == 200
        and '"error"' not in json.dumps(record.reply.body)
    }


@pytest.mark.parametrize("name", answered_json())
def test_recorded_requests_and_replies_are_valid_by_the_schemas(name: str) -> None:
    record = RECORDS[name]
    assert isinstance(record.request, HttpRequest)
    for kind, body in (("request", json.loads(record.request.body)), ("reply", record.reply.body)):
        schema = json.loads((ROOT / "docs" / f"{kind}.schema.json").read_text())
        Draft202012Validator(schema).validate(body)
