"""KServe's protocols, both ways: a body's photos and options, and the answers' bodies."""

from __future__ import annotations

import base64
import json

import pytest

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols.kserve_v1 import KServeV1
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.parsing import (
    ImageRequest,
    IncomingRequest,
    detect_protocol,
    parse_request,
)
from camserve.protocols.plain import PlainProtocol
from camserve.settings import Limits, Settings
from tests.support import contract
from tests.support.contract import inputs_of, tensor

SETTINGS = Settings(layers=("layer3.5",), limits=Limits(instances=3))
PHOTO, OTHER = b"\xff\xd8\xff photo", b"\x89PNG other"
B64, OTHER64 = base64.b64encode(PHOTO).decode(), base64.b64encode(OTHER).decode()
HTTP = {"content-type": "application/json", "host": "localhost:8080"}
GRPC: dict[str, str] = {}
MODEL = {"name": "colours", "version": "1.0"}


def photo(image=PHOTO, **options):
    return ImageRequest(image, Options(**{"layer": (SETTINGS.layer,), **options}))


def text64(*texts):
    return [base64.b64encode(text.encode()).decode() for text in texts]


def read_body(body, headers=HTTP, force_explain=False, **beside):
    return parse_request(
        IncomingRequest({"body": body, **beside}, headers, force_explain=force_explain), SETTINGS
    )


def brief(request):
    """The instances, an error by its code."""
    if isinstance(request.instances, RequestError):
        return request.instances.code
    return [one.code if isinstance(one, RequestError) else one for one in request.instances]


# Which protocol a body is of


@pytest.mark.parametrize(
    ("body", "over_http", "explain", "expected"),
    [
        ({"instances": []}, True, False, KServeV1("predictions")),
        ({"instances": 1}, True, True, KServeV1("explanations")),
        ({"inputs": []}, True, False, KServeV2("")),
        ({"inputs": None, "id": "7"}, True, True, KServeV2("7")),
        ({"inputs": [], "instances": []}, True, False, KServeV2("")),
        ({"inputs": [], "id": 7}, True, False, KServeV2("")),
        ({"inputs": [], "outputs": [{"name": "map"}]}, True, False, KServeV2("", ("map",))),
        ({"inputs": [], "outputs": "map"}, True, False, KServeV2("")),
        # Over gRPC, TorchServe needs a v2 reply to whatever body it has parsed.
        ({"inputs": [], "id": "7"}, False, False, KServeV2("7", base64_text=True)),
        ({}, False, False, KServeV2("", base64_text=True)),
        ({"instances": []}, False, False, KServeV2("", base64_text=True)),
        ({"image": B64}, True, False, PlainProtocol()),
        ({}, True, False, PlainProtocol()),
        ([], True, False, PlainProtocol()),
        ("inputs", True, False, PlainProtocol()),
        (b'{"inputs": []}', True, False, PlainProtocol()),
        (b'{"inputs": []}', False, False, PlainProtocol()),
        (None, False, False, PlainProtocol()),
    ],
)
def test_the_protocol_of_a_body(body, over_http, explain, expected):
    headers = HTTP if over_http else GRPC
    request = IncomingRequest({"body": body}, headers, force_explain=explain)
    assert detect_protocol(request) == expected


# V1: what is understood

