"""Requests of KServe v1 and v2: a request's body -> its photos and their options."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols.kserve_v1 import KServeV1
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.parsing import (
    ImageRequest,
    IncomingRequest,
    ParsedBody,
    detect_protocol,
    parse_request,
)
from camserve.protocols.plain import PlainProtocol
from camserve.protocols.requested_outputs import RequestedOutputs
from camserve.protocols.schema import ModelBody
from camserve.settings import Limits, Settings
from tests.support.contract import inputs_of, tensor

SETTINGS = Settings(layers=("layer3.5",), limits=Limits(instances=3))
PHOTO, OTHER = b"\xff\xd8\xff photo", b"\x89PNG other"
B64, OTHER64 = base64.b64encode(PHOTO).decode(), base64.b64encode(OTHER).decode()
HTTP = {"content-type": "application/json", "host": "localhost:8080"}
GRPC: dict[str, str] = {}
MODEL: ModelBody = {"name": "colours", "version": "1.0"}


def photo(image: bytes = PHOTO, **options: Any) -> ImageRequest:
    return ImageRequest(image, Options(**{"layer": (SETTINGS.layer,), **options}))


def base64_texts(*texts: str) -> list[str]:
    return [base64.b64encode(text.encode()).decode() for text in texts]


def parse(
    body: Any, headers: Mapping[str, str] = HTTP, force_explain: bool = False, **fields: Any
) -> ParsedBody:
    request = IncomingRequest({"body": body, **fields}, headers, force_explain=force_explain)
    return parse_request(request, SETTINGS)


#: A photo and its options, or the code of the error that it has instead.
PhotoOrCode = ImageRequest | str


def photos_or_codes(parsed: ParsedBody) -> list[PhotoOrCode] | str:
    """The photos of a request; an error by its code."""
    if isinstance(parsed.instances, RequestError):
        return parsed.instances.code
    return [
        instance.code if isinstance(instance, RequestError) else instance
        for instance in parsed.instances
    ]


def photos_of(parsed: ParsedBody) -> list[ImageRequest]:
    """The photos of a request without errors."""
    assert isinstance(parsed.instances, tuple)
    photos = [instance for instance in parsed.instances if isinstance(instance, ImageRequest)]
    assert len(photos) == len(parsed.instances)
    return photos


def rejection(parsed: ParsedBody) -> RequestError:
    """The error of a request that is rejected as a whole."""
    assert isinstance(parsed.instances, RequestError)
    return parsed.instances


# The protocol of a body


@pytest.mark.parametrize(
    ("body", "over_http", "explain", "expected"),
    [
        ({"instances": []}, True, False, KServeV1("predictions")),
        ({"instances": 1}, True, True, KServeV1("explanations")),
        ({"inputs": []}, True, False, KServeV2("")),
        ({"inputs": None, "id": "7"}, True, True, KServeV2("7")),
        ({"inputs": [], "instances": []}, True, False, KServeV2("")),
        ({"inputs": [], "id": 7}, True, False, KServeV2("")),
        (
            {"inputs": [], "outputs": [{"name": "map"}]},
            True,
            False,
            KServeV2("", RequestedOutputs(("map",))),
        ),
        ({"inputs": [], "outputs": "map"}, True, False, KServeV2("")),
        # Over gRPC, TorchServe needs a v2 reply to any body that it has parsed.
        ({"inputs": [], "id": "7"}, False, False, KServeV2("7", from_grpc=True)),
        ({}, False, False, KServeV2("", from_grpc=True)),
        ({"instances": []}, False, False, KServeV2("", from_grpc=True)),
        ({"image": B64}, True, False, PlainProtocol()),
        ({}, True, False, PlainProtocol()),
        ([], True, False, PlainProtocol()),
        ("inputs", True, False, PlainProtocol()),
        (b'{"inputs": []}', True, False, PlainProtocol()),
        (b'{"inputs": []}', False, False, PlainProtocol()),
        (None, False, False, PlainProtocol()),
    ],
)
def test_the_protocol_of_a_body(
    body: Any, over_http: bool, explain: bool, expected: PlainProtocol | KServeV1 | KServeV2
) -> None:
    headers = HTTP if over_http else GRPC
    request = IncomingRequest({"body": body}, headers, force_explain=explain)
    assert detect_protocol(request) == expected


# V1: valid requests

V1_VALID: dict[str, tuple[dict[str, Any], list[PhotoOrCode]]] = {
    "one photo": ({"instances": [{"image": {"b64": B64}}]}, [photo()]),
    "keys of a photo": (
        {"instances": [{"image": B64}, {"data": {"b64": B64}}, {"b64": OTHER64}]},
        [photo(), photo(), photo(OTHER)],
    ),
    "base64 alone": ({"instances": [B64, OTHER64]}, [photo(), photo(OTHER)]),
    "TensorFlow Serving's form": (
        {"signature_name": "serving_default", "instances": [{"image_bytes": {"b64": B64}}]},
        [photo()],
    ),
    "options of each instance": (
        {
            "instances": [
                {"image": B64, "target": ["red", 1], "top_k": 2},
                {"image": OTHER64, "target": "blue", "layer": "layer3.5"},
            ]
        },
        [
            photo(target=("red", 1), top_k=2),
            photo(OTHER, target="blue", layer=("layer3.5",)),
        ],
    ),
    "options of all photos": (
        {"instances": [B64, {"image": B64}], "parameters": {"alpha": 0.5, "outputs": "map"}},
        [photo(alpha=0.5, outputs=("map",))] * 2,
    ),
    "instance overrides parameters": (
        {"instances": [{"image": B64, "top_k": 1}, B64], "parameters": {"top_k": 2, "alpha": 1}},
        [photo(top_k=1, alpha=1), photo(top_k=2, alpha=1)],
    ),
    "no parameters": ({"instances": [B64], "parameters": {}}, [photo()]),
    "largest number": ({"instances": [B64] * 3}, [photo()] * 3),
    "one invalid photo": (
        {
            "instances": [
                {"image": "@"},
                B64,
                {"image": B64, "alpha": 2},
            ]
        },
        ["invalid_base64", photo(), "invalid_option"],
    ),
    "neither text nor object": (
        {"instances": [None, 7, [B64]]},
        ["invalid_request", "invalid_request", "invalid_request"],
    ),
    "invalid options of each instance": (
        {"instances": [{"image": B64, "alhpa": 1}, {"target": 1}, {"image": B64, "b64": B64}]},
        ["unknown_option", "missing_image", "invalid_request"],
    ),
    "invalid parameters, one overridden": (
        {"instances": [B64, {"image": B64, "alpha": 1}], "parameters": {"alpha": 2}},
        ["invalid_option", photo(alpha=1)],
    ),
    "empty instances": ({"instances": [{}, ""]}, ["missing_image", "missing_image"]),
    "layer that is not served": (
        {"instances": [{"image": B64, "layer": "layer1"}, B64]},
        ["invalid_option", photo()],
    ),
}


@pytest.mark.parametrize(("body", "expected"), V1_VALID.values(), ids=V1_VALID)
def test_v1_photos_and_their_options(body: dict[str, Any], expected: list[PhotoOrCode]) -> None:
    parsed = parse(body)
    assert parsed.reply_format == KServeV1("predictions")
    assert photos_or_codes(parsed) == expected


def test_v1_does_not_change_the_body() -> None:
    body = {"instances": [{"image": B64, "top_k": 1}], "parameters": {"alpha": 1}}
    before = json.dumps(body)
    parse(body)
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    ("headers", "fields", "parameters"),
    [
        ({"x-explain": '{"top_k": 2}'}, {}, {}),
        ({}, {"top_k": b"2"}, {}),
        ({}, {}, {"top_k": 2}),
        ({"x-explain": '{"top_k": 2}'}, {"model_name": b"m"}, {"top_k": 2}),
    ],
)
def test_v1_options_outside_the_body_apply_to_all_instances(
    headers: dict[str, str], fields: dict[str, Any], parameters: dict[str, Any]
) -> None:
    body = {"instances": [B64, {"image": B64, "top_k": 1}], "parameters": parameters}
    parsed = parse(body, HTTP | headers, **fields)
    assert photos_or_codes(parsed) == [photo(top_k=2), photo(top_k=1)]


def test_v1_options_in_the_url_apply_to_all_instances() -> None:
    request = IncomingRequest({"body": {"instances": [B64]}}, HTTP, "target=red,blue,top_k=2")
    assert photos_or_codes(parse_request(request, SETTINGS)) == [photo(target="red,blue", top_k=2)]


# V1: invalid requests

V1_INVALID: dict[str, dict[str, Any]] = {
    "empty list": {"instances": []},
    "not a list": {"instances": {"image": B64}},
    "text": {"instances": B64},
    "null": {"instances": None},
    "number": {"instances": 1},
    "unknown key": {"instances": [B64], "signature": "x"},
    "parameters null": {"instances": [B64], "parameters": None},
    "parameters list": {"instances": [B64], "parameters": [{"top_k": 1}]},
}


@pytest.mark.parametrize("body", V1_INVALID.values(), ids=V1_INVALID)
def test_an_invalid_v1_body_is_rejected_as_a_whole(body: dict[str, Any]) -> None:
    parsed = parse(body)
    assert parsed.reply_format == KServeV1("predictions")
    assert photos_or_codes(parsed) == "invalid_request"


def test_an_unknown_v1_key_is_named_with_the_accepted_ones() -> None:
    message = rejection(parse({"instances": [B64], "paramters": {}})).message
    assert "'paramters'; did you mean 'parameters'? accepted: alpha, " in message
    assert ", instances, layer, " in message


def test_options_beside_and_in_the_parameters_may_not_differ() -> None:
    body = {"instances": [B64], "parameters": {"top_k": 2, "alpha": 0.5}, "top_k": 2}
    assert photos_or_codes(parse(body)) == [photo(top_k=2, alpha=0.5)]
    error = rejection(parse({**body, "top_k": 3}))
    assert error.code == "conflicting_options"
    assert "'top_k' is given twice, as 3 and 2" in error.message


def test_a_v1_request_with_too_many_instances_is_rejected_as_a_whole() -> None:
    error = rejection(parse({"instances": [B64] * 4}))
    assert error.code == "too_many_instances"
    assert "4 photos; accepted: up to 3" in error.message


@pytest.mark.parametrize(
    ("headers", "fields", "parameters"),
    [
        ({"x-explain": '{"top_k": 3}'}, {}, {"top_k": 2}),
        ({}, {"top_k": b"3"}, {"top_k": 2}),
        ({"x-explain": '{"top_k": 3}'}, {"top_k": b"2"}, {}),
    ],
)
def test_v1_options_of_all_instances_from_two_sources_must_agree(
    headers: dict[str, str], fields: dict[str, Any], parameters: dict[str, Any]
) -> None:
    body = {"instances": [{"image": B64, "top_k": 1}], "parameters": parameters}
    assert photos_or_codes(parse(body, HTTP | headers, **fields)) == "conflicting_options"


# Calls for explanations


@pytest.mark.parametrize("default", [True, False])
def test_a_v1_call_for_explanations_turns_them_on(default: bool) -> None:
    settings = Settings(defaults=Options(explain=default))
    body = {"instances": [B64, {"image": B64, "explain": True}, {"image": B64, "explain": False}]}
    parsed = parse_request(IncomingRequest({"body": body}, HTTP, force_explain=True), settings)
    assert parsed.reply_format == KServeV1("explanations")
    assert isinstance(parsed.instances, tuple)
    first, second, third = parsed.instances
    assert isinstance(first, ImageRequest)
    assert first.options.explain
    assert isinstance(second, ImageRequest)
    assert second.options.explain
    assert isinstance(third, RequestError)
    assert third.code == "conflicting_options"


def test_a_v2_call_for_explanations_turns_them_on() -> None:
    settings = Settings(defaults=Options(explain=False))
    fields = {"body": {"inputs": inputs_of([B64])}}
    predict_call = IncomingRequest(fields, HTTP)
    explain_call = IncomingRequest(fields, HTTP, force_explain=True)
    (predict,) = photos_of(parse_request(predict_call, settings))
    (explain,) = photos_of(parse_request(explain_call, settings))
    assert (predict.options.explain, explain.options.explain) == (False, True)


def test_a_v2_call_for_explanations_rejects_a_photo_that_turns_them_off() -> None:
    body = {"inputs": inputs_of([B64], explain=False)}
    assert photos_or_codes(parse(body, force_explain=True)) == ["conflicting_options"]


# V2: valid requests

IMAGES = tensor("image", "BYTES", [B64, OTHER64])
V2_VALID: dict[str, tuple[dict[str, Any], list[PhotoOrCode]]] = {
    "one photo": ({"inputs": inputs_of([B64])}, [photo()]),
    "two photos": ({"inputs": [IMAGES]}, [photo(), photo(OTHER)]),
    "scalar": ({"inputs": [{**tensor("image", "BYTES", [B64]), "shape": []}]}, [photo()]),
    "more axes": (
        {"inputs": [{**IMAGES, "shape": [2, 1], "data": [[B64], [OTHER64]]}]},
        [photo(), photo(OTHER)],
    ),
    "options of all photos": (
        {"inputs": [IMAGES, *inputs_of([], top_k=2, alpha=0.5, outputs=["map", "mask"])[1:]]},
        [photo(image, top_k=2, alpha=0.5, outputs=("map", "mask")) for image in (PHOTO, OTHER)],
    ),
    "options of each photo": (
        {
            "inputs": [
                IMAGES,
                tensor("target", "BYTES", ["red", '["blue", "red"]']),
                tensor("top_k", "INT64", [1, 2]),
            ]
        },
        [photo(target="red", top_k=1), photo(OTHER, target=("blue", "red"), top_k=2)],
    ),
    "options of each photo, two axes": (
        {"inputs": [IMAGES, tensor("top_k", "INT64", [[1], [2]], 2, 1)]},
        [photo(top_k=1), photo(OTHER, top_k=2)],
    ),
    "options before the photos": (
        {"inputs": [tensor("top_k", "INT64", [1]), IMAGES]},
        [photo(top_k=1), photo(OTHER, top_k=1)],
    ),
    "explain": (
        {"inputs": [IMAGES, tensor("explain", "BOOL", [False, True])]},
        [photo(explain=False), photo(OTHER)],
    ),
    "parameters": (
        {"inputs": [IMAGES], "parameters": {"top_k": 2, "target": "red"}},
        [photo(top_k=2, target="red"), photo(OTHER, top_k=2, target="red")],
    ),
    "parameters of an input": (
        {"inputs": [{**IMAGES, "parameters": {"top_k": 2}}], "parameters": {"alpha": 1}},
        [photo(top_k=2, alpha=1), photo(OTHER, top_k=2, alpha=1)],
    ),
    "parameters twice, equal": (
        {"inputs": [{**IMAGES, "parameters": {"top_k": 2}}], "parameters": {"top_k": 2}},
        [photo(top_k=2), photo(OTHER, top_k=2)],
    ),
    "inputs before parameters": (
        {
            "inputs": [IMAGES, tensor("top_k", "INT64", [1, 3])],
            "parameters": {"top_k": 2, "alpha": 1},
        },
        [photo(top_k=1, alpha=1), photo(OTHER, top_k=3, alpha=1)],
    ),
    "all keys": (
        {"id": "x", "model_name": "m", "model_version": "1", "inputs": [IMAGES], "outputs": []},
        [photo(), photo(OTHER)],
    ),
    "text in a JSON body": (
        {"inputs": [*inputs_of([B64], target="cmVk")]},
        [photo(target="cmVk")],
    ),
    "one invalid photo": (
        {"inputs": [tensor("image", "BYTES", [B64, "@"]), tensor("alpha", "FP32", [1.0])]},
        [photo(alpha=1), "invalid_base64"],
    ),
    "invalid option of one photo": (
        {"inputs": [IMAGES, tensor("alpha", "FP32", [2.0, 0.5])]},
        ["invalid_option", photo(OTHER, alpha=0.5)],
    ),
    "photos of wrong types": (
        {"inputs": [tensor("image", "INT64", [1, None, ""])]},
        ["invalid_request", "invalid_request", "missing_image"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), V2_VALID.values(), ids=V2_VALID)
def test_v2_photos_and_their_options(body: dict[str, Any], expected: list[PhotoOrCode]) -> None:
    parsed = parse(body)
    assert parsed.reply_format == KServeV2(body.get("id", ""))
    assert photos_or_codes(parsed) == expected


def test_v2_does_not_change_the_body() -> None:
    body = {
        "inputs": [{**IMAGES, "parameters": {"top_k": 2}}, tensor("alpha", "FP32", [1.0])],
        "parameters": {"target": "red"},
        "outputs": [{"name": "mask"}],
    }
    before = json.dumps(body)
    parse(body)
    assert json.dumps(body) == before


def test_v2_options_outside_the_body_apply_to_all_photos() -> None:
    body = {"inputs": [IMAGES, tensor("top_k", "INT64", [1, 3])], "parameters": {"target": "red"}}
    parsed = parse(body, HTTP | {"x-explain": '{"alpha": 1, "top_k": 2}'})
    assert photos_or_codes(parsed) == [
        photo(alpha=1, top_k=1, target="red"),
        photo(OTHER, alpha=1, top_k=3, target="red"),
    ]


# Open Inference over gRPC: TorchServe encodes all BYTES in base64, text as well


def test_text_over_grpc_is_decoded_from_base64() -> None:
    inputs = [
        IMAGES,
        tensor("target", "BYTES", base64_texts("Häher", '["red", "top:2"]')),
        tensor("outputs", "BYTES", base64_texts("map,boxes")),
        tensor("top_k", "INT64", [2]),
        tensor("explain", "BOOL", [True]),
    ]
    body = {"id": "", "model_name": "m", "inputs": inputs}
    parsed = parse(body, GRPC)
    assert parsed.reply_format == KServeV2("", from_grpc=True)
    common: dict[str, Any] = {"top_k": 2, "outputs": ("map", "boxes")}
    assert photos_or_codes(parsed) == [
        photo(target="Häher", **common),
        photo(OTHER, target=("red", "top:2"), **common),
    ]


def test_text_over_http_is_not_decoded_from_base64() -> None:
    inputs = inputs_of([B64], target=base64_texts("red")[0])
    assert photos_or_codes(parse({"inputs": inputs})) == [photo(target=base64_texts("red")[0])]


@pytest.mark.parametrize("element", ["red", "\xff", base64.b64encode(b"\xff").decode()])
def test_text_over_grpc_that_is_not_utf_8_in_base64_is_rejected(element: str) -> None:
    body = {"inputs": [*inputs_of([B64]), tensor("target", "BYTES", [element])]}
    error = rejection(parse(body, GRPC))
    assert error.code == "invalid_option"
    assert "'target'" in error.message


# V2: invalid requests

V2_INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "not a list": ({"inputs": {"image": B64}}, "invalid_request"),
    "null": ({"inputs": None}, "invalid_request"),
    "empty list": ({"inputs": []}, "missing_image"),
    "options only": ({"inputs": inputs_of([], top_k=1)[1:]}, "missing_image"),
    "no photo": ({"inputs": [tensor("image", "BYTES", [])]}, "missing_image"),
    "input text": ({"inputs": [B64]}, "invalid_request"),
    "no name": ({"inputs": [{"shape": [1], "data": [B64]}]}, "invalid_request"),
    "name no text": ({"inputs": [{**IMAGES, "name": 1}]}, "invalid_request"),
    "no data": ({"inputs": [{"name": "image", "shape": [1]}]}, "invalid_request"),
    "data text": ({"inputs": [{**IMAGES, "data": B64}]}, "invalid_request"),
    "shape too long": ({"inputs": [{**IMAGES, "shape": [3]}]}, "invalid_request"),
    "shape too short": ({"inputs": [{**IMAGES, "shape": [1]}]}, "invalid_request"),
    "shape of text": ({"inputs": [{**IMAGES, "shape": ["2"]}]}, "invalid_request"),
    "shape of booleans": (
        {"inputs": [{**tensor("image", "BYTES", [B64]), "shape": [True]}]},
        "invalid_request",
    ),
    "shape negative": ({"inputs": [{**IMAGES, "shape": [-1, -2]}]}, "invalid_request"),
    "shape number": ({"inputs": [{**IMAGES, "shape": 2}]}, "invalid_request"),
    "data ragged": (
        {"inputs": [{**IMAGES, "data": [B64, [OTHER64]]}]},
        "invalid_request",
    ),
    "data too deep": (
        {"inputs": [{**tensor("image", "BYTES", [B64]), "data": [[[[[B64]]]]]}]},
        "invalid_request",
    ),
    "shape of too many axes": (
        {"inputs": [{**tensor("image", "BYTES", [B64]), "shape": [1] * 5}]},
        "invalid_request",
    ),
    "twice": ({"inputs": [IMAGES, IMAGES]}, "invalid_request"),
    "option twice": (
        {"inputs": [IMAGES, *inputs_of([], top_k=1)[1:], *inputs_of([], top_k=2)[1:]]},
        "conflicting_options",
    ),
    "option with another number of elements": (
        {"inputs": [tensor("image", "BYTES", [B64] * 3), tensor("top_k", "INT64", [1, 2])]},
        "invalid_request",
    ),
    "option with more elements than photos": (
        {"inputs": [*inputs_of([B64]), tensor("top_k", "INT64", [1, 2])]},
        "invalid_request",
    ),
    "option of 0 elements": ({"inputs": [IMAGES, tensor("top_k", "INT64", [])]}, "invalid_request"),
    "too many": ({"inputs": [tensor("image", "BYTES", [B64] * 4)]}, "too_many_instances"),
    "parameters list": ({"inputs": [IMAGES], "parameters": []}, "invalid_request"),
    "parameters of an input null": (
        {"inputs": [{**IMAGES, "parameters": None}]},
        "invalid_request",
    ),
    "parameters that differ": (
        {"inputs": [{**IMAGES, "parameters": {"top_k": 1}}], "parameters": {"top_k": 2}},
        "conflicting_options",
    ),
    "unknown option": (
        {"inputs": [IMAGES, tensor("alhpa", "FP32", [1.0])]},
        "unknown_option",
    ),
    "unknown key": ({"inputs": [IMAGES], "instances": []}, "invalid_request"),
    "options beside": ({"inputs": [IMAGES], "top_k": 1}, "invalid_request"),
    "id number": ({"inputs": [IMAGES], "id": 7}, "invalid_request"),
    "id null": ({"inputs": [IMAGES], "id": None}, "invalid_request"),
    "outputs text": ({"inputs": [IMAGES], "outputs": "map"}, "invalid_request"),
    "outputs null": ({"inputs": [IMAGES], "outputs": None}, "invalid_request"),
    "outputs names": ({"inputs": [IMAGES], "outputs": ["map"]}, "invalid_request"),
    "output without a name": ({"inputs": [IMAGES], "outputs": [{}]}, "invalid_request"),
    "output name no text": ({"inputs": [IMAGES], "outputs": [{"name": 1}]}, "invalid_request"),
    "unknown output": ({"inputs": [IMAGES], "outputs": [{"name": "maps"}]}, "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize("headers", [HTTP, GRPC], ids=["http", "grpc"])
@pytest.mark.parametrize(("body", "code"), V2_INVALID.values(), ids=V2_INVALID)
def test_an_invalid_v2_body_is_rejected_as_a_whole(
    body: dict[str, Any], code: str, headers: dict[str, str]
) -> None:
    parsed = parse(body, headers)
    assert photos_or_codes(parsed) == code
    assert isinstance(parsed.reply_format, KServeV2)


@pytest.mark.parametrize("changes", [{"shape": [1] * 4}, {"data": [[[[B64]]]]}])
def test_v2_tensors_may_have_four_axes(changes: dict[str, Any]) -> None:
    """Five are rejected: ``V2_INVALID``."""
    body = {"inputs": [{**tensor("image", "BYTES", [B64]), **changes}]}
    assert photos_or_codes(parse(body)) == [photo()]


def test_a_v2_input_in_shared_memory_is_rejected_in_these_words() -> None:
    region = {"shared_memory_region": "photos", "shared_memory_byte_size": 100}
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": region}
    error = rejection(parse({"inputs": [image]}))
    assert error.code == "invalid_request"
    assert "shared memory, which this server has not" in error.message


def test_a_v2_body_without_inputs_is_rejected_over_grpc() -> None:
    parsed = parse({"id": "7", "model_name": "m"}, GRPC)
    assert parsed.reply_format == KServeV2("7", from_grpc=True)
    assert photos_or_codes(parsed) == "invalid_request"


def test_an_unknown_v2_output_is_named_with_the_accepted_ones() -> None:
    error = rejection(parse({"inputs": [IMAGES], "outputs": [{"name": "overlai"}]}))
    assert "'overlai'; did you mean 'overlay'? accepted: " in error.message


def test_a_conflict_between_the_header_and_v2_parameters_is_rejected() -> None:
    body = {"inputs": [IMAGES], "parameters": {"top_k": 2}}
    assert (
        photos_or_codes(parse(body, HTTP | {"x-explain": '{"top_k": 1}'})) == "conflicting_options"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [IMAGES, {**IMAGES, "name": "x" * 1_000_000}]},
        {"inputs": [{**IMAGES, "name": "x" * 1_000_000, "shape": [7]}]},
        {"inputs": [{**IMAGES, "shape": [1] * 1_000_000}]},
        {"inputs": [{**IMAGES, "shape": [9] * 10_000}]},
        {"inputs": [IMAGES], "id": [1] * 1_000_000},
        {"inputs": [IMAGES], "outputs": [{"name": "x" * 1_000_000}]},
        {"inputs": [IMAGES], "x" * 1_000_000: 1},
        {"instances": [B64], "x" * 1_000_000: 1},
    ],
)
def test_the_message_stays_short_for_a_huge_body(body: dict[str, Any]) -> None:
    assert len(rejection(parse(body)).message) < 500


# Requested output tensors


@pytest.mark.parametrize(
    ("requested", "changes", "outputs"),
    [
        (["mask"], {}, ("mask",)),
        (["label", "map", "boxes"], {}, ("map", "boxes")),
        (["label"], {}, ("heatmap", "overlay")),
        ([], {}, ("heatmap", "overlay")),
        (["mask"], {"parameters": {"outputs": "map,mask"}}, ("map", "mask")),
        (["mask"], {"inputs": inputs_of([B64], outputs="map")}, ("map",)),
    ],
)
def test_a_requested_output_tensor_requests_its_output(
    requested: list[str], changes: dict[str, Any], outputs: tuple[str, ...]
) -> None:
    names = [{"name": name} for name in requested]
    body = {"inputs": inputs_of([B64]), "outputs": names, **changes}
    assert photos_or_codes(parse(body)) == [photo(outputs=outputs)]


def test_a_v2_id_that_cannot_be_encoded_is_rejected() -> None:
    parsed = parse({"id": "\ud800", "inputs": [IMAGES]})
    assert photos_or_codes(parsed) == "invalid_request"
    assert json.loads(parsed.reply_format.error_reply(rejection(parsed), MODEL).body)["error"]


# The input of photos

NAMES = ("image", "bytes", "INPUT__0", "input-0", "4be4e82e-5500-420a-a5c5-ac86841e271b")


@pytest.mark.parametrize("headers", [HTTP, GRPC], ids=["http", "grpc"])
@pytest.mark.parametrize("name", NAMES)
def test_the_only_input_that_is_no_option_holds_the_photos(
    name: str, headers: dict[str, str]
) -> None:
    photos = {**IMAGES, "name": name, "shape": [-1]}
    body = {"inputs": [tensor("top_k", "INT64", [2]), photos]}
    assert photos_or_codes(parse(body, headers)) == [photo(top_k=2), photo(OTHER, top_k=2)]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("image", "image2"), "unknown_option"),
        (("photo", "picture"), "unknown_option"),
        (("photo", "photo"), "invalid_request"),
        (("target",), "missing_image"),
    ],
)
def test_several_inputs_of_photos_are_rejected(names: tuple[str, ...], code: str) -> None:
    body = {"inputs": [tensor(name, "BYTES", [B64]) for name in names]}
    assert photos_or_codes(parse(body)) == code


OPEN_SHAPES: list[tuple[list[int] | None, list[Any]]] = [
    ([2], [B64, OTHER64]),
    ([-1], [B64, OTHER64]),
    ([2, 1], [B64, OTHER64]),
    ([-1, 1], [B64, OTHER64]),
    ([1, -1], [B64, OTHER64]),
    ([2, -1], [B64, OTHER64]),
    ([1, 2], [B64, OTHER64]),
    (None, [B64, OTHER64]),
    ([-1, -1], [[B64], [OTHER64]]),
    (None, [[B64], [OTHER64]]),
]


@pytest.mark.parametrize("headers", [HTTP, GRPC], ids=["http", "grpc"])
@pytest.mark.parametrize(("shape", "data"), OPEN_SHAPES)
def test_a_shape_may_leave_lengths_open_or_be_left_out(
    shape: list[int] | None, data: list[Any], headers: dict[str, str]
) -> None:
    images = {"name": "image", "datatype": "BYTES", "data": data}
    images |= {} if shape is None else {"shape": shape}
    assert photos_or_codes(parse({"inputs": [images]}, headers)) == [photo(), photo(OTHER)]


@pytest.mark.parametrize("shape", [[-1, -1], [-1, 3], [0, -1], [-2], [3], [-1, 5, -1]])
def test_a_shape_that_the_data_do_not_complete_is_rejected(shape: list[int]) -> None:
    error = rejection(parse({"inputs": [{**IMAGES, "shape": shape}]}))
    assert error.code == "invalid_request"
    assert "'image' has the shape" in error.message


def test_what_grpc_loses_is_said_over_grpc_alone() -> None:
    body = {"inputs": [{**IMAGES, "shape": [3]}]}
    assert "raw_input_contents" in rejection(parse(body, GRPC)).message
    assert "raw_input_contents" not in rejection(parse(body)).message


# Without an early check, each of these held the worker for longer than the response timeout.
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"inputs": [{**IMAGES, "shape": [1] * 9_000}]}, "invalid_request"),
        ({"inputs": [{**IMAGES, "shape": [1] * 100_000}]}, "json_too_large"),
        ({"inputs": [tensor("image", "BYTES", [B64] * 9_000)]}, "too_many_instances"),
        ({"inputs": [tensor("image", "BYTES", [B64] * 9**6)]}, "json_too_large"),
        (
            {"inputs": [IMAGES, *(tensor(f"x{n}", "FP32", [1.0]) for n in range(1_000))]},
            "unknown_option",
        ),
        ({"instances": ["QQ=="] * 40}, "too_many_instances"),
    ],
)  # fmt: skip
def test_a_body_that_would_take_long_is_rejected_early(body: dict[str, Any], code: str) -> None:
    assert photos_or_codes(parse(body)) == code


@pytest.mark.parametrize(
    "options",
    [
        {"target": [{}] * 9_000},
        {"outputs": ["map"] * 257},
        {"layer": ",".join(["layer4.2"] * 257)},
    ],
)
def test_a_list_that_would_take_long_is_rejected_before_it_is_validated(
    options: dict[str, Any],
) -> None:
    parsed = parse({"instances": [B64] * 3, "parameters": options})
    assert photos_or_codes(parsed) == ["invalid_option"] * 3


@pytest.mark.parametrize("outputs", ["mask", ["mask"], "map"])
def test_outputs_in_the_header_override_those_of_requested_tensors(
    outputs: str | list[str],
) -> None:
    body = {"inputs": inputs_of([B64]), "outputs": [{"name": "mask"}]}
    parsed = parse(body, HTTP | {"x-explain": json.dumps({"outputs": outputs})})
    expected = tuple(outputs) if isinstance(outputs, list) else (outputs,)
    assert photos_or_codes(parsed) == [photo(outputs=expected)]


def test_a_json_body_of_neither_protocol_is_plain() -> None:
    parsed = parse({"image": B64})
    assert isinstance(parsed.reply_format, PlainProtocol)
    assert photos_or_codes(parsed) == [photo()]
