"""Tensors as bytes behind the JSON of a KServe v2 body, in requests and in replies."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols.binary_tensors import HEADER_LENGTH, encode_binary
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.parsing import ImageRequest, IncomingRequest, ParsedBody, parse_request
from camserve.protocols.schema import V2Body
from camserve.settings import Limits, Settings

SETTINGS = Settings(limits=Limits(instances=3, json_values=1000))
PHOTO, OTHER = b"\xff\xd8\xff photo", b"\x89PNG other"


def strings(*elements: bytes) -> bytes:
    """The elements of BYTES, as Triton's clients write them."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def binary(name: str, datatype: str, shape: list[int], data: bytes) -> tuple[dict[str, Any], bytes]:
    """An input whose elements stand behind the JSON, and these."""
    parameters = {"binary_data_size": len(data)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}, data


IMAGE = binary("image", "BYTES", [1], strings(PHOTO))
TWO = binary("image", "BYTES", [2], strings(PHOTO, OTHER))


def parse(
    inputs: Sequence[tuple[dict[str, Any], bytes]],
    header: str | None = None,
    behind: bytes = b"",
    headers: Mapping[str, str] | None = None,
    **keys: Any,
) -> ParsedBody:
    """A request with these inputs, and perhaps another header or more bytes behind them."""
    text = json.dumps({"inputs": [tensor for tensor, _ in inputs], **keys}).encode()
    body = bytearray(text + b"".join(data for _, data in inputs) + behind)
    sent = {HEADER_LENGTH: str(len(text)) if header is None else header, **(headers or {})}
    return parse_request(IncomingRequest({"body": body}, sent), SETTINGS)


def photos_of(parsed: ParsedBody) -> list[Any]:
    assert isinstance(parsed.instances, tuple)
    return [one.image if isinstance(one, ImageRequest) else one.code for one in parsed.instances]


def options_of(parsed: ParsedBody) -> list[Options]:
    assert isinstance(parsed.instances, tuple)
    return [one.options for one in parsed.instances if isinstance(one, ImageRequest)]


def rejection(parsed: ParsedBody) -> RequestError:
    assert isinstance(parsed.instances, RequestError)
    return parsed.instances


# Requests


def test_photos_are_the_bytes_behind_the_json() -> None:
    parsed = parse([TWO], id="7")
    assert photos_of(parsed) == [PHOTO, OTHER]
    assert isinstance(parsed.reply_format, KServeV2)
    assert parsed.reply_format.id == "7"


def test_a_photo_in_base64_may_stand_there_too() -> None:
    encoded = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20))
    assert photos_of(parse([binary("image", "BYTES", [1], strings(encoded))])) == [
        b"\x89PNG\r\n\x1a\n" + bytes(20)
    ]


NUMBERS: list[tuple[str, str, bytes, Any]] = [
    ("top_k", "INT64", struct.pack("<q", 3), 3),
    ("top_k", "INT32", struct.pack("<i", 3), 3),
    ("top_k", "INT16", struct.pack("<h", 3), 3),
    ("top_k", "INT8", struct.pack("<b", 3), 3),
    ("top_k", "UINT64", struct.pack("<Q", 3), 3),
    ("top_k", "UINT32", struct.pack("<I", 3), 3),
    ("top_k", "UINT16", struct.pack("<H", 3), 3),
    ("top_k", "UINT8", b"\3", 3),
    ("alpha", "FP64", struct.pack("<d", 0.3), 0.3),
    ("alpha", "FP32", struct.pack("<f", 0.25), 0.25),
    ("alpha", "FP16", struct.pack("<e", 0.25), 0.25),
    ("explain", "BOOL", b"\0", False),
    ("target", "BYTES", strings("Häher".encode()), "Häher"),
    ("target", "BYTES", strings(b'["red", 2]'), ("red", 2)),
    ("outputs", "BYTES", strings(b"map,boxes"), ("map", "boxes")),
]


@pytest.mark.parametrize(("name", "datatype", "data", "expected"), NUMBERS)
def test_options_are_read_by_their_datatype(
    name: str, datatype: str, data: bytes, expected: Any
) -> None:
    (options,) = options_of(parse([binary(name, datatype, [1], data), IMAGE]))
    assert getattr(options, name) == expected


def test_each_photo_has_its_own_options() -> None:
    columns = [
        binary("top_k", "INT64", [2, 1], struct.pack("<2q", 1, 2)),
        ({"name": "alpha", "datatype": "FP32", "shape": [-1], "data": [0.5]}, b""),
        binary("target", "BYTES", [-1], strings(b"red", b"3")),
    ]
    first, second = options_of(parse([TWO, *columns]))
    assert (first.top_k, first.alpha, first.target) == (1, 0.5, "red")
    assert (second.top_k, second.alpha, second.target) == (2, 0.5, 3)


def test_the_body_may_be_compressed() -> None:
    text = json.dumps({"inputs": [IMAGE[0]]}).encode()
    headers = {HEADER_LENGTH: str(len(text)), "content-encoding": "gzip"}
    request = IncomingRequest({"body": gzip.compress(text + IMAGE[1])}, headers)
    assert photos_of(parse_request(request, SETTINGS)) == [PHOTO]


def test_a_body_of_json_alone_may_have_the_header() -> None:
    in_json = {
        "name": "image", "datatype": "BYTES", "shape": [1],
        "data": [base64.b64encode(PHOTO).decode()],
    }  # fmt: skip
    assert photos_of(parse([(in_json, b"")])) == [PHOTO]