V1_GOOD = {
    "one": ({"instances": [{"image": {"b64": B64}}]}, [photo()]),
    "keys of a photo": (
        {"instances": [{"image": B64}, {"data": {"b64": B64}}, {"b64": OTHER64}]},
        [photo(), photo(), photo(OTHER)],
    ),
    "bare base64": ({"instances": [B64, OTHER64]}, [photo(), photo(OTHER)]),
    "own options": (
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
    "options of all": (
        {"instances": [B64, {"image": B64}], "parameters": {"alpha": 0.5, "outputs": "map"}},
        [photo(alpha=0.5, outputs=("map",))] * 2,
    ),
    "own before those of all": (
        {"instances": [{"image": B64, "top_k": 1}, B64], "parameters": {"top_k": 2, "alpha": 1}},
        [photo(top_k=1, alpha=1), photo(top_k=2, alpha=1)],
    ),
    "no parameters": ({"instances": [B64], "parameters": {}}, [photo()]),
    "as many as may be": ({"instances": [B64] * 3}, [photo()] * 3),
    "one bad among good": (
        {
            "instances": [
                {"image": "@"},
                B64,
                {"image": B64, "alpha": 2},
            ]
        },
        ["invalid_base64", photo(), "invalid_option"],
    ),
    "bad, whatever it is": (
        {"instances": [None, 7, [B64]]},
        ["invalid_request", "invalid_request", "invalid_request"],
    ),
    "bad options": (
        {"instances": [{"image": B64, "alhpa": 1}, {"target": 1}, {"image": B64, "b64": B64}]},
        ["unknown_option", "missing_image", "invalid_request"],
    ),
    "bad options of all": (
        {"instances": [B64, {"image": B64, "alpha": 1}], "parameters": {"alpha": 2}},
        ["invalid_option", photo(alpha=1)],
    ),
    "nothing in them": ({"instances": [{}, ""]}, ["missing_image", "missing_image"]),
    "not served": (
        {"instances": [{"image": B64, "layer": "layer1"}, B64]},
        ["invalid_option", photo()],
    ),
}


@pytest.mark.parametrize(("body", "expected"), V1_GOOD.values(), ids=V1_GOOD)
def test_v1_photos_and_their_options(body, expected):
    request = read_body(body)
    assert request.reply_format == KServeV1("predictions")
    assert brief(request) == expected


def test_v1_leaves_the_body_as_it_was():
    body = {"instances": [{"image": B64, "top_k": 1}], "parameters": {"alpha": 1}}
    before = json.dumps(body)
    read_body(body)
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    ("headers", "beside", "common"),
    [
        ({"x-explain": '{"top_k": 2}'}, {}, {}),
        ({}, {"top_k": b"2"}, {}),
        ({}, {}, {"top_k": 2}),
        ({"x-explain": '{"top_k": 2}'}, {"model_name": b"m"}, {"top_k": 2}),
    ],
)
def test_v1_options_beside_the_body_are_those_of_all(headers, beside, common):
    body = {"instances": [B64, {"image": B64, "top_k": 1}], "parameters": common}
    request = read_body(body, HTTP | headers, **beside)
    assert brief(request) == [photo(top_k=2), photo(top_k=1)]


def test_v1_options_in_the_url_are_those_of_all():
    row = IncomingRequest({"body": {"instances": [B64]}}, HTTP, "target=red,blue,top_k=2")
    assert brief(parse_request(row, SETTINGS)) == [photo(target="red,blue", top_k=2)]


# V1: what is refused

V1_BAD = {
    "none": {"instances": []},
    "no list": {"instances": {"image": B64}},
    "text": {"instances": B64},
    "null": {"instances": None},
    "number": {"instances": 1},
    "unknown key": {"instances": [B64], "signature_name": "x"},
    "options beside": {"instances": [B64], "top_k": 1},
    "parameters null": {"instances": [B64], "parameters": None},
    "parameters list": {"instances": [B64], "parameters": [{"top_k": 1}]},
}


@pytest.mark.parametrize("body", V1_BAD.values(), ids=V1_BAD)
def test_v1_body_that_is_none_is_refused_whole(body):
    request = read_body(body)
    assert request.reply_format == KServeV1("predictions")
    assert brief(request) == "invalid_request"


def test_v1_unknown_key_is_named_with_what_is_accepted():
    message = read_body({"instances": [B64], "paramters": {}}).instances.message
    assert "'paramters'; did you mean 'parameters'? accepted: instances, parameters" in message


def test_v1_too_many_are_refused_whole():
    refusal = read_body({"instances": [B64] * 4}).instances
    assert refusal.code == "too_many_instances"
    assert "4 photos; accepted: up to 3" in refusal.message


@pytest.mark.parametrize(
    ("headers", "beside", "common"),
    [
        ({"x-explain": '{"top_k": 3}'}, {}, {"top_k": 2}),
        ({}, {"top_k": b"3"}, {"top_k": 2}),
        ({"x-explain": '{"top_k": 3}'}, {"top_k": b"2"}, {}),
    ],
)
def test_v1_options_of_all_in_two_places_must_agree(headers, beside, common):
    body = {"instances": [{"image": B64, "top_k": 1}], "parameters": common}
    assert brief(read_body(body, HTTP | headers, **beside)) == "conflicting_options"


# Calls for explanations


