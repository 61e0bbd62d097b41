"""ModelInferRequest and the HTTP body: what becomes of contents, parameters and outputs."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from camserve_cli.open_inference import messages
from camserve_cli.open_inference import open_inference_pb2 as pb
from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.host import HostReply


def parts(request: pb.ModelInferRequest) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request's body, and what stands behind it."""
    translated = messages.translate_request(request.SerializeToString())
    head = json.loads(translated.body[: translated.json_length])
    return head, translated.body[translated.json_length :]


def typed(datatype: str, field: str, *elements: Any) -> pb.ModelInferRequest:
    """A request with one tensor of typed contents."""
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[len(elements)])
    getattr(tensor.contents, field).extend(elements)
    return request


@pytest.mark.parametrize(
    ("datatype", "field", "elements", "raw"),
    [
        ("BYTES", "bytes_contents", [b"ab", b""], b"\2\0\0\0ab\0\0\0\0"),
        ("BOOL", "bool_contents", [True, False], b"\1\0"),
        ("INT8", "int_contents", [-1, 127], b"\xff\x7f"),
        ("INT16", "int_contents", [-2], b"\xfe\xff"),
        ("INT32", "int_contents", [1], b"\1\0\0\0"),
        ("INT64", "int64_contents", [-1], b"\xff" * 8),
        ("UINT8", "uint_contents", [255], b"\xff"),
        ("UINT16", "uint_contents", [256], b"\0\1"),
        ("UINT32", "uint_contents", [2**32 - 1], b"\xff" * 4),
        ("UINT64", "uint64_contents", [2**64 - 1], b"\xff" * 8),
        ("FP32", "fp32_contents", [1.5], struct.pack("<f", 1.5)),
        ("FP64", "fp64_contents", [1.5], struct.pack("<d", 1.5)),
        ("FP32", "fp32_contents", [], b""),
    ],
)
def test_typed_contents_and_raw_ones_are_the_same_elements(
    datatype: str, field: str, elements: list[Any], raw: bytes
) -> None:
    head, behind = parts(typed(datatype, field, *elements))
    assert behind == raw
    (tensor,) = head["inputs"]
    assert tensor == {
        "name": "x",
        "datatype": datatype,
        "shape": [len(elements)],
        "parameters": {"binary_data_size": len(raw)},
    }
    # And back, in the reply.
    output = {**tensor, "parameters": {"binary_data_size": len(raw)}}
    reply = messages.translate_reply(reply_of([output], raw), is_raw=False)
    assert list(getattr(reply.outputs[0].contents, field)) == elements
    assert not reply.raw_output_contents


def reply_of(outputs: list[dict[str, Any]], raw: bytes, **more: Any) -> HostReply:
    head = json.dumps({"id": "7", "model_name": "m", "outputs": outputs, **more}).encode()
    return HostReply(head + raw, "application/octet-stream", len(head))


def test_raw_contents_go_behind_the_json_in_their_order() -> None:
    request = pb.ModelInferRequest(model_name="m", model_version="2", id="7")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP16", shape=[1])
    request.raw_input_contents.extend([b"12", b"345"])
    head, behind = parts(request)
    assert [tensor["parameters"]["binary_data_size"] for tensor in head["inputs"]] == [2, 3]
    assert behind == b"12345"
    assert head["id"] == "7"
    assert head["parameters"] == {"binary_data_output": True}
    assert "outputs" not in head