# Requests that are rejected


@pytest.mark.parametrize("header", ["", "x", "-1", "1.5", "9" * 400, "٣", "1 2", "999999"])
def test_a_header_that_does_not_fit_the_body_is_rejected(header: str) -> None:
    error = rejection(parse([IMAGE], header))
    assert error.code == "invalid_request"
    assert "the header Inference-Header-Content-Length" in error.message


def test_the_error_of_a_body_that_cannot_be_read_is_one_of_v2() -> None:
    parsed = parse([IMAGE], header="5")
    assert parsed.reply_format == KServeV2("")
    reply = parsed.reply_format.error_reply(rejection(parsed), {"name": "m", "version": "1"})
    assert json.loads(reply.body)["error"] == rejection(parsed).message


@pytest.mark.parametrize("header", ["0", "5"])
def test_json_that_is_cut_by_the_header_is_rejected(header: str) -> None:
    assert rejection(parse([IMAGE], header)).code == "invalid_json"


MISFITS: dict[str, list[tuple[dict[str, Any], bytes]]] = {
    "size too large": [({**IMAGE[0], "parameters": {"binary_data_size": 10_000}}, IMAGE[1])],
    "size too small": [({**IMAGE[0], "parameters": {"binary_data_size": 3}}, IMAGE[1])],
    "no size": [({**IMAGE[0], "parameters": {}, "data": ["eA=="]}, IMAGE[1])],
    "size text": [({**IMAGE[0], "parameters": {"binary_data_size": "3"}}, IMAGE[1])],
    "size boolean": [({**IMAGE[0], "parameters": {"binary_data_size": True}}, IMAGE[1])],
    "size negative": [({**IMAGE[0], "parameters": {"binary_data_size": -1}}, IMAGE[1])],
    "size and data": [({**IMAGE[0], "data": ["eA=="]}, IMAGE[1])],
    "shape": [({**IMAGE[0], "shape": [2]}, IMAGE[1])],
    "length beyond the end": [binary("image", "BYTES", [1], b"\xff\xff\xff\xff" + PHOTO)],
    "half a length": [binary("image", "BYTES", [1], b"\3\0")],
    "datatype of photos": [binary("image", "INT64", [1], bytes(8))],
    "no datatype": [({**IMAGE[0], "datatype": None}, IMAGE[1])],
    "datatype a list": [({**IMAGE[0], "datatype": []}, IMAGE[1])],
    "odd bytes of an option": [IMAGE, binary("top_k", "INT64", [1], bytes(7))],
    "unknown datatype of an option": [IMAGE, binary("top_k", "INT128", [1], bytes(16))],
    "odd bytes of pixels": [binary("image", "FP32", [1, 1, 3], bytes(13))],
}


@pytest.mark.parametrize("inputs", MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_their_bytes_are_rejected(
    inputs: list[tuple[dict[str, Any], bytes]],
) -> None:
    assert rejection(parse(inputs)).code == "invalid_request"


def test_bytes_that_belong_to_no_tensor_are_rejected() -> None:
    error = rejection(parse([IMAGE], behind=b"more"))
    assert error.code == "invalid_request"
    assert "leaves 4 bytes that belong to no tensor" in error.message


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"instances": []}', b'{"inputs": {}}', b"{}"])
def test_binary_tensors_need_a_list_of_inputs(body: bytes) -> None:
    request = IncomingRequest({"body": body}, {HEADER_LENGTH: str(len(body))})
    parsed = parse_request(request, SETTINGS)
    assert "no list 'inputs'" in rejection(parsed).message


@pytest.mark.parametrize(
    "option",
    [
        binary("top_k", "UINT8", [1001], bytes(1001)),
        binary("target", "BYTES", [1001], strings(b"") * 1001),
    ],
)
def test_an_option_with_more_elements_than_any_request_needs_is_rejected(
    option: tuple[dict[str, Any], bytes],
) -> None:
    assert rejection(parse([IMAGE, option])).code == "json_too_large"


def test_text_that_is_not_utf_8_is_rejected() -> None:
    error = rejection(parse([IMAGE, binary("target", "BYTES", [1], strings(b"\xff"))]))
    assert (error.code, "'target' is not UTF-8" in error.message) == ("invalid_option", True)


# Replies


def test_a_reply_has_its_tensors_behind_the_json() -> None:
    body: V2Body = {
        "id": "", "model_name": "m", "model_version": "1",
        "outputs": [
            {"name": "class_id", "datatype": "INT64", "shape": [2, 1], "data": [281, -1]},
            {"name": "score", "datatype": "FP32", "shape": [2, 1], "data": [0.1, 2.5]},
            {"name": "evidence", "datatype": "BOOL", "shape": [2], "data": [True, False]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Häher", ""]},
        ],
    }  # fmt: skip
    content, length = encode_binary(body, lambda name: name != "score")
    outputs = {output["name"]: output for output in json.loads(content[:length])["outputs"]}
    sizes = [
        outputs[n]["parameters"]["binary_data_size"] for n in ("class_id", "evidence", "label")
    ]
    assert sizes == [16, 2, 14]
    assert outputs["score"]["data"] == [0.1, 2.5]
    assert not [name for name, output in outputs.items() if name != "score" and "data" in output]
    rest = content[length:]
    assert np.frombuffer(rest[:16], "<i8").tolist() == [281, -1]
    assert rest[16:18] == b"\1\0"
    assert rest[18:] == strings("Häher".encode(), b"")