@pytest.mark.parametrize("operator", [True, False])
def test_v1_explain_explains(operator):
    settings = Settings(defaults=Options(explain=operator))
    body = {"instances": [B64, {"image": B64, "explain": True}, {"image": B64, "explain": False}]}
    request = parse_request(IncomingRequest({"body": body}, HTTP, force_explain=True), settings)
    assert request.reply_format == KServeV1("explanations")
    first, second, third = request.instances
    assert first.options.explain
    assert second.options.explain
    assert third.code == "conflicting_options"


def test_v2_explain_explains():
    settings = Settings(defaults=Options(explain=False))
    row = {"body": {"inputs": inputs_of([B64])}}
    (predict,) = parse_request(IncomingRequest(row, HTTP), settings).instances
    (explain,) = parse_request(IncomingRequest(row, HTTP, force_explain=True), settings).instances
    assert (predict.options.explain, explain.options.explain) == (False, True)


def test_v2_explain_refuses_to_go_without():
    body = {"inputs": inputs_of([B64], explain=False)}
    assert brief(read_body(body, force_explain=True)) == ["conflicting_options"]


# V2: what is understood

IMAGES = tensor("image", "BYTES", [B64, OTHER64])
V2_GOOD = {
    "one": ({"inputs": inputs_of([B64])}, [photo()]),
    "two": ({"inputs": [IMAGES]}, [photo(), photo(OTHER)]),
    "a scalar": ({"inputs": [{**tensor("image", "BYTES", [B64]), "shape": []}]}, [photo()]),
    "more axes": (
        {"inputs": [{**IMAGES, "shape": [2, 1], "data": [[B64], [OTHER64]]}]},
        [photo(), photo(OTHER)],
    ),
    "options of all": (
        {"inputs": [IMAGES, *inputs_of([], top_k=2, alpha=0.5, outputs=["map", "mask"])[1:]]},
        [photo(image, top_k=2, alpha=0.5, outputs=("map", "mask")) for image in (PHOTO, OTHER)],
    ),
    "options of each": (
        {
            "inputs": [
                IMAGES,
                tensor("target", "BYTES", ["red", '["blue", "red"]']),
                tensor("top_k", "INT64", [1, 2]),
            ]
        },
        [photo(target="red", top_k=1), photo(OTHER, target=("blue", "red"), top_k=2)],
    ),
    "options of each, in columns": (
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
    "parameters twice alike": (
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
    "texts of one JSON body are plain": (
        {"inputs": [*inputs_of([B64], target="cmVk")]},
        [photo(target="cmVk")],
    ),
    "one bad among good": (
        {"inputs": [tensor("image", "BYTES", [B64, "@"]), tensor("alpha", "FP32", [1.0])]},
        [photo(alpha=1), "invalid_base64"],
    ),
    "bad options of one": (
        {"inputs": [IMAGES, tensor("alpha", "FP32", [2.0, 0.5])]},
        ["invalid_option", photo(OTHER, alpha=0.5)],
    ),
    "unknown option": (
        {"inputs": [IMAGES, tensor("alhpa", "FP32", [1.0])]},
        "unknown_option",
    ),
    "photos that are none": (
        {"inputs": [tensor("image", "INT64", [1, None, ""])]},
        ["invalid_request", "invalid_request", "missing_image"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), V2_GOOD.values(), ids=V2_GOOD)
def test_v2_photos_and_their_options(body, expected):
    request = read_body(body)
    assert request.reply_format == KServeV2(body.get("id", ""))
    assert brief(request) == expected


def test_v2_leaves_the_body_as_it_was():
    body = {
        "inputs": [{**IMAGES, "parameters": {"top_k": 2}}, tensor("alpha", "FP32", [1.0])],
        "parameters": {"target": "red"},
        "outputs": [{"name": "mask"}],
    }
    before = json.dumps(body)
    read_body(body)
    assert json.dumps(body) == before


def test_v2_options_beside_the_body_are_those_of_all():
    body = {"inputs": [IMAGES, tensor("top_k", "INT64", [1, 3])], "parameters": {"target": "red"}}
    request = read_body(body, HTTP | {"x-explain": '{"alpha": 1, "top_k": 2}'})
    assert brief(request) == [
        photo(alpha=1, top_k=1, target="red"),
        photo(OTHER, alpha=1, top_k=3, target="red"),
    ]


# Open Inference over gRPC: TorchServe hands BYTES on in base64, whatever they hold


def test_texts_over_grpc_are_in_base64():
    inputs = [
        IMAGES,
        tensor("target", "BYTES", text64("Häher", '["red", "top:2"]')),
        tensor("outputs", "BYTES", text64("map,boxes")),
        tensor("top_k", "INT64", [2]),
        tensor("explain", "BOOL", [True]),
    ]
    body = {"id": "", "model_name": "m", "inputs": inputs}
    request = read_body(body, GRPC)
    assert request.reply_format == KServeV2("", base64_text=True)
    common = {"top_k": 2, "outputs": ("map", "boxes")}
    assert brief(request) == [
        photo(target="Häher", **common),
        photo(OTHER, target=("red", "top:2"), **common),
    ]


def test_texts_over_http_are_not():
    inputs = inputs_of([B64], target=text64("red")[0])
    assert brief(read_body({"inputs": inputs})) == [photo(target=text64("red")[0])]


@pytest.mark.parametrize("element", ["red", "\xff", base64.b64encode(b"\xff").decode()])
def test_a_text_over_grpc_that_is_none_is_refused(element):
    body = {"inputs": [*inputs_of([B64]), tensor("target", "BYTES", [element])]}
    refusal = read_body(body, GRPC).instances
    assert refusal.code == "invalid_option"
    assert "'target'" in refusal.message


# V2: what is refused

V2_BAD = {
    "no list": ({"inputs": {"image": B64}}, "invalid_request"),
    "null": ({"inputs": None}, "invalid_request"),
    "none": ({"inputs": []}, "missing_image"),
    "options only": ({"inputs": inputs_of([], top_k=1)[1:]}, "missing_image"),
    "no photo": ({"inputs": [tensor("image", "BYTES", [])]}, "missing_image"),
    "input text": ({"inputs": [B64]}, "invalid_request"),
    "no name": ({"inputs": [{"shape": [1], "data": [B64]}]}, "invalid_request"),
    "name no text": ({"inputs": [{**IMAGES, "name": 1}]}, "invalid_request"),
    "no shape": ({"inputs": [{"name": "image", "data": [B64]}]}, "invalid_request"),
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
    "shape null": ({"inputs": [{**IMAGES, "shape": None}]}, "invalid_request"),
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
        {"inputs": [IMAGES, *inputs_of([], top_k=1)[1:], *inputs_of([], top_k=1)[1:]]},
        "invalid_request",
    ),
    "option of neither one nor each": (
        {"inputs": [tensor("image", "BYTES", [B64] * 3), tensor("top_k", "INT64", [1, 2])]},
        "invalid_request",
    ),
    "option of more": (
        {"inputs": [*inputs_of([B64]), tensor("top_k", "INT64", [1, 2])]},
        "invalid_request",
    ),
    "option of none": ({"inputs": [IMAGES, tensor("top_k", "INT64", [])]}, "invalid_request"),
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
@pytest.mark.parametrize(("body", "code"), V2_BAD.values(), ids=V2_BAD)
def test_v2_body_that_does_not_fit_together_is_refused_whole(body, code, headers):
    request = read_body(body, headers)
    assert brief(request) == code
    assert isinstance(request.reply_format, KServeV2)


@pytest.mark.parametrize("bound", [{"shape": [1] * 4}, {"data": [[[[B64]]]]}])
def test_v2_tensors_have_up_to_four_axes(bound):
    """Five are refused, see above."""
    body = {"inputs": [{**tensor("image", "BYTES", [B64]), **bound}]}
    assert brief(read_body(body)) == [photo()]


def test_v2_body_without_inputs_is_refused_over_grpc():
    request = read_body({"id": "7", "model_name": "m"}, GRPC)
    assert request.reply_format == KServeV2("7", base64_text=True)
    assert brief(request) == "invalid_request"


def test_v2_unknown_output_is_named_with_what_is_accepted():
    refusal = read_body({"inputs": [IMAGES], "outputs": [{"name": "overlai"}]}).instances
    assert "'overlai'; did you mean 'overlay'? accepted: " in refusal.message


def test_v2_conflict_between_header_and_parameters_is_refused():
    body = {"inputs": [IMAGES], "parameters": {"top_k": 2}}
    assert brief(read_body(body, HTTP | {"x-explain": '{"top_k": 1}'})) == "conflicting_options"


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{**IMAGES, "name": "x" * 1_000_000}]},
        {"inputs": [{**IMAGES, "shape": [1] * 1_000_000}]},
        {"inputs": [{**IMAGES, "shape": [9] * 10_000}]},
        {"inputs": [IMAGES], "id": [1] * 1_000_000},
        {"inputs": [IMAGES], "outputs": [{"name": "x" * 1_000_000}]},
        {"inputs": [IMAGES], "x" * 1_000_000: 1},
        {"instances": [B64], "x" * 1_000_000: 1},
    ],
)
def test_message_stays_short_for_a_huge_body(body):
    assert len(read_body(body).instances.message) < 500


