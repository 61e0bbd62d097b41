"""The Open Inference front before a real server: every path and call, tokens, errors and limits."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from camserve.protocols.output_tensors import OUTPUT_METADATA
from camserve_cli.open_inference import open_inference_pb2 as pb
from tests.support import color_resnet
from tests.support.open_inference import (
    LARGE_MESSAGES,
    SERVICE,
    Front,
    binary_body,
    code_of,
    front_before,
    raw_bytes,
    raw_request,
)
from tests.support.scripts import COLOR_MODEL, IMAGENET
from tests.support.server_client import Client

RED = color_resnet.png(color_resnet.photo(("red", (160, 120), 60)))
BLUE = color_resnet.png(color_resnet.photo(("blue", (160, 120), 60)))
INFER = f"/v2/models/{COLOR_MODEL}/infer"
V1 = f"/v1/models/{COLOR_MODEL}"


@pytest.fixture(scope="module")
def front(server: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A front with its own limits. Its log tells of no defect, and of nothing that is sent."""
    folder = tmp_path_factory.mktemp("front")
    with front_before(server.ports, server.token, folder) as front:
        yield front
    log = (folder / "front.log").read_text()
    assert {json.loads(line)["level"] for line in log.splitlines()} == {"INFO"}
    assert front.token not in log


def labels(reply: pb.ModelInferResponse) -> list[str]:
    """The best class of each photo, of a reply with typed contents."""
    (tensor,) = [output for output in reply.outputs if output.name == "label"]
    count = tensor.shape[1]
    return [label.decode() for label in tensor.contents.bytes_contents[::count]]


def raw_tensor(reply: pb.ModelInferResponse, name: str) -> bytes:
    """The elements of an output, of a reply with raw contents."""
    names = [output.name for output in reply.outputs]
    return bytes(reply.raw_output_contents[names.index(name)])


def text_error(reply: httpx.Response) -> str:
    """The code of an error of KServe v2, whose text and object agree."""
    assert reply.headers["content-type"] == "application/json"
    told = reply.json()
    assert told["error"] == told["error_detail"]["message"]
    assert told["error_detail"]["status"] == reply.status_code
    return str(told["error_detail"]["code"])


# Health


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/", {"status": "alive"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        (f"/v2/models/{COLOR_MODEL}/ready", {"name": COLOR_MODEL, "ready": True}),
        (f"/v2/models/{COLOR_MODEL}/versions/1.0/ready", {"name": COLOR_MODEL, "ready": True}),
        (V1, {"name": COLOR_MODEL, "ready": True}),
    ],
)
def test_health_needs_no_token(front: Front, path: str, told: dict[str, Any]) -> None:
    reply = httpx.get(str(front.http.base_url.join(path)))
    assert (reply.status_code, reply.json()) == (200, told)
    assert reply.headers["content-type"] == "application/json"


