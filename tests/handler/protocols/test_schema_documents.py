"""The JSON Schemas in docs/ agree with the code that parses requests and writes replies."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from camserve.errors import RequestError
from camserve.options import Options
from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest, parse_request
from devtools.json_schemas import request_schema
from tests.support import color_resnet
from tests.support.scripts import ROOT, run

B64 = base64.b64encode(
    color_resnet.png(color_resnet.photo(("red", (100, 120), 50), ("blue", (230, 120), 30)))
).decode()
HTTP = {"content-type": "application/json"}
ALL_OPTIONS = {
    "target": ["red", 2, "top:2", "red-blue"],
    "outputs": ["heatmap", "overlay", "mask", "map", "boxes"],
    "size": 100,
}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_files_are_up_to_date() -> None:
    completed = run(sys.executable, "scripts/schemas.py", "--check")
    assert completed.returncode == 0, completed.stderr


def test_every_option_of_the_request_schema_has_a_default_and_a_description() -> None:
    options = request_schema()["$defs"]["Options"]["properties"]
    assert options.keys() == Options.model_fields.keys()
    assert all("default" in option and option["description"] for option in options.values())


def image_input(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64], **changes}


REQUESTS: dict[str, tuple[dict[str, Any], bool]] = {
    "image object": ({"image": {"b64": B64}}, True),
    "image text": ({"image": B64}, True),
    "data": ({"data": B64, "target": "red"}, True),
    "b64": ({"b64": B64, "target": 1, "layer": "layer4.2"}, True),
    "everything": ({"image": B64, **ALL_OPTIONS}, True),
    "no image": ({"target": 1}, False),
    "two images": ({"image": B64, "data": B64}, False),
    "more beside b64": ({"image": {"b64": B64, "x": 1}}, False),
    "unknown option": ({"image": B64, "alhpa": 1}, False),
    "wrong method": ({"image": B64, "method": "cam"}, False),
    "alpha too large": ({"image": B64, "alpha": 2}, False),
    "threshold of 1": ({"image": B64, "threshold": 1}, False),
    "no outputs": ({"image": B64, "outputs": []}, False),
    "side of 0": ({"image": B64, "size": 0}, False),
    "negative class": ({"image": B64, "target": -1}, False),
    "v1": ({"instances": [{"image": {"b64": B64}, "target": 2}, B64]}, True),
    "v1 parameters": ({"instances": [{"b64": B64}], "parameters": {"top_k": 1}}, True),
    "v1 options beside": ({"instances": [{"b64": B64}], "top_k": 1, "signature_name": "x"}, True),
    "v1 of TensorFlow": ({"instances": [{"image_bytes": {"b64": B64}}]}, True),
    "v1 wrong option beside": ({"instances": [{"b64": B64}], "alpha": 2}, False),
    "v1 without instances": ({"instances": []}, False),
    "v1 unknown key": ({"instances": [B64], "x": 1}, False),
    "v2": ({"inputs": [image_input()], "id": "1", "parameters": {"top_k": 2}}, True),
    "v2 outputs": ({"inputs": [image_input()], "outputs": [{"name": "label"}]}, True),
    "v2 without image": ({"inputs": []}, False),
    "v2 data no list": ({"inputs": [image_input(data=B64)]}, False),
}


@pytest.mark.parametrize(("body", "valid"), REQUESTS.values(), ids=REQUESTS)
def test_the_request_schema_accepts_what_the_server_accepts(
    color_pipeline: Pipeline, body: dict[str, Any], valid: bool
) -> None:
    request = parse_request(IncomingRequest({"body": body}, HTTP), color_pipeline.settings)
    failed = isinstance(request.instances, RequestError) or any(
        isinstance(instance, RequestError) for instance in request.instances
    )
    assert (not failed) is valid
    assert validator("request").is_valid(body) is valid


BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "plain": lambda image: {"image": image, **ALL_OPTIONS},
    "predictions alone": lambda image: {"image": image, "explain": False},
    "v1": lambda image: {"instances": [{"image": image}, {"image": B64, **ALL_OPTIONS}]},
    "v2": lambda image: {
        "inputs": [image_input(shape=[2], data=[image, B64])],
        "parameters": ALL_OPTIONS,
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("image", [B64, "AAAA", "@"], ids=["photo", "not-a-photo", "not-base64"])
@pytest.mark.parametrize("explain", [False, True])
def test_replies_match_the_reply_schema(
    color_pipeline: Pipeline, body: Callable[[str], dict[str, Any]], image: str, explain: bool
) -> None:
    request = IncomingRequest({"body": body(image)}, HTTP, force_explain=explain)
    (reply,) = color_pipeline.postprocess(
        color_pipeline.inference(color_pipeline.preprocess([request]))
    )
    validator("reply").validate(json.loads(reply.body))


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no image": lambda body: body.pop("image"),
    "no peak": lambda body: body["explanations"][0].pop("peak"),
    "picture not text": lambda body: body["explanations"][0]["mask"].update(b64=1),
    "unknown method": lambda body: body["explanations"][0].update(method="cam"),
    "score not a number": lambda body: body["predictions"][0].update(score="high"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_reply_schema_rejects_a_missing_or_wrong_part(
    color_pipeline: Pipeline, damage: Callable[[dict[str, Any]], object]
) -> None:
    request = IncomingRequest({"body": {"image": B64, **ALL_OPTIONS}}, HTTP)
    (reply,) = color_pipeline.postprocess(
        color_pipeline.inference(color_pipeline.preprocess([request]))
    )
    body = json.loads(reply.body)
    assert validator("reply").is_valid(body)
    damage(body)
    assert not validator("reply").is_valid(body)
