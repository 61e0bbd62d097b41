"""Callers' JSON is checked against the limits before anything walks through it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from camserve.errors import RequestError
from camserve.protocols import json_limits
from camserve.protocols.parsing import ImageRequest, IncomingRequest, parse_request
from camserve.settings import Limits, Settings
from tests.support.contract import tensor
from tests.support.request_builders import HTTP, b64, form, json_request

LIMITS = Limits(json_bytes=100, json_values=20, json_depth=4)
PHOTO = b"\xff\xd8\xff photo"


def nested(depth: int) -> Any:
    """Lists nested to a depth: [[[..]]]."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def rejection_message(value: Any, limits: Limits = LIMITS) -> str:
    with pytest.raises(RequestError) as rejection:
        json_limits.check_structure("it", value, limits)
    assert (rejection.value.code, rejection.value.status) == ("json_too_large", 413)
    return rejection.value.message


@pytest.mark.parametrize(
    "value", [None, 1, "text", [], {}, [1] * 19, {"a": [1, 2], "b": {"c": []}}, nested(4)]
)
def test_a_value_within_the_limits_is_accepted(value: Any) -> None:
    json_limits.check_structure("it", value, LIMITS)


def test_too_many_values_are_rejected() -> None:
    assert "more than 20 values" in rejection_message([1] * 20)
    assert "more than 20 values" in rejection_message({str(n): [n] for n in range(10)})
    assert "more than 20 values" in rejection_message([[]] * 1_000_000)


def test_values_nested_too_deep_are_rejected() -> None:
    assert "more than 4 deep" in rejection_message(nested(6))
    assert "more than 4 deep" in rejection_message({"a": {"b": {"c": {"d": {"e": {}}}}}})


def test_nesting_beyond_the_recursion_limit_is_rejected_like_any_other() -> None:
    assert "more than 100 deep" in rejection_message(nested(100_000), Limits(json_depth=100))


def test_the_length_of_text_is_checked_before_it_is_parsed() -> None:
    long_text = json.dumps({"target": "x" * 100})
    with pytest.raises(RequestError, match=r"'options' has 114 bytes; accepted: up to 100"):
        json_limits.parse_options("options", long_text, LIMITS)
    assert json_limits.parse_options("options", '{"target": "x"}', LIMITS) == {"target": "x"}


@pytest.mark.parametrize("text", ["", "[", "[1]", "7", "null", '"text"', b"\xff", "{]"])
def test_options_that_are_not_a_json_object_are_invalid(text: str | bytes) -> None:
    with pytest.raises(RequestError) as rejection:
        json_limits.parse_options("X-Explain", text, LIMITS)
    assert rejection.value.code == "invalid_json"


# Requests


@pytest.mark.parametrize(
    "request_above_limits",
    [
        pytest.param(json_request(PHOTO, target=nested(200)), id="body"),
        pytest.param(json_request(PHOTO, target="x" * 70_000), id="text in a body"),
        pytest.param(form(PHOTO, target="x" * 70_000), id="text in a form"),
        pytest.param(form(PHOTO, target="[" * 70_000), id="a list in a form"),
        pytest.param(form(PHOTO, options=json.dumps({"target": [1] * 30_000})), id="options"),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {"x-explain": json.dumps({"target": nested(200)})}),
            id="header",
        ),
        pytest.param(
            IncomingRequest(
                {"body": {"instances": [b64(PHOTO)], "parameters": {"x": [1] * 99_999}}}, HTTP
            ),
            id="v1",
        ),
        pytest.param(
            IncomingRequest({"body": {"inputs": [tensor("image", "BYTES", [nested(400)])]}}, {}),
            id="grpc",
        ),
    ],
)
def test_a_request_above_the_limits_is_rejected(request_above_limits: IncomingRequest) -> None:
    instances = parse_request(request_above_limits, Settings()).instances
    error = instances if isinstance(instances, RequestError) else instances[0]
    assert isinstance(error, RequestError)
    assert (error.code, error.status) == ("json_too_large", 413)
    assert len(error.message) < 200


def test_the_limit_of_options_does_not_apply_to_a_photo_in_json() -> None:
    instances = parse_request(json_request(PHOTO * 20_000), Settings()).instances
    assert isinstance(instances, tuple)
    (instance,) = instances
    assert isinstance(instance, ImageRequest)
    assert instance.image == PHOTO * 20_000