def test_health_over_grpc_needs_no_token(front: Front) -> None:
    assert front.call("ServerLive", pb.ServerLiveRequest(), metadata=[]).live
    assert front.call("ServerReady", pb.ServerReadyRequest(), metadata=[]).ready
    for version in ("", "1.0"):
        request = pb.ModelReadyRequest(name=COLOR_MODEL, version=version)
        assert front.call("ModelReady", request, metadata=[]).ready
    with grpc.insecure_channel(front.address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "inference.GRPCInferenceService"):
            reply = check(health_pb2.HealthCheckRequest(service=service), timeout=30)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_names_the_services(front: Front) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(front.address) as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (reply,) = call(iter([request]), timeout=30)
    names = {service.name for service in reply.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize(
    "path", ["/v2/models/nobody/ready", f"/v2/models/{COLOR_MODEL}/versions/9"]
)
def test_an_unknown_model_is_not_found(front: Front, path: str) -> None:
    assert text_error(front.http.get(path)) == "not_found"
    request = pb.ModelReadyRequest(name="nobody")
    assert front.refusal("ModelReady", request) == ("NOT_FOUND", "not_found")


# Metadata


def test_metadata_is_the_same_over_both(front: Front) -> None:
    told = front.http.get(f"/v2/models/{COLOR_MODEL}").raise_for_status().json()
    assert told == front.http.get(f"/v2/models/{COLOR_MODEL}/versions/1.0").json()
    assert (told["name"], told["versions"]) == (COLOR_MODEL, ["1.0"])
    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    reply = front.call("ModelMetadata", pb.ModelMetadataRequest(name=COLOR_MODEL))
    assert [(one.name, one.datatype, list(one.shape)) for one in reply.outputs] == [
        (one["name"], one["datatype"], one["shape"]) for one in told["outputs"]
    ]
    for path in ("/v2/models", "/v1/models"):
        assert sorted(front.http.get(path).json()["models"]) == [COLOR_MODEL, IMAGENET]
    server = front.http.get("/v2").json()
    grpc_server = front.call("ServerMetadata", pb.ServerMetadataRequest())
    assert (server["name"], server["version"]) == (grpc_server.name, grpc_server.version)
    assert server["extensions"] == list(grpc_server.extensions)


def test_a_replys_tensors_are_those_of_the_metadata(front: Front) -> None:
    request = raw_request(RED, b"junk")
    request.parameters["outputs"].string_param = '["heatmap", "overlay", "mask", "map", "boxes"]'
    reply = front.call("ModelInfer", request)
    assert {"map", "boxes", "error", "label"} <= {output.name for output in reply.outputs}
    for output in reply.outputs:
        datatype, shape = OUTPUT_METADATA[output.name]
        assert output.datatype == datatype
        assert len(output.shape) == len(shape)
        fixed = [
            (axis, length) for axis, length in zip(output.shape, shape, strict=True) if length > 0
        ]
        assert all(axis == length for axis, length in fixed)


# Predictions


def test_binary_tensors_over_http(front: Front) -> None:
    body, headers = binary_body(RED, BLUE, parameters={"binary_data_output": True, "top_k": 1})
    reply = front.http.post(INFER, content=body, headers=headers).raise_for_status()
    length = int(reply.headers["Inference-Header-Content-Length"])
    told = json.loads(reply.content[:length])
    sizes = [output["parameters"]["binary_data_size"] for output in told["outputs"]]
    assert length + sum(sizes) == len(reply.content)
    assert raw_bytes(b"red", b"blue") in reply.content[length:]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_who_asks_for_one_encoding_gets_it(front: Front, encoding: str) -> None:
    photo = base64.b64encode(RED).decode()
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [photo]}]}
    plain = front.http.post(INFER, json=body).raise_for_status()
    assert "content-encoding" not in plain.headers
    reply = front.http.post(INFER, json=body, headers={"Accept-Encoding": encoding})
    assert reply.headers["content-encoding"] == encoding
    assert reply.json()["outputs"] == plain.json()["outputs"]


def test_json_and_versions_over_http(front: Front) -> None:
    photo = base64.b64encode(RED).decode()
    body = {
        "id": "7",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [photo]}],
    }
    for path in (INFER, f"/v2/models/{COLOR_MODEL}/versions/1.0/infer"):
        reply = front.http.post(path, json=body).raise_for_status()
        assert reply.json()["id"] == "7"
    explained = front.http.post(f"/v2/models/{COLOR_MODEL}/explain", json=body).raise_for_status()
    assert "heatmap" in {output["name"] for output in explained.json()["outputs"]}


@pytest.mark.parametrize(("verb", "key"), [("predict", "predictions"), ("explain", "explanations")])
def test_v1_over_http(front: Front, verb: str, key: str) -> None:
    body = {"instances": [{"image": {"b64": base64.b64encode(BLUE).decode()}}]}
    # The query's options are those of all instances.
    reply = front.http.post(f"{V1}:{verb}?top_k=1", json=body).raise_for_status()
    (answer,) = reply.json()[key]
    assert [one["label"] for one in answer["predictions"]] == ["blue"]


