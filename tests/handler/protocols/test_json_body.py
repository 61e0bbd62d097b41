"""JSON in a request's body is recognised by what it is."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from camserve.options import Options
from camserve.protocols.parsing import (
    ImageRequest,
    IncomingRequest,
    ParsedBody,
    parse_request,
)
from camserve.settings import Settings

PHOTO = bytes(range(250, 256)) * 40
B64 = base64.b64encode(PHOTO).decode()
BODIES: dict[str, Any] = {
    "plain": {"image": {"b64": B64}, "target": "tabby, tabby cat", "top_k": 2},
    "base64 alone": {"b64": B64, "target": "tabby, tabby cat", "top_k": 2},
    "KServe v1": {"instances": [{"image": {"b64": B64}}],
                  "parameters": {"target": "tabby, tabby cat", "top_k": 2}},
    "KServe v2": {
        "inputs": [
            {"name": "image", "shape": [1], "datatype": "BYTES", "data": [B64]},
            {"name": "target", "shape": [1], "datatype": "BYTES", "data": ["tabby, tabby cat"]},
            {"name": "top_k", "shape": [1], "datatype": "INT32", "data": [2]},
        ],
    },
}  # fmt: skip
TYPES = (
    "", "application/json; charset=utf-8", "Application/JSON", "APPLICATION/JSON;charset=UTF-8",
    "application/vnd.api+json", "application/ld+json; profile=x", "text/json", "text/plain",
    "application/octet-stream", "image/jpeg", "binary/octet-stream",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


def parse(fields: dict[str, Any], content_type: str) -> ParsedBody:
    headers = {"host": "x", "content-type": content_type} if content_type else {"host": "x"}
    settings = Settings.model_validate({"arch": "resnet50", "layer": "layer4.2"})
    return parse_request(IncomingRequest(fields, headers), settings)


def only_photo(parsed: ParsedBody) -> ImageRequest:
    assert isinstance(parsed.instances, tuple), parsed.instances
    (photo,) = parsed.instances
    assert isinstance(photo, ImageRequest), photo
    return photo


def assert_understood(parsed: ParsedBody) -> None:
    photo = only_photo(parsed)
    assert photo.image == PHOTO
    assert (photo.options.target, photo.options.top_k) == ("tabby, tabby cat", 2)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("body", BODIES)
def test_whatever_its_content_type_and_encoding(
    body: str, content_type: str, encoding: str
) -> None:
    encoded = f"\n {json.dumps(BODIES[body])}".encode(encoding)
    parsed = parse({"body": bytearray(encoded)}, content_type)
    assert_understood(parsed)
    assert parsed.reply_format.protocol == {
        "KServe v1": "kserve v1", "KServe v2": "kserve v2"
    }.get(body, "plain")  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_as_text_as_torchserve_passes_on_text_types(body: str) -> None:
    assert_understood(parse({"body": json.dumps(BODIES[body])}, "text/plain"))
    assert_understood(parse({"body": "\ufeff" + json.dumps(BODIES[body])}, "text/plain"))


def form_fields(text: str) -> dict[str, Any]:
    """A form as TorchServe parses it: parted at & and the first =, + made a space."""
    pairs = parse_qsl(text, keep_blank_values=True)
    return {name: value.encode() for name, value in pairs}


@pytest.mark.parametrize("rest", range(3))
@pytest.mark.parametrize("body", BODIES)
def test_as_a_form_as_curl_sends_it(body: str, rest: int) -> None:
    photo = PHOTO + b"\xfb" * rest
    text = json.dumps(BODIES[body]).replace(B64, base64.b64encode(photo).decode())
    assert "+" in text
    parsed = parse(form_fields(text), "application/x-www-form-urlencoded")
    assert only_photo(parsed).image == photo
    assert only_photo(parsed).options.target == "tabby, tabby cat"


def test_options_of_a_query_stay_beside_json_that_was_sent_as_a_form() -> None:
    fields = {"alpha": "0.5", **form_fields(json.dumps({"b64": B64}))}
    options = only_photo(parse(fields, "application/x-www-form-urlencoded")).options
    assert options == Options(alpha=0.5, layer=("layer4.2",), outputs=options.outputs)


@pytest.mark.parametrize("content_type", ["", "text/plain", "image/png", "text/json"])
def test_base64_alone_is_the_photo(content_type: str) -> None:
    photo = b"\xff\xd8\xff\xe0 photo"
    text = base64.b64encode(photo).decode()
    for body in (text, text.encode(), f"data:image/jpeg;base64,{text}"):
        expected = {"text/json": None}.get(content_type, photo)
        parsed = parse({"body": body}, content_type)
        assert (expected is None) is not isinstance(parsed.instances, tuple)


@pytest.mark.parametrize(
    ("fields", "content_type", "message"),
    [
        ({"body": b'{"b64": '}, "application/json", "declared as JSON but is none: Expecting value "
         "at line 1, column 9"),
        ({"body": b"[" * 100_000}, "", "begins like JSON but is none: it is nested too deep"),
        ({"body": b'{"b64": "\xff"}'}, "text/json", "byte 9 is not utf-8"),
        ({"body": b"\xff\xd8\xff photo"}, "application/json", "declared as JSON but is none: "),
        ({"body": b"[1, 2"}, "application/octet-stream", "begins like JSON but is none: "),
        ({'{"b64": "abc': b'="'}, "application/x-www-form-urlencoded",
         "the header Content-Type: application/json"),
    ],
)  # fmt: skip
def test_what_is_none_is_told_from_what_it_seems(
    fields: dict[str, Any], content_type: str, message: str
) -> None:
    error = parse(fields, content_type).instances
    assert not isinstance(error, tuple)
    assert error.code == "invalid_json"
    assert message in error.message


def test_a_photos_file_is_no_json() -> None:
    for photo in (b"\xff\xd8\xff\xe0{", b"\x89PNG{", b"GIF89a[", b"BM[{"):
        assert only_photo(parse({"body": photo}, "")).image == photo
