"""The JSON Schemas in docs/, held to what reads requests and writes replies."""

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
EVERYTHING = {
    "target": ["red", 2, "top:2", "red-blue"],
    "outputs": ["heatmap", "overlay", "mask", "map", "boxes"],
    "size": 100,
}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_files_are_what_the_code_says() -> None:
    done = run(sys.executable, "scripts/schemas.py", "--check")
    assert done.returncode == 0, done.stderr


def test_every_option_of_the_request_has_its_default_and_says_what_is_accepted() -> None:
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
    "everything": ({"image": B64, **EVERYTHING}, True),
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
    "v1 without instances": ({"instances": []}, False),
    "v1 unknown key": ({"instances": [B64], "x": 1}, False),
    "v2": ({"inputs": [image_input()], "id": "1", "parameters": {"top_k": 2}}, True),
    "v2 outputs": ({"inputs": [image_input()], "outputs": [{"name": "label"}]}, True),
    "v2 without image": ({"inputs": []}, False),
    "v2 data no list": ({"inputs": [image_input(data=B64)]}, False),
}


@pytest.mark.parametrize(("body", "good"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_valid_where_the_server_takes_it(
    colours: Pipeline, body: dict[str, Any], good: bool
) -> None:
    request = parse_request(IncomingRequest({"body": body}, HTTP), colours.settings)
    failed = isinstance(request.instances, RequestError) or any(
        isinstance(instance, RequestError) for instance in request.instances
    )
    assert (not failed) is good
    assert validator("request").is_valid(body) is good


BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "plain": lambda image: {"image": image, **EVERYTHING},
    "predictions alone": lambda image: {"image": image, "explain": False},
    "v1": lambda image: {"instances": [{"image": image}, {"image": B64, **EVERYTHING}]},
    "v2": lambda image: {
        "inputs": [image_input(shape=[2], data=[image, B64])],
        "parameters": EVERYTHING,
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("image", [B64, "AAAA", "@"], ids=["photo", "junk", "no base64"])
@pytest.mark.parametrize("explain", [False, True])
def test_replies_are_valid(
    colours: Pipeline, body: Callable[[str], dict[str, Any]], image: str, explain: bool
) -> None:
    row = IncomingRequest({"body": body(image)}, HTTP, force_explain=explain)
    (reply,) = colours.postprocess(colours.inference(colours.preprocess([row])))
    validator("reply").validate(json.loads(reply.body))


def test_a_reply_with_a_missing_or_wrong_part_is_not_valid(colours: Pipeline) -> None:
    row = IncomingRequest({"body": {"image": B64, **EVERYTHING}}, HTTP)
    (reply,) = colours.postprocess(colours.inference(colours.preprocess([row])))
    schema = validator("reply")
    for spoil in (
        lambda body: body.pop("image"),
        lambda body: body["explanations"][0].pop("peak"),
        lambda body: body["explanations"][0]["mask"].update(b64=1),
        lambda body: body["explanations"][0].update(method="cam"),
        lambda body: body["predictions"][0].update(score="high"),
    ):
        body = json.loads(reply.body)
        spoil(body)
        assert not schema.is_valid(body)