def test_raw_contents_are_answered_raw(front: Front) -> None:
    request = raw_request(RED, BLUE, id="7")
    request.parameters["top_k"].int64_param = 1
    for name in ("label", "probability"):
        request.outputs.add(name=name)
    reply = front.call("ModelInfer", request)
    assert (reply.id, reply.model_name, reply.model_version) == ("7", COLOR_MODEL, "1.0")
    assert [output.name for output in reply.outputs] == ["label", "probability"]
    assert raw_tensor(reply, "label") == raw_bytes(b"red", b"blue")
    assert all(0 < share < 1 for share in struct.unpack("<2f", raw_tensor(reply, "probability")))


def test_typed_contents_are_answered_typed(front: Front) -> None:
    request = pb.ModelInferRequest(model_name=COLOR_MODEL, model_version="1.0")
    image = request.inputs.add(name="image", datatype="BYTES", shape=[2])
    image.contents.bytes_contents.extend([RED, BLUE])
    option = request.inputs.add(name="top_k", datatype="INT64", shape=[1])
    option.contents.int64_contents.append(2)
    reply = front.call("ModelInfer", request)
    assert labels(reply) == ["red", "blue"]
    assert not reply.raw_output_contents


def test_reserved_parameters_are_accepted(front: Front) -> None:
    request = raw_request(RED)
    request.parameters["sequence_id"].int64_param = 3
    request.parameters["sequence_start"].bool_param = True
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 30_000_000
    request.outputs.add(name="probability").parameters["classification"].int64_param = 1
    reply = front.call("ModelInfer", request)
    assert raw_tensor(reply, "probability").endswith(b":red")


# Errors


def test_a_photo_that_fails_has_its_error_in_its_place(front: Front) -> None:
    reply = front.call("ModelInfer", raw_request(RED, b"junk"))
    first, second = (
        struct.unpack("<I", raw_tensor(reply, "error")[:4])[0],
        raw_tensor(reply, "error")[8:],
    )
    assert first == 0
    assert json.loads(second)["code"] == "unsupported_format"


@pytest.mark.parametrize("photos", [[b"junk"], [b"junk", b"junk"]])
def test_no_photo_that_is_answered_is_an_error(front: Front, photos: list[bytes]) -> None:
    told = front.refusal("ModelInfer", raw_request(*photos))
    assert told == ("INVALID_ARGUMENT", "unsupported_format")
    body, headers = binary_body(*photos)
    reply = front.http.post(INFER, content=body, headers=headers)
    assert (reply.status_code, text_error(reply)) == (415, "unsupported_format")


def test_an_error_to_what_is_no_v2_is_a_text_on_v2_and_an_object_on_v1(front: Front) -> None:
    reply = front.http.post(INFER, json={"photo": 1})
    assert (reply.status_code, text_error(reply)) == (400, "missing_image")
    reply = front.http.post(f"{V1}:predict", json={"photo": 1})
    assert reply.json()["error"]["code"] == "missing_image"


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic dXNlcg=="])
def test_a_token_is_needed(front: Front, authorization: str) -> None:
    metadata = [("authorization", authorization)] if authorization else []
    for name, message in (
        ("ModelInfer", raw_request(RED)),
        ("ModelMetadata", pb.ModelMetadataRequest(name=COLOR_MODEL)),
        ("ServerMetadata", pb.ServerMetadataRequest()),
    ):
        told = front.refusal(name, message, metadata=metadata)
        assert told == ("UNAUTHENTICATED", "unauthorized")
    headers = {"Authorization": authorization} if authorization else {}
    with httpx.Client(base_url=front.http.base_url, headers=headers) as http:
        for reply in (http.post(INFER, json={}), http.get("/v2"), http.get("/v2/models")):
            assert (reply.status_code, text_error(reply)) == (401, "unauthorized")
            challenge = reply.headers["www-authenticate"]
            assert ("invalid_token" in challenge) == bool(authorization)


