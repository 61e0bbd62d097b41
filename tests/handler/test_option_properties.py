"""Whatever options a request carries by whatever protocol: a true reply, or an error of its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from tests.support import option_strategies
from tests.support.color_resnet import photo, png
from tests.support.contract import as_v2_has_it, assert_replies_close, inputs_of, tensor
from tests.support.option_strategies import Options, path_of, text_of
from tests.support.request_builders import HTTP, b64, photo_outcomes, v1, v2

PHOTO = png(photo(("red", (45, 50), 30), ("blue", (20, 15), 12), width=96, height=80))
SIDE = 64


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    """A small network, and a limit that keeps what is drawn small."""
    return load(
        layers=option_strategies.LAYERS,
        preprocess={"resize": SIDE, "crop": SIDE},
        limits={"drawn_pixels": 500_000},
    )


def open_inference(options: Options) -> IncomingRequest:
    """Over gRPC all that is no number is text, which TorchServe hands on in base64."""
    inputs = [tensor("image", "BYTES", [b64(PHOTO)])]
    for name, value in options.items():
        if type(value) in (int, float, bool):
            inputs.append(tensor(name, "FP64", [value]))
        else:
            text = base64.b64encode(text_of(value).encode("utf-8", "surrogatepass")).decode()
            inputs.append(tensor(name, "BYTES", [text]))
    return IncomingRequest({"body": {"id": "7", "model_name": "colours", "inputs": inputs}}, {})


def form(options: Options) -> IncomingRequest:
    texts = {
        name: text_of(value).encode("utf-8", "surrogatepass") for name, value in options.items()
    }
    return IncomingRequest({"data": PHOTO, **texts}, {})


def split(options: Options) -> IncomingRequest:
    """Half of the options in the header, half in the URL path."""
    half = len(options) // 2
    items = list(options.items())
    headers = {**HTTP, "content-type": "image/png", "x-explain": json.dumps(dict(items[:half]))}
    return IncomingRequest({"body": PHOTO}, headers, path=path_of(dict(items[half:])))


WAYS: dict[str, Callable[[Options], IncomingRequest]] = {
    "json": lambda options: IncomingRequest({"body": {**options, "image": b64(PHOTO)}}, HTTP),
    "form": form,
    "header and path": split,
    "v1": lambda options: v1((PHOTO, options)),
    "v1, parameters": lambda options: IncomingRequest(
        {"body": {"instances": [b64(PHOTO)], "parameters": options}}, HTTP
    ),
    "v2": lambda options: v2(PHOTO) if not options else _v2_inputs(options),
    "v2, parameters": lambda options: IncomingRequest(
        {"body": {"inputs": inputs_of([b64(PHOTO)]), "parameters": options}}, HTTP
    ),
    "open inference": open_inference,
}


def _v2_inputs(options: Options) -> IncomingRequest:
    """A list stands as JSON text: an element is one photo's value."""
    columns = [
        tensor(name, "BYTES", [text_of(value) if isinstance(value, list) else value])
        for name, value in options.items()
    ]
    return v2(PHOTO, columns=columns)


def ask(pipeline: Pipeline, options: Options) -> dict[str, dict[str, Any]]:
    """The outcome by each way; every reply is one that the contract has."""
    found = photo_outcomes(pipeline, *(way(options) for way in WAYS.values()))
    return {name: one for name, (one,) in zip(WAYS, found, strict=True)}


examples = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@settings(examples, max_examples=40)
@given(option_strategies.valid_options)
def test_right_options_are_answered_alike_by_every_protocol(
    pipeline: Pipeline, options: Options
) -> None:
    found = ask(pipeline, options)
    expected = found["json"]
    assert "error" not in expected, expected
    for name, got in found.items():
        tensors = name.startswith(("v2", "open"))
        assert_replies_close(got, as_v2_has_it(expected) if tensors else expected, name)


def refusals(found: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The status of each error, by the way that it came."""
    return {name: one["error"]["status"] for name, one in found.items() if "error" in one}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in option_strategies.REFUSED.items() for value in values],
)
def test_a_wrong_value_is_refused_by_every_protocol(
    pipeline: Pipeline, name: str, value: Any
) -> None:
    found = refusals(ask(pipeline, {name: value}))
    assert found.keys() == WAYS.keys()
    assert set(found.values()) <= {400, 413}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in option_strategies.ACCEPTED.items() for value in values],
)
def test_an_odd_value_is_accepted_by_every_protocol(
    pipeline: Pipeline, name: str, value: Any
) -> None:
    assert refusals(ask(pipeline, {name: value})) == {}


@settings(examples, max_examples=40)
@given(option_strategies.unknown)
def test_an_unknown_option_is_refused_by_every_protocol(
    pipeline: Pipeline, options: Options
) -> None:
    assert refusals(ask(pipeline, options)) == dict.fromkeys(WAYS, 400)


@settings(examples, max_examples=150)
@given(option_strategies.arbitrary_options)
def test_wrong_options_are_never_blamed_on_the_server(pipeline: Pipeline, options: Options) -> None:
    found = ask(pipeline, options)
    assert {status // 100 for status in refusals(found).values()} <= {4}, found
    longest = max(len(one["error"]["message"]) if "error" in one else 0 for one in found.values())
    assert longest < 1000
