"""JSON of callers is held to the limits before anything walks through it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from camserve.errors import RequestError
from camserve.protocols import json_limits
from camserve.protocols.parsing import IncomingRequest, parse_request
from camserve.settings import Limits, Settings
from tests.support.contract import tensor
from tests.support.request_builders import HTTP, b64, form, jsoned

LIMITS = Limits(json_bytes=100, json_values=20, json_depth=4)
PHOTO = b"\xff\xd8\xff photo"


def nested(depth: int) -> Any:
    """Lists in lists: [[[..]]]."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def refused(value: Any, limits: Limits = LIMITS) -> str:
    with pytest.raises(RequestError) as refusal:
        json_limits.check_structure("it", value, limits)
    assert (refusal.value.code, refusal.value.status) == ("json_too_large", 413)
    return refusal.value.message


@pytest.mark.parametrize(
    "value", [None, 1, "text", [], {}, [1] * 19, {"a": [1, 2], "b": {"c": []}}, nested(4)]
)
def test_what_is_within_the_limits_passes(value: Any) -> None:
    json_limits.check_structure("it", value, LIMITS)


def test_too_many_values_are_refused() -> None:
    assert "more than 20 values" in refused([1] * 20)
    assert "more than 20 values" in refused({str(n): [n] for n in range(10)})
    assert "more than 20 values" in refused([[]] * 1_000_000)


def test_too_deep_ones_are_refused() -> None:
    assert "more than 4 deep" in refused(nested(6))
    assert "more than 4 deep" in refused({"a": {"b": {"c": {"d": {"e": {}}}}}})


def test_depth_beyond_pythons_own_limit_is_no_matter() -> None:
    assert "more than 100 deep" in refused(nested(100_000), Limits(json_depth=100))


def test_text_is_measured_before_it_is_parsed() -> None:
    long = json.dumps({"target": "x" * 100})
    with pytest.raises(RequestError, match=r"'options' has 114 bytes; accepted: up to 100"):
        json_limits.parse_options("options", long, LIMITS)
    assert json_limits.parse_options("options", '{"target": "x"}', LIMITS) == {"target": "x"}


@pytest.mark.parametrize("text", ["", "[", "[1]", "7", "null", '"text"', b"\xff", "{]"])
def test_what_is_no_object_is_invalid(text: str | bytes) -> None:
    with pytest.raises(RequestError) as refusal:
        json_limits.parse_options("X-Explain", text, LIMITS)
    assert refusal.value.code == "invalid_json"


# Requests


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(jsoned(PHOTO, target=nested(200)), id="body"),
        pytest.param(jsoned(PHOTO, target="x" * 70_000), id="text in a body"),
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
def test_a_request_above_the_limits_is_refused(row: IncomingRequest) -> None:
    found = parse_request(row, Settings()).instances
    error = found if isinstance(found, RequestError) else found[0]
    assert isinstance(error, RequestError)
    assert (error.code, error.status) == ("json_too_large", 413)
    assert len(error.message) < 200


def test_a_photo_in_json_is_no_option() -> None:
    (instance,) = parse_request(jsoned(PHOTO * 20_000), Settings()).instances
    assert instance.image == PHOTO * 20_000
