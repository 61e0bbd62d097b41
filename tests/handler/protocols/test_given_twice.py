"""An option that is given twice: with one meaning as once, with two an error that names it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from camserve.errors import RequestError
from camserve.protocols.parsing import ImageRequest, IncomingRequest, parse_request
from camserve.settings import Settings

SETTINGS = Settings()
PHOTO = b"\xff\xd8\xff photo"
B64 = base64.b64encode(PHOTO).decode()
TYPED = {"content-type": "application/json; charset=utf-8"}
FORM = {"content-type": "multipart/form-data; boundary=b"}


def result(request: IncomingRequest) -> ImageRequest | RequestError:
    instances = parse_request(request, SETTINGS).instances
    return instances if isinstance(instances, RequestError) else instances[0]


def header(*values: str) -> IncomingRequest:
    """A header in several lines, as a proxy joins them."""
    return IncomingRequest({"body": PHOTO}, {"x-explain": ", ".join(values)})


def text(options: str, photo: str = f'"image": "{B64}"') -> IncomingRequest:
    """JSON that the server has not parsed."""
    return IncomingRequest({"body": f"{{{photo}, {options}}}".encode()}, TYPED)


def tensors(*values: Any) -> IncomingRequest:
    inputs: list[dict[str, Any]] = [
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    ]
    inputs += [
        {"name": "top_k", "datatype": "INT64", "shape": [1], "data": [one]} for one in values
    ]
    return IncomingRequest({"body": {"inputs": inputs}}, TYPED)


SAME: dict[str, tuple[IncomingRequest, str, Any]] = {
    "path": (IncomingRequest({"body": PHOTO}, {}, "top_k=3,top_k=3"), "top_k", 3),
    "path, written otherwise": (
        IncomingRequest({"body": PHOTO}, {}, "top_k=3,top_k= 03"), "top_k", 3),
    "path, lists": (
        IncomingRequest({"body": PHOTO}, {}, "outputs=map,boxes,outputs=map,boxes"),
        "outputs", ("map", "boxes")),
    "path and header": (
        IncomingRequest({"body": PHOTO}, {"x-explain": '{"top_k": 3}'}, "top_k=3"), "top_k", 3),
    "header and field": (
        IncomingRequest({"data": PHOTO, "target": b"285"}, FORM | {"x-explain": '{"target": 285}'}),
        "target", 285),
    "list and its text": (
        IncomingRequest(
            {"data": PHOTO, "outputs": b"map, boxes"},
            {**FORM, "x-explain": '{"outputs": ["map", "boxes"]}'},
        ), "outputs", ("map", "boxes")),
    "field and options": (
        IncomingRequest({"data": PHOTO, "alpha": b"0.50", "options": b'{"alpha": 0.5}'}, FORM),
        "alpha", 0.5),
    "header, two lines": (header('{"top_k": 3}', '{"top_k": "3"}'), "top_k", 3),
    "header, two lines of two options": (header('{"top_k": 3}', '{"alpha": 1}'), "top_k", 3),
    "header, key": (header('{"top_k": 3, "top_k": 3}'), "top_k", 3),
    "JSON key": (text('"target": "cat", "target": "cat"'), "target", "cat"),
    "JSON key, number and text": (text('"target": 285, "target": "285"'), "target", 285),
    "JSON key of the photo": (text(f'"image": "{B64}", "top_k": 3'), "top_k", 3),
    "KServe v1 parameters": (
        text('"parameters": {"top_k": 3, "top_k": 3}', f'"instances": ["{B64}"]'), "top_k", 3),
    "KServe v1 beside": (
        text('"parameters": {"top_k": 3}, "top_k": "3"', f'"instances": ["{B64}"]'), "top_k", 3),
    "KServe v2 inputs": (tensors(3, 3), "top_k", 3),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "option", "value"), SAME.values(), ids=SAME)
def test_with_one_meaning_it_counts_once(
    request_: IncomingRequest, option: str, value: Any
) -> None:
    found = result(request_)
    assert isinstance(found, ImageRequest), found
    assert getattr(found.options, option) == value


TWO: dict[str, tuple[IncomingRequest, str, str]] = {
    "path": (IncomingRequest({"body": PHOTO}, {}, "target=a,target=b"), "target", ""),
    "path and header": (
        IncomingRequest({"body": PHOTO}, {"x-explain": '{"top_k": 3}'}, "top_k=4"), "top_k", ""),
    "lists in another order": (
        IncomingRequest({"body": PHOTO}, {}, "outputs=map,boxes,outputs=boxes,map"),
        "outputs", ""),
    "true is not a number": (header('{"top_k": 1, "top_k": true}'), "top_k", ""),
    "header, two lines": (header('{"target": "a"}', '{"target": "b"}'), "target", ""),
    "header, key": (header('{"outputs": "map", "outputs": "mask"}'), "outputs", ""),
    "options, key": (
        IncomingRequest({"data": PHOTO, "options": b'{"alpha": 0, "alpha": 1}'}, FORM),
        "alpha", ""),
    "JSON key": (text('"target": 1, "target": 2'), "target", ""),
    "JSON key, three times": (text('"target": 2, "target": 1, "target": 2'), "target", ""),
    "KServe v1 instance": (
        text('"top_k": 3', f'"instances": [{{"image": "{B64}", "target": 1, "target": 2}}]'),
        "target", ""),
    "KServe v2 inputs": (tensors(3, 4), "top_k", ""),
    "photo": (text('"image": "AAAA"'), "image", "invalid_request"),
    "photo, base64": (
        text('"top_k": 3', f'"image": {{"b64": "{B64}", "b64": "AAAA"}}'),
        "b64", "invalid_request"),
    "instances": (
        text('"instances": []', f'"instances": ["{B64}"]'), "instances", "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "option", "code"), TWO.values(), ids=TWO)
def test_two_meanings_are_an_error_that_names_it(
    request_: IncomingRequest, option: str, code: str
) -> None:
    error = result(request_)
    assert isinstance(error, RequestError)
    assert error.code == (code or "conflicting_options")
    assert f"'{option}' is given twice" in error.message


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "invalid_json"),
        ("[]", "invalid_json"),
        ('{"top_k": 3}, 4', "invalid_json"),
        ('{"top_k": 3}], [{"top_k": 4}', "invalid_json"),
        ('{"top_k": 3},', "invalid_json"),
    ],
)
def test_a_header_of_anything_but_objects_is_rejected(value: str, code: str) -> None:
    error = result(header(value))
    assert isinstance(error, RequestError)
    assert error.code == code


def test_objects_are_not_looked_through_without_bound() -> None:
    many = ", ".join(["{}"] * 100 + ['{"a": 0}'] * SETTINGS.limits.json_values)
    error = result(text(f'"x": [{many}, {{"a": 0}}]'))
    assert isinstance(error, RequestError)
    assert error.code == "json_too_large"


def test_long_values_are_not_compared() -> None:
    long = json.dumps("x" * (SETTINGS.limits.json_bytes + 1))
    error = result(text(f'"target": {long}, "target": 1'))
    assert isinstance(error, RequestError)
    assert error.code == "json_too_large"