# Wanted outputs


@pytest.mark.parametrize(
    ("wanted", "more", "drawn"),
    [
        (["mask"], {}, ("mask",)),
        (["label", "map", "boxes"], {}, ("map", "boxes")),
        (["label"], {}, ("heatmap", "overlay")),
        ([], {}, ("heatmap", "overlay")),
        (["mask"], {"parameters": {"outputs": "map,mask"}}, ("map", "mask")),
        (["mask"], {"inputs": inputs_of([B64], outputs="map")}, ("map",)),
    ],
)
def test_wanting_a_tensor_asks_for_what_it_shows(wanted, more, drawn):
    names = [{"name": name} for name in wanted]
    body = {"inputs": inputs_of([B64]), "outputs": names, **more}
    assert brief(read_body(body)) == [photo(outputs=drawn)]


# Replies

CAT = {"class_id": 1, "label": "cat", "probability": 0.75, "score": 2.5}
EXPLAINED = {
    **CAT,
    "method": "gradcam",
    "layer": "layer4.2",
    "evidence": True,
    "peak": 0.5,
    "map": {"shape": [1, 2], "values": [0.0, 1.0]},
}


def answer(*explanations):
    return {
        "model": MODEL,
        "image": {"width": 40, "height": 30, "orientation": 1, "seen": [5.0, 0.0, 35.0, 30.0]},
        "predictions": [CAT],
        "explanations": list(explanations),
    }


