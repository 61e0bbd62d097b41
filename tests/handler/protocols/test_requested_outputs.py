"""What a KServe v2 request says of its output tensors: which, in binary or not, as classes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from camserve.errors import RequestError
from camserve.protocols.binary_tensors import HEADER_LENGTH
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.parsing import ImageRequest, IncomingRequest, ParsedBody, parse_request
from camserve.protocols.schema import AnswerBody, ModelBody
from camserve.settings import Settings
from tests.support.contract import inputs_of

MODEL: ModelBody = {"name": "pets", "version": "1.0"}
B64 = base64.b64encode(b"\xff\xd8\xff photo").decode()
ANSWER: AnswerBody = {
    "model": MODEL,
    "image": {"width": 4, "height": 3, "orientation": 1, "seen": [0.0, 0.0, 4.0, 3.0]},
    "predictions": [
        {"class_id": 1, "label": "cat", "probability": 0.75, "score": 2.5},
        {"class_id": 0, "label": "a: dog", "probability": 0.25, "score": -1.0},
    ],
    "explanations": [],
}
FAILED = RequestError("invalid_image", "the file is damaged")


def parse(**keys: Any) -> ParsedBody:
    body = {"inputs": inputs_of([B64]), **keys}
    return parse_request(IncomingRequest({"body": body}, {"host": "h"}), Settings())


def reply_format(**keys: Any) -> KServeV2:
    parsed = parse(**keys)
    assert isinstance(parsed.instances, tuple)
    assert isinstance(parsed.reply_format, KServeV2)
    return parsed.reply_format


def output(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


BINARY: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"parameters": {"binary_data_output": False}}, set()),
    ({"parameters": {"binary_data_output": True}}, {"label", "probability"}),
    ({"outputs": [output("label", binary_data=True), output("probability")]}, {"label"}),
    (
        {
            "parameters": {"binary_data_output": True},
            "outputs": [output("label", binary_data=False), output("probability")],
        },
        {"probability"},
    ),
]


@pytest.mark.parametrize(("keys", "expected"), BINARY)
def test_a_request_or_an_output_asks_for_binary(keys: dict[str, Any], expected: set[str]) -> None:
    reply = reply_format(**keys).reply([ANSWER], MODEL)
    length = int(reply.headers.get(HEADER_LENGTH, len(reply.body)))
    outputs = json.loads(reply.body[:length])["outputs"]
    binary = {one["name"] for one in outputs if "data" not in one}
    assert binary & {"label", "probability"} == expected
    assert (reply.content_type == "application/octet-stream") is bool(binary)


def test_the_reply_to_a_failed_request_is_json() -> None:
    reply = reply_format(parameters={"binary_data_output": True}).reply([FAILED], MODEL)
    assert (reply.status, reply.content_type, reply.headers) == (400, "application/json", {})
    assert json.loads(reply.body)["error"] == "the file is damaged"


def test_the_errors_of_some_photos_are_a_binary_tensor_as_others() -> None:
    reply = reply_format(parameters={"binary_data_output": True}).reply([ANSWER, FAILED], MODEL)
    length = int(reply.headers[HEADER_LENGTH])
    outputs = json.loads(reply.body[:length])["outputs"]
    assert outputs[-1]["name"] == "error"
    assert "data" not in outputs[-1]
    assert b'"invalid_image"' in reply.body[length:]


# Triton's classification


def tensor(reply_body: bytes, name: str) -> dict[str, Any]:
    (found,) = (one for one in json.loads(reply_body)["outputs"] if one["name"] == name)
    return dict(found)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("probability", ["0.750000:1:cat", "0.250000:0:a: dog"]),
        ("score", ["2.500000:1:cat", "-1.000000:0:a: dog"]),
    ],
)
@pytest.mark.parametrize("of_request", [False, True])
def test_classes_as_texts(name: str, texts: list[str], of_request: bool) -> None:
    keys: dict[str, Any] = {
        "outputs": [output(name, **({} if of_request else {"classification": 2}))]
    }
    if of_request:
        keys["parameters"] = {"classification": 2}
    found = tensor(reply_format(**keys).reply([ANSWER, FAILED], MODEL).body, name)
    assert (found["datatype"], found["shape"]) == ("BYTES", [2, 2])
    assert found["data"] == [*texts, "", ""]


def test_classification_implies_how_many_classes_are_predicted() -> None:
    parsed = parse(outputs=[output("probability", classification=7)])
    assert isinstance(parsed.instances, tuple)
    assert isinstance(parsed.instances[0], ImageRequest)
    assert parsed.instances[0].options.top_k == 7
    only_one = tensor(
        reply_format(outputs=[output("score", classification=1)]).reply([ANSWER], MODEL).body,
        "score",
    )
    assert only_one["data"] == ["2.500000:1:cat"]


# The protocol's own parameters


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": 7, "sequence_start": True, "sequence_end": False},
        {"sequence_id": "seven"},
        {"priority": 2, "timeout": 1_000_000},
        {"headers": {}},
        {"triton_enable_empty_final_response": True},
    ],
)
def test_reserved_parameters_are_accepted(parameters: dict[str, Any]) -> None:
    parsed = parse(parameters={**parameters, "top_k": 3})
    assert isinstance(parsed.instances, tuple)
    assert isinstance(parsed.instances[0], ImageRequest)
    assert parsed.instances[0].options.top_k == 3


INVALID: dict[str, dict[str, Any]] = {
    "binary_data_output text": {"parameters": {"binary_data_output": "true"}},
    "binary_data number": {"outputs": [output("label", binary_data=1)]},
    "classification 0": {"outputs": [output("score", classification=0)]},
    "classification boolean": {"outputs": [output("score", classification=True)]},
    "classification text": {"parameters": {"classification": "3"}},
    "classification of a label": {"outputs": [output("label", classification=2)]},
    "parameters no object": {"outputs": [{"name": "label", "parameters": []}]},
    "shared memory": {"outputs": [output("label", shared_memory_region="r")]},
}


@pytest.mark.parametrize("keys", INVALID.values(), ids=INVALID)
def test_invalid_parameters_of_outputs_are_rejected(keys: dict[str, Any]) -> None:
    rejected = parse(**keys).instances
    assert isinstance(rejected, RequestError)
    assert rejected.code == "invalid_request"


def test_an_unknown_parameter_is_rejected_with_the_accepted_ones() -> None:
    rejected = parse(parameters={"alhpa": 1}).instances
    assert isinstance(rejected, tuple)
    assert isinstance(rejected[0], RequestError)
    assert "did you mean 'alpha'" in rejected[0].message
