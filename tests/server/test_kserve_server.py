"""KServe and Open Inference through a real server: what is theirs alone; nothing kills it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import httpx
import open_inference_grpc_pb2 as oip
import pytest

from tests.support import color_resnet, contract
from tests.support.contract import inputs_of, tensor
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, infer_request
from tests.support.transport_matrix import together

RED = color_resnet.png(color_resnet.photo(("red", (160, 120), 60)))
BLUE = color_resnet.png(color_resnet.photo(("blue", (160, 120), 60)))
RED64, BLUE64 = base64.b64encode(RED).decode(), base64.b64encode(BLUE).decode()
PREDICT, EXPLAIN = f"/v1/models/{COLOR_MODEL}:predict", f"/v1/models/{COLOR_MODEL}:explain"
INFER = f"/v2/models/{COLOR_MODEL}/infer"
V2_EXPLAIN = f"/v2/models/{COLOR_MODEL}/explain"
MAP = {"outputs": "map"}


@pytest.fixture(autouse=True, scope="module")
def _the_worker_lives(server: Client) -> Iterator[None]:
    """Whatever these tests send, the worker answers the next call, and is the same one."""
    deaths = server.deaths()
    yield
    reply = server.infer(infer_request(COLOR_MODEL, inputs_of([BLUE], explain=False, top_k=1)))
    (outcome,) = contract.outcomes(reply, "v2")
    assert outcome["predictions"][0]["label"] == "blue"
    assert server.deaths() == deaths


@pytest.fixture(autouse=True)
def _nothing_kills_it(server: Client, _the_worker_lives: None) -> Iterator[None]:
    deaths = server.deaths()
    yield
    assert server.deaths() == deaths


def labels(outcomes: list[dict[str, Any]]) -> list[str]:
    """The best class of each answer, the code of each error."""
    return [
        one["error"]["code"] if "error" in one else one["predictions"][0]["label"]
        for one in outcomes
    ]


def post(server: Client, path: str, body: Any) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return server.http.post(path, content=json.dumps(body), headers=headers)


# Several photos


@pytest.mark.parametrize(("path", "key"), [(PREDICT, "predictions"), (EXPLAIN, "explanations")])
def test_v1_answers_every_instance_in_its_place(server: Client, path: str, key: str) -> None:
    junk = base64.b64encode(b"junk").decode()
    instances = [RED64, {"image": BLUE64, "target": "red"}, junk, {"image": RED64, "alpha": 9}]
    response = post(server, path, {"instances": instances, "parameters": MAP})
    assert response.status_code == 200
    assert response.json().keys() == {key}
    found = contract.outcomes(response.json(), "v1")
    assert labels(found) == ["red", "blue", "unsupported_format", "invalid_option"]
    assert [one["explanations"][0]["label"] for one in found[:2]] == ["red", "red"]


def test_more_photos_than_a_batch_come_in_order(server: Client) -> None:
    photos = [RED, BLUE, BLUE, RED, BLUE] * 2
    expected = ["red", "blue", "blue", "red", "blue"] * 2
    request = infer_request(COLOR_MODEL, inputs_of(photos, explain=False, top_k=1))
    assert labels(contract.outcomes(server.infer(request), "v2")) == expected
    instances = [base64.b64encode(photo).decode() for photo in photos]
    body = {"instances": instances, "parameters": {"explain": False, "top_k": 1}}
    found = contract.outcomes(post(server, PREDICT, body).json(), "v1")
    assert labels(found) == expected


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_v2_takes_options_for_all_and_for_each(server: Client, way: str) -> None:
    columns = [
        tensor("target", "BYTES", ["red", '["blue", "top:1"]']),
        tensor("top_k", "INT64", [1, 3]),
        tensor("outputs", "BYTES", ["map"]),
    ]
    if way == "http":
        image = tensor("image", "BYTES", [RED64, BLUE64])
        reply = post(server, INFER, {"id": "7", "inputs": [image, *columns]}).json()
    else:
        image = tensor("image", "BYTES", [RED, BLUE])
        reply = server.infer(infer_request(COLOR_MODEL, [image, *columns], id="7"))
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("7", COLOR_MODEL, "1.0")
    first, second = contract.outcomes(reply, "v2")
    assert [len(one["predictions"]) for one in (first, second)] == [1, 3]
    assert [one["label"] for one in first["explanations"]] == ["red"]
    assert [one["label"] for one in second["explanations"]] == ["blue", "blue"]


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_v2_errors_stand_in_their_place(server: Client, way: str) -> None:
    if way == "http":
        photos = [RED64, base64.b64encode(b"junk").decode(), BLUE64]
        response = post(server, INFER, {"inputs": inputs_of(photos, **MAP)})
        reply = response.raise_for_status().json()
    else:
        reply = server.infer(infer_request(COLOR_MODEL, inputs_of([RED, b"junk", BLUE], **MAP)))
    assert labels(contract.outcomes(reply, "v2")) == ["red", "unsupported_format", "blue"]


def test_the_status_is_an_error_where_every_photo_failed(server: Client) -> None:
    junk = base64.b64encode(b"junk").decode()
    body = {"instances": [junk, {"image": RED64, "alpha": 9}]}
    response = post(server, PREDICT, body)
    assert response.status_code == 415
    found = contract.outcomes(response.json(), "v1")
    assert labels(found) == ["unsupported_format", "invalid_option"]
    response = post(server, INFER, {"inputs": inputs_of([junk, junk])})
    assert response.status_code == 415
    assert labels(contract.outcomes(response.json(), "v2")) == ["unsupported_format"] * 2


# Wanted outputs


def test_v2_sends_the_tensors_that_are_wanted(server: Client) -> None:
    body = {"inputs": inputs_of([RED64]), "outputs": [{"name": "mask"}, {"name": "label"}]}
    found = contract.arrays(post(server, INFER, body).json())
    assert found.keys() == {"mask", "label"}
    assert found["label"][0, 0] == "red"
    assert contract.decoded({"b64": found["mask"][0, 0]}).shape == (224, 224, 3)


def test_open_inference_sends_all_tensors_whatever_is_wanted(server: Client) -> None:
    # TorchServe does not hand on what is wanted.
    request = infer_request(COLOR_MODEL, inputs_of([RED], **MAP))
    request.outputs.add(name="label")
    (outcome,) = contract.outcomes(server.infer(request), "v2")
    assert outcome["explanations"][0]["map"]["shape"] == [7, 7]


# Calls for explanations


@pytest.mark.parametrize("path", [EXPLAIN, V2_EXPLAIN])
def test_a_call_for_explanations_refuses_to_go_without(server: Client, path: str) -> None:
    if path == EXPLAIN:
        response = post(server, path, {"instances": [{"image": RED64, "explain": False}]})
        found = contract.outcomes(response.json(), "v1")
    else:
        response = post(server, path, {"inputs": inputs_of([RED64], explain=False)})
        found = contract.outcomes(response.json(), "v2")
    assert response.status_code == 400
    assert labels(found) == ["conflicting_options"]


# What is refused

HTTP_REFUSALS: dict[str, tuple[str, Any, int, str]] = {
    "v1, nothing": (PREDICT, {"instances": []}, 400, "invalid_request"),
    "v1, no list": (PREDICT, {"instances": RED64}, 400, "invalid_request"),
    "v1, unknown key": (PREDICT, {"instances": [RED64], "x": 1}, 400, "invalid_request"),
    "v1, too many": (PREDICT, {"instances": [RED64] * 33}, 413, "too_many_instances"),
    "v1, wrong option": (
        EXPLAIN, {"instances": [RED64], "parameters": {"alhpa": 1}}, 400, "unknown_option",
    ),
    "v1 path, plain body": (PREDICT, {"image": "@"}, 400, "invalid_base64"),
    "v1 path, empty body": (PREDICT, {}, 400, "missing_image"),
    "v2, nothing": (INFER, {"inputs": []}, 400, "missing_image"),
    "v2, no list": (INFER, {"inputs": None}, 400, "invalid_request"),
    "v2, unknown key": (INFER, {"inputs": inputs_of([RED64]), "x": 1}, 400, "invalid_request"),
    "v2, unknown output": (
        INFER, {"inputs": inputs_of([RED64]), "outputs": [{"name": "x"}]}, 400, "invalid_request",
    ),
    "v2, id no text": (INFER, {"inputs": inputs_of([RED64]), "id": 7}, 400, "invalid_request"),
    "v2, shape": (
        INFER, {"inputs": [{**inputs_of([RED64])[0], "shape": [2]}]}, 400, "invalid_request",
    ),
    "v2, too many": (INFER, {"inputs": inputs_of([RED64] * 33)}, 413, "too_many_instances"),
    "v2, unknown class": (
        INFER, {"inputs": inputs_of([RED64], target="pink")}, 400, "unknown_class",
    ),
    "v2, reply too large": (
        INFER, {"inputs": inputs_of([RED64], size=8192)}, 413, "reply_too_large",
    ),
    "v2 explain, junk": (
        V2_EXPLAIN, {"inputs": inputs_of([base64.b64encode(b"junk").decode()])},
        415, "unsupported_format",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(server: Client) -> dict[str, httpx.Response]:
    """What comes back, asked for together."""
    calls = [partial(post, server, path, body) for path, body, _, _ in HTTP_REFUSALS.values()]
    return dict(zip(HTTP_REFUSALS, together(calls), strict=True))


@pytest.mark.parametrize("name", HTTP_REFUSALS)
def test_a_refusal_has_its_protocols_form(name: str, refused: dict[str, httpx.Response]) -> None:
    _, body, status, code = HTTP_REFUSALS[name]
    protocol: contract.Protocol = (
        "v2" if "inputs" in body else "v1" if "instances" in body else "plain"
    )
    assert labels(contract.outcomes(refused[name].json(), protocol)) == [code]
    assert refused[name].status_code == status


def test_an_id_with_half_a_surrogate_pair_fails_alone(server: Client) -> None:
    response = post(server, INFER, {"id": "\ud800", "inputs": inputs_of([RED64])})
    assert response.status_code < 500


def raw_contents() -> oip.ModelInferRequest:
    request = infer_request(COLOR_MODEL, [tensor("image", "BYTES", [], 1)])
    request.raw_input_contents.append(len(RED).to_bytes(4, "little") + RED)
    return request


def ask(*inputs: dict[str, Any], **more: Any) -> oip.ModelInferRequest:
    return infer_request(COLOR_MODEL, inputs, **more)


OPEN_INFERENCE_REFUSALS: dict[str, tuple[oip.ModelInferRequest, str]] = {
    "no inputs": (ask(), "missing_image"),
    "no photo": (ask(tensor("image", "BYTES", [], 0)), "missing_image"),
    "no contents": (ask(tensor("image", "BYTES", [], 1)), "invalid_request"),
    "raw contents": (raw_contents(), "invalid_request"),
    "FP16": (ask(tensor("image", "FP16", [], 1)), "invalid_request"),
    "a datatype of fancy": (ask(tensor("image", "PNG", [], 1)), "invalid_request"),
    "photo as number": (ask(tensor("image", "INT64", [5])), "invalid_request"),
    "photo as boolean": (ask(tensor("image", "BOOL", [True])), "invalid_request"),
    "wrong shape": (ask(tensor("image", "BYTES", [RED], 2)), "invalid_request"),
    "negative shape": (ask(tensor("image", "BYTES", [RED], -2)), "invalid_request"),
    "twice": (ask(*inputs_of([RED]), *inputs_of([RED])), "invalid_request"),
    "unknown option": (ask(*inputs_of([RED], alhpa=1)), "unknown_option"),
    "option not UTF-8": (ask(*inputs_of([RED], target=b"\xff")), "invalid_option"),
    "option out of range": (ask(*inputs_of([RED], alpha=2.5)), "invalid_option"),
    "FP16 option": (ask(*inputs_of([RED]), tensor("alpha", "FP16", [], 1)), "invalid_request"),
    # TorchServe has it negative.
    "huge UINT64": (
        ask(*inputs_of([RED]), tensor("target", "UINT64", [2**64 - 1])), "invalid_option",
    ),
    "unknown class": (ask(*inputs_of([RED], target="pink")), "unknown_class"),
    "junk": (ask(*inputs_of([b"junk"])), "unsupported_format"),
    "nothing in it": (ask(*inputs_of([b""])), "missing_image"),
    "too many": (ask(*inputs_of([RED] * 33)), "too_many_instances"),
    "reply too large": (ask(*inputs_of([RED], size=8192)), "reply_too_large"),
}  # fmt: skip


@pytest.fixture(scope="module")
def refused_in_tensors(server: Client) -> dict[str, dict[str, Any]]:
    """What comes back, asked for together."""
    for request, _ in OPEN_INFERENCE_REFUSALS.values():
        request.id = "Häher 7"
    calls = [partial(server.infer, request) for request, _ in OPEN_INFERENCE_REFUSALS.values()]
    return dict(zip(OPEN_INFERENCE_REFUSALS, together(calls), strict=True))


@pytest.mark.parametrize("name", OPEN_INFERENCE_REFUSALS)
def test_open_inference_refuses_in_tensors(
    name: str, refused_in_tensors: dict[str, dict[str, Any]]
) -> None:
    reply = refused_in_tensors[name]
    assert reply["id"] == "Häher 7"
    assert labels(contract.outcomes(reply, "v2")) == [OPEN_INFERENCE_REFUSALS[name][1]]


def test_open_inference_of_a_photo_under_another_name(server: Client) -> None:
    reply = server.infer(ask(tensor("photo", "BYTES", [RED], -1)))
    assert labels(contract.outcomes(reply, "v2")) == ["red"]


def post_binary(server: Client, inputs: list[dict[str, Any]], *data: bytes) -> httpx.Response:
    """A request of v2 whose inputs stand behind the JSON, and ask for such outputs."""
    for one, content in zip(inputs, data, strict=True):
        one["parameters"] = {"binary_data_size": len(content)}
        del one["data"]
    body = {"inputs": inputs, "parameters": {"binary_data_output": True, "outputs": "map"}}
    text = json.dumps(body).encode()
    # Triton's client sends no content type.
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return server.http.post(INFER, content=text + b"".join(data), headers=headers)


def test_tensors_behind_the_json_both_ways(server: Client) -> None:
    photos = tensor("photo", "BYTES", [RED, BLUE])
    content = b"".join(len(one).to_bytes(4, "little") + one for one in (RED, BLUE))
    reply = post_binary(server, [photos], content)
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "application/octet-stream")
    rest, found = reply.content[length:], {}
    for one in json.loads(reply.content[:length])["outputs"]:
        size = one["parameters"]["binary_data_size"]
        found[one["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    assert found["class_id"][:8] + found["class_id"][40:48] == bytes(8) + b"\2" + bytes(7)
    assert len(found["map"]) == 2 * 7 * 7 * 4


def test_pixels_behind_the_json_and_their_errors(server: Client) -> None:
    pixels = color_resnet.photo(("blue", (160, 120), 60))
    asked = tensor("pixels", "UINT8", [], 1, *pixels.shape)
    reply = post_binary(server, [asked], pixels.tobytes())
    assert b"blue" in reply.content
    refused = post_binary(server, [tensor("pixels", "UINT8", [], 1, 9, 9, 3)], pixels.tobytes())
    body = refused.json()
    assert (refused.status_code, body["error_detail"]["code"]) == (400, "invalid_request")
    assert body["error"] == body["error_detail"]["message"]


@pytest.mark.parametrize(
    ("name", "version"),
    [("nope", ""), ("", ""), (COLOR_MODEL, "9.9")],
    ids=["name", "none", "version"],
)
def test_open_inference_of_a_model_that_is_not_served(
    server: Client, name: str, version: str
) -> None:
    request = infer_request(name, inputs_of([RED]), model_version=version)
    with pytest.raises(grpc.RpcError) as refusal:
        server.infer(request)
    assert refusal.value.code() == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_open_inference_of_what_torchserves_json_cannot_hold(server: Client, value: float) -> None:
    with pytest.raises(grpc.RpcError):
        server.infer(ask(*inputs_of([RED], alpha=value)))


# What TorchServe itself answers


def test_open_inference_says_that_server_and_model_are_ready(server: Client) -> None:
    stub, call = server.open_inference, {"metadata": server.metadata, "timeout": 10}
    assert stub.ServerLive(oip.ServerLiveRequest(), **call).live
    assert stub.ServerReady(oip.ServerReadyRequest(), **call).ready
    assert stub.ModelReady(oip.ModelReadyRequest(name=COLOR_MODEL), **call).ready
    assert server.http.get("/v2/health/ready").json() == {"ready": True}


def test_a_version_in_the_path_of_v2_is_not_served(server: Client) -> None:
    path = f"/v2/models/{COLOR_MODEL}/versions/1.0/infer"
    assert post(server, path, {"inputs": inputs_of([RED64])}).status_code == 501