ANSWER = answer(EXPLAINED)
WRONG = RequestError("invalid_option", "option 'alpha': 2 is not accepted")
GREY = RequestError("unsupported_format", "the photo's format is not recognised")
WRONG_BODY = {"code": "invalid_option", "status": 400, "message": WRONG.message}
GREY_BODY = {"code": "unsupported_format", "status": 415, "message": GREY.message}


@pytest.mark.parametrize("key", ["predictions", "explanations"])
def test_v1_answers_are_one_object_each_errors_in_their_place(key):
    reply = KServeV1(key).reply([ANSWER, WRONG, answer()], MODEL)
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert json.loads(reply.body) == {key: [ANSWER, {"error": WRONG_BODY}, answer()]}


def test_v1_status_is_an_error_where_no_photo_is_answered():
    reply = KServeV1("predictions").reply([WRONG, GREY], MODEL)
    assert reply.status == 415
    assert json.loads(reply.body) == {"predictions": [{"error": WRONG_BODY}, {"error": GREY_BODY}]}


def test_v1_refusal_of_the_whole_is_the_plain_one():
    reply = KServeV1("explanations").error_reply(WRONG, MODEL)
    assert (reply.status, json.loads(reply.body)) == (400, {"error": WRONG_BODY})


def test_v2_answer_is_its_tensors():
    reply = KServeV2("seven").reply([ANSWER, answer()], MODEL)
    assert (reply.status, reply.content_type) == (200, "application/json")
    body = json.loads(reply.body)
    assert list(body) == ["id", "model_name", "model_version", "outputs"]
    assert (body["id"], body["model_name"], body["model_version"]) == ("seven", "colours", "1.0")
    assert contract.outcomes(body, "v2") == [ANSWER, answer()]