def test_parameters_keep_their_kind_and_places_are_the_fronts() -> None:
    request = pb.ModelInferRequest(model_name="m")
    request.parameters["text"].string_param = "t"
    request.parameters["flag"].bool_param = False
    request.parameters["whole"].int64_param = -5
    request.parameters["large"].uint64_param = 2**64 - 1
    request.parameters["real"].double_param = 0.5
    request.parameters["timeout"].int64_param = 250_000
    # A client of KServe sends it over gRPC as well.
    request.parameters["binary_data_output"].bool_param = False
    request.outputs.add(name="label").parameters["classification"].int64_param = 3
    head, _ = parts(request)
    assert head["parameters"] == {
        "text": "t",
        "flag": False,
        "whole": -5,
        "large": 2**64 - 1,
        "real": 0.5,
        "timeout": 250_000,
        "binary_data_output": True,
    }
    assert head["outputs"] == [{"name": "label", "parameters": {"classification": 3}}]
    assert messages.translate_request(request.SerializeToString()).timeout == 0.25


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_that_is_none(timeout: int) -> None:
    request = pb.ModelInferRequest(model_name="m")
    request.parameters["timeout"].int64_param = timeout
    assert messages.translate_request(request.SerializeToString()).timeout is None


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (typed("INT8", "int_contents", 128), "has an element that is no INT8"),
        (typed("UINT8", "uint_contents", 256), "has an element that is no UINT8"),
        (typed("FP32", "int_contents", 1), "has its elements in int_contents"),
        (typed("FP16", "fp32_contents", 1.0), "which has no typed contents"),
        (typed("", "fp32_contents", 1.0), "which has no typed contents"),
    ],
)
def test_contents_that_are_not_those_of_the_datatype(
    request_: pb.ModelInferRequest, words: str
) -> None:
    with pytest.raises(FrontError, match=words) as caught:
        parts(request_)
    assert caught.value.code == "invalid_request"


def test_raw_outputs_are_slices_of_the_body() -> None:
    outputs = [
        {"name": name, "datatype": "BYTES", "shape": [1, 2], "parameters": parameters}
        for name, parameters in (
            ("a", {"binary_data_size": 3, "note": "n"}),
            ("b", {"binary_data_size": 0}),
        )
    ]
    parameters = {"flag": True, "whole": 1, "real": 0.5}
    reply = messages.translate_reply(
        reply_of(outputs, b"xyz", model_version="1.0", parameters=parameters), is_raw=True
    )
    assert (reply.id, reply.model_name, reply.model_version) == ("7", "m", "1.0")
    assert [output.name for output in reply.outputs] == ["a", "b"]
    assert list(reply.raw_output_contents) == [b"xyz", b""]
    assert dict(reply.outputs[0].parameters) == {"note": pb.InferParameter(string_param="n")}
    assert reply.parameters["flag"].bool_param is True
    assert reply.parameters["whole"].int64_param == 1
    assert reply.parameters["real"].double_param == 0.5


@pytest.mark.parametrize(
    "reply",
    [
        HostReply(b"{"),
        HostReply(b"[]"),
        HostReply(b'{"outputs": []}'),
        HostReply(b'{"model_name": "m", "outputs": [{"name": "a", "data": [1]}]}'),
        reply_of([{"name": "a", "datatype": "FP32", "shape": [1], "parameters": {}}], b""),
        reply_of(
            [{"name": "a", "datatype": "X", "shape": [1], "parameters": {"binary_data_size": 5}}],
            b"1234",
        ),
        reply_of([], b"more"),
    ],
)
def test_a_reply_that_is_none(reply: HostReply) -> None:
    for is_raw in (True, False):
        with pytest.raises(FrontError) as caught:
            messages.translate_reply(reply, is_raw=is_raw)
        assert caught.value.code == "bad_gateway"


@pytest.mark.parametrize("raw", [b"\1\0\0", b"\5\0\0\0abc", b"\xff\xff\xff\xff"])
def test_a_reply_whose_elements_do_not_fit(raw: bytes) -> None:
    parameters = {"binary_data_size": len(raw)}
    output = {"name": "a", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    with pytest.raises(FrontError):
        messages.translate_reply(reply_of([output], raw), is_raw=False)


def many(part: str, count: int) -> pb.ModelInferRequest:
    """A request with so many parts of a kind."""
    request = typed("BYTES", "bytes_contents", b"x")
    for index in range(count):
        match part:
            case "inputs":
                request.inputs.add(name="x", datatype="BYTES")
            case "outputs":
                request.outputs.add()
            case "parameters":
                request.parameters[str(index)].bool_param = True
            case "elements":
                request.inputs[0].contents.bytes_contents.append(b"")
            case "parameters of an input":
                request.inputs[0].parameters[str(index)].bool_param = True
    return request


PARTS = ["inputs", "outputs", "parameters", "elements", "parameters of an input"]


@pytest.mark.parametrize("part", PARTS)
def test_a_message_of_too_many_parts_is_refused(part: str) -> None:
    assert messages.translate_request(many(part, 5_000).SerializeToString())
    with pytest.raises(FrontError, match="more than 10000 inputs, outputs") as refused:
        messages.translate_request(many(part, 10_001).SerializeToString())
    assert refused.value.code == "json_too_large"