def test_a_tokens_scheme_has_no_case(front: Front) -> None:
    headers = {"Authorization": f"bearer  {front.token}"}
    assert front.http.get("/v2", headers=headers).status_code == 200
    metadata = [("authorization", f"BEARER {front.token}")]
    assert front.call("ModelInfer", raw_request(RED), metadata=metadata).outputs


def test_other_paths_and_methods(front: Front) -> None:
    assert text_error(front.http.get("/v2/nothing")) == "not_found"
    reply = front.http.get("/predictions/colours")
    assert reply.status_code == 404
    assert "/v2/models/M/infer" in reply.json()["error"]["message"]
    reply = front.http.get(INFER)
    assert (reply.status_code, text_error(reply)) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"
    with pytest.raises(grpc.RpcError) as caught, grpc.insecure_channel(front.address) as channel:
        channel.unary_unary(f"{SERVICE}RepositoryIndex")(b"", timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def _with(change: str) -> pb.ModelInferRequest | bytes:
    """A request that is broken in some way."""
    request = raw_request(RED)
    match change:
        case "raw and typed":
            request.inputs[0].contents.bytes_contents.append(RED)
        case "one raw content too many":
            request.raw_input_contents.append(b"")
        case "length beyond the end":
            request.raw_input_contents[0] = struct.pack("<I", 999999999) + RED
        case "half a length":
            request.raw_input_contents[0] += b"\x01"
        case "huge shape":
            request.inputs[0].shape[:] = [2**62, 2**62]
        case "negative shape":
            request.inputs[0].shape[:] = [-1]
        case "NaN":
            request.parameters["alpha"].double_param = float("nan")
        case "parameter without a value":
            request.parameters["alpha"].SetInParent()
        case "ten thousand tensors":
            for index in range(10_000):
                request.inputs.add(name=f"t{index}", datatype="INT64", shape=[1])
                request.raw_input_contents.append(bytes(8))
        case "shared memory":
            request.inputs[0].parameters["shared_memory_region"].string_param = "x"
        case "wrong field":
            del request.raw_input_contents[:]
            request.inputs[0].contents.int_contents.append(1)
        case "FP16 typed":
            del request.raw_input_contents[:]
            request.inputs[0].datatype = "FP16"
        case "out of range":
            del request.raw_input_contents[:]
            request.inputs.add(
                name="top_k", datatype="INT8", shape=[1]
            ).contents.int_contents.append(300)
        case "no UTF-8":
            # The id, with half a surrogate pair in it.
            return bytes([0x1A, 3, 0xED, 0xA0, 0x80, *request.SerializeToString()])
        case "no message":
            return b"\xff\xff\xff"
        case "truncated":
            return bytes(request.SerializeToString()[:-5])
        case "empty":
            return b""
    return request


@pytest.mark.parametrize(
    "change",
    [
        *("raw and typed", "one raw content too many", "length beyond the end", "half a length"),
        *("huge shape", "NaN", "parameter without a value", "shared memory"),
        *("ten thousand tensors", "wrong field", "FP16 typed", "out of range", "no UTF-8"),
        *("no message", "truncated"),
    ],
)
def test_a_broken_message_is_the_callers_fault(front: Front, change: str) -> None:
    status, code = front.refusal("ModelInfer", _with(change))
    assert status == "INVALID_ARGUMENT"
    assert code in ("invalid_request", "unknown_option", "json_too_large", "invalid_image")
    assert front.call("ModelInfer", raw_request(RED)).outputs


def test_an_empty_message_names_no_model(front: Front) -> None:
    assert front.refusal("ModelInfer", _with("empty")) == ("NOT_FOUND", "not_found")
    request = raw_request(RED, model="../ping")
    assert front.refusal("ModelInfer", request) == ("NOT_FOUND", "not_found")


def test_a_call_without_a_message(front: Front) -> None:
    with grpc.insecure_channel(front.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(f"{SERVICE}ModelInfer")(iter([]), metadata=front.metadata, timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_timeouts_of_the_caller(front: Front) -> None:
    request = raw_request(RED)
    request.parameters["timeout"].int64_param = 1000
    assert front.refusal("ModelInfer", request) == ("DEADLINE_EXCEEDED", "timed_out")
    body, headers = binary_body(RED, parameters={"timeout": 1000})
    reply = front.http.post(INFER, content=body, headers=headers)
    assert (reply.status_code, text_error(reply)) == (504, "timed_out")


# Limits


def test_what_is_too_large_is_refused(front: Front) -> None:
    pieces = [bytes(1_000_000)] * 29
    for length in ({"Content-Length": str(29_000_000)}, {}):
        reply = front.http.post(INFER, content=iter(pieces), headers=length)
        assert (reply.status_code, text_error(reply)) == (413, "request_too_large")
    status, _ = front.refusal("ModelInfer", raw_request(bytes(29_000_000)))
    assert status == "RESOURCE_EXHAUSTED"


def test_a_message_that_unpacks_to_much_more_takes_no_memory(front: Front) -> None:
    process = psutil.Process(front.pid)
    before = process.memory_info().rss
    bomb = raw_request(bytes(200_000_000)).SerializeToString()
    with (
        grpc.insecure_channel(front.address, LARGE_MESSAGES) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(f"{SERVICE}ModelInfer")(
            bomb, metadata=front.metadata, compression=grpc.Compression.Gzip, timeout=60
        )
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert process.memory_info().rss - before < 100e6


def test_a_full_queue_is_told_at_once(front: Front, server: Client, tmp_path: Path) -> None:
    options = {"max_active": 1, "max_waiting": 1}
    with front_before(server.ports, front.token, tmp_path, **options) as strict:
        host, port = strict.http.base_url.host, strict.http.base_url.port
        head = (
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\n"
            "Content-Length: 10\r\n\r\n"
        )
        slow = [socket.create_connection((host, port)) for _ in range(2)]
        for connection in slow:
            # It never sends its body.
            connection.sendall(head.encode())
            time.sleep(0.3)
        reply = strict.http.post(INFER, json={})
        assert (reply.status_code, text_error(reply)) == (503, "queue_full")
        told = strict.refusal("ModelInfer", raw_request(RED))
        assert told == ("RESOURCE_EXHAUSTED", "queue_full")
        for connection in slow:
            connection.close()
        assert strict.call("ModelInfer", raw_request(RED)).outputs


def test_slow_callers_are_cut_off(front: Front, server: Client, tmp_path: Path) -> None:
    limits = {"header_seconds": 1, "receive_seconds": 2, "silence_seconds": 1}
    with front_before(server.ports, front.token, tmp_path, **limits) as strict:
        host, port = strict.http.base_url.host, strict.http.base_url.port
        with socket.create_connection((host, port), timeout=30) as silent:
            silent.sendall(b"GET /v2 HTTP/1.1\r\nHost:")
            assert silent.recv(1000) in (b"",)
        with socket.create_connection((host, port), timeout=30) as slow:
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\n"
            slow.sendall(f"{head}Content-Length: 10\r\n\r\n12".encode())
            assert b" 408 " in slow.recv(1000)
        stop = threading.Event()

        def never() -> Iterator[bytes]:
            stop.wait(30)
            yield b""

        with grpc.insecure_channel(strict.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.stream_unary(f"{SERVICE}ModelInfer")(
                    never(), metadata=front.metadata, timeout=30
                )
            stop.set()
        assert code_of(caught.value) == "request_timeout"


def test_many_large_requests_stay_within_the_memory(
    front: Front, server: Client, tmp_path: Path
) -> None:
    """Each is 20 MB, of which the memory holds three."""
    limits = {"memory": 70_000_000, "max_reply": 10_000_000}
    with front_before(server.ports, front.token, tmp_path, **limits) as strict:
        photo = RED + bytes(20_000_000)
        outcomes: list[int] = []

        def send() -> None:
            body, headers = binary_body(photo)
            outcomes.append(strict.http.post(INFER, content=body, headers=headers).status_code)

        threads = [threading.Thread(target=send) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 10
        assert set(outcomes) <= {200, 400, 413}


def test_odd_http_is_the_callers_fault(front: Front) -> None:
    host, port = front.http.base_url.host, front.http.base_url.port
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    bearer = f"Authorization: Bearer {front.token}\r\n"
    for headers, status in (
        (f"{bearer}Expect: something\r\n", b" 417 "),
        ("Authorization: Bearer \xe9\r\n", b" 401 "),
        (f"{bearer}Authorization: Bearer other\r\n", b" 400 "),
        (f"{bearer}Transfer-Encoding: chunked\r\n", b" 400 "),
        (f"{bearer}X: {'x' * 20_000}\r\n", b" 400 "),
    ):
        with socket.create_connection((host, port), timeout=30) as connection:
            connection.sendall(f"{head}{headers}\r\n{{}}".encode("latin-1"))
            assert status in connection.recv(1000)
    # Callers that go away while they send take no place from others.
    for _ in range(70):
        with socket.create_connection((host, port), timeout=30) as connection:
            connection.sendall(f"{head}{bearer}\r\n{{".encode())
    assert front.call("ModelInfer", raw_request(RED)).outputs


def test_options_of_the_query_may_hold_any_character(front: Front) -> None:
    body = {"instances": [base64.b64encode(BLUE).decode()]}
    options = '{"target":\n"caf\u00e9\U0001f600\u0000"}'
    reply = front.http.post(f"{V1}:predict", json=body, params={"options": options})
    (answer,) = reply.json()["predictions"]
    assert answer["error"]["code"] == "unknown_class"
    assert "caf\u00e9\U0001f600" in answer["error"]["message"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_options_of_the_header_may_be_in_either_encoding(front: Front, encoding: str) -> None:
    """Python's http.client writes headers in Latin-1, most others in UTF-8."""
    headers = {b"X-Explain": '{"target": "é"}'.encode(encoding)}
    body = {"instances": [base64.b64encode(BLUE).decode()]}
    reply = front.http.post(f"{V1}:predict", json=body, headers=headers)
    (answer,) = reply.json()["predictions"]
    assert answer["error"]["code"] == "unknown_class"
    assert "'é'" in answer["error"]["message"]


def test_watchers_leave_places_for_others(front: Front) -> None:
    with grpc.insecure_channel(front.address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        watching = [watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(20)]
        states = [next(call).status for call in watching]
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(health_pb2.HealthCheckRequest(), timeout=60))
        assert code_of(refused.value) == "queue_full"
        assert front.call("ModelInfer", raw_request(RED)).outputs
        for call in watching:
            call.cancel()
    assert set(states) == {health_pb2.HealthCheckResponse.SERVING}


def test_a_call_that_needs_no_token_takes_a_small_message_alone(front: Front) -> None:
    with grpc.insecure_channel(front.address, LARGE_MESSAGES) as channel:
        ready = channel.unary_unary(f"{SERVICE}ServerReady")
        assert ready(b"", timeout=30) == pb.ServerReadyResponse(ready=True).SerializeToString()
        # A field that the message has not, of a megabyte.
        unknown = b"\x7a\x80\x80\x40" + bytes(2**20)
        with pytest.raises(grpc.RpcError) as refused:
            ready(unknown, timeout=30)
        assert code_of(refused.value) == "invalid_request"


def test_slow_messages_of_small_calls_have_places_of_their_own(front: Front) -> None:
    """Nobody who sends none keeps others from the server, or from its health for long."""
    stop = threading.Event()

    def never() -> Iterator[bytes]:
        stop.wait(30)
        yield b""

    with grpc.insecure_channel(front.address) as channel:
        call = channel.stream_unary(f"{SERVICE}ServerLive")
        slow = [call.future(never(), timeout=30) for _ in range(8)]
        time.sleep(0.5)
        assert front.call("ModelInfer", raw_request(RED)).outputs
        assert front.call("ServerLive", pb.ServerLiveRequest()).live
        codes = {code_of(one.exception()) for one in slow}
        stop.set()
    assert codes == {"request_timeout"}