@pytest.mark.parametrize("id", ["", "7", "Häher 鳥", 'a "quoted" \\ one', "x" * 100_000])
def test_v2_id_is_echoed(id):
    for reply in (KServeV2(id).reply([ANSWER], MODEL), KServeV2(id).error_reply(WRONG, MODEL)):
        assert json.loads(reply.body)["id"] == id


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ((), {"size", "orientation", "seen", "class_id", "label", "probability", "score",
              "explained_class_id", "explained_label", "explained_probability", "explained_score",
              "method", "layer", "evidence", "peak", "map"}),
        (("label",), {"label"}),
        (("map", "label", "label"), {"map", "label"}),
        (("mask",), set()),
        (("error",), set()),
    ],
)  # fmt: skip
def test_v2_sends_what_is_wanted(wanted, names):
    body = json.loads(KServeV2("", wanted).reply([ANSWER], MODEL).body)
    assert {one["name"] for one in body["outputs"]} == names


def test_v2_error_is_a_tensor_in_its_place_whatever_is_wanted():
    body = json.loads(KServeV2("", ("label",)).reply([WRONG, ANSWER, GREY], MODEL).body)
    found = contract.arrays(body)
    assert found.keys() == {"label", "error"}
    assert found["label"].tolist() == [[""], ["cat"], [""]]
    first, second, third = found["error"]
    assert (json.loads(first), second, json.loads(third)) == (WRONG_BODY, "", GREY_BODY)
    assert "error" not in body
    assert contract.replies_in(
        json.loads(KServeV2("").reply([WRONG, ANSWER, GREY], MODEL).body)
    ) == [
        {"error": WRONG_BODY},
        ANSWER,
        {"error": GREY_BODY},
    ]


def test_v2_status_is_an_error_where_no_photo_is_answered():
    reply = KServeV2("").reply([WRONG, GREY], MODEL)
    assert reply.status == 415
    body = json.loads(reply.body)
    assert contract.outcomes(body, "v2") == [{"error": WRONG_BODY}, {"error": GREY_BODY}]
    assert "error" not in body


@pytest.mark.parametrize("wanted", [(), ("label",)])
@pytest.mark.parametrize("over", ["reply", "refused"])
def test_v2_refusal_is_whole_v2_and_says_it_where_http_looks_for_it(over, wanted):
    protocol = KServeV2("seven", wanted)
    reply = (
        protocol.error_reply(WRONG, MODEL) if over == "refused" else protocol.reply([WRONG], MODEL)
    )
    assert (reply.status, reply.content_type) == (400, "application/json")
    body = json.loads(reply.body)
    # TorchServe's gRPC side dies of an object that lacks any of these.
    assert {"id", "model_name", "model_version", "outputs"} < body.keys()
    assert body["error"] == WRONG_BODY
    assert contract.outcomes(body, "v2") == [{"error": WRONG_BODY}]


def test_v2_id_that_no_reply_can_carry_is_refused():
    request = read_body({"id": "\ud800", "inputs": [IMAGES]})
    assert brief(request) == "invalid_request"
    assert json.loads(request.reply_format.error_reply(request.instances, MODEL).body)["error"]


def test_v2_photo_under_another_name_is_told_so():
    body = {"inputs": [tensor("photo", "BYTES", [B64])]}
    for request in (read_body(body, GRPC), read_body(body)):
        assert brief(request) == "missing_image"
        assert 'an input "image"' in request.instances.message


# Before these were refused at once, each held the worker for longer than it may take to answer.
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
def test_a_body_that_would_take_long_is_refused_before_it_does(body, code):
    assert brief(read_body(body)) == code


@pytest.mark.parametrize(
    "options",
    [
        {"target": [{}] * 9_000},
        {"outputs": ["map"] * 257},
        {"layer": ",".join(["layer4.2"] * 257)},
    ],
)
def test_a_list_that_would_take_long_is_refused_before_it_is_checked(options):
    request = read_body({"instances": [B64] * 3, "parameters": options})
    assert brief(request) == ["invalid_option"] * 3


@pytest.mark.parametrize("asked", ["mask", ["mask"], "map"])
def test_v2_header_says_what_is_drawn_whatever_tensors_are_wanted(asked):
    body = {"inputs": inputs_of([B64]), "outputs": [{"name": "mask"}]}
    request = read_body(body, HTTP | {"x-explain": json.dumps({"outputs": asked})})
    drawn = tuple(asked) if isinstance(asked, list) else (asked,)
    assert brief(request) == [photo(outputs=drawn)]


def test_plain_is_what_neither_is():
    request = read_body({"image": B64})
    assert isinstance(request.reply_format, PlainProtocol)
    assert brief(request) == [photo()]
