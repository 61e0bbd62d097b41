"""The calls that are sent to the Open Inference front: the protocols that it alone speaks.

Bodies of KServe v2 with binary tensors, messages of the package ``inference``, broken in their
lengths, types and bytes, and paths and methods beside them.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final

from camserve_cli.open_inference import open_inference_pb2 as pb
from devtools.fuzzing import bodies, photos
from devtools.fuzzing.calls import Call

_SERVICE: Final = "/inference.GRPCInferenceService/"
INFER: Final = f"{_SERVICE}ModelInfer"
_OTHER_METHODS: Final = (
    *(f"{_SERVICE}{name}" for name in (
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata",
        "ModelConfig", "ModelStreamInfer",
    )),
    "/grpc.health.v1.Health/Check",
)  # fmt: skip
#: Options with which the overlay is the photo itself, pixel by pixel.
_IDENTITY_OPTIONS: Final[dict[str, str]] = {
    "outputs": '["overlay"]', "alpha": "0", "image_format": "png", "size": "original",
}  # fmt: skip
_LENGTH: Final = "Inference-Header-Content-Length"
_BINARY: Final = ("Content-Type", "application/octet-stream")
_LENGTHS: Final = (
    "",
    "-1",
    "0",
    "1",
    "999999999",
    "9" * 100,
    "x",
    "1e3",
    "+5",
    "0x10",
    "\u0663",
)
_SHAPES: Final[tuple[list[int], ...]] = (
    [1],
    [1],
    [2],
    [],
    [-1],
    [0],
    [2**62, 2**62],
    [1, 1, 1, 1, 1],
)
_DATATYPES: Final = ("BYTES", "BYTES", "FP32", "UINT8", "INT64", "BOOL", "FP16", "BF16", "", "x")


def generate_front_call(seed: int, index: int, model: str, valid_share: float = 0.25) -> Call:
    """The call of a seed and an index; ``valid_share`` is the share of those that must succeed."""
    random = Random(f"front:{seed}:{index}")  # noqa: S311
    if random.random() < valid_share:
        photo, digest, label = photos.valid_photo((seed << 32) + index)
        call = random.choice((_binary_call, _raw_call, _typed_call, _v1_call))(model, photo)
        return replace(call, digest=digest, label=label)
    return random.choice(_BROKEN)(random, model)


def raw_element(element: bytes) -> bytes:
    """An element of a raw BYTES tensor."""
    return struct.pack("<I", len(element)) + element


def _infer_path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _binary_call(model: str, photo: bytes) -> Call:
    element = raw_element(photo)
    head = json.dumps({
        "inputs": [_image(len(element))],
        "parameters": {**_IDENTITY_OPTIONS, "binary_data_output": True},
    }).encode()  # fmt: skip
    headers = (_BINARY, (_LENGTH, str(len(head))))
    return Call("good", "http", "POST", _infer_path(model), headers, head + element)


def _raw_call(model: str, photo: bytes) -> Call:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[raw_element(photo)])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    for name, value in _IDENTITY_OPTIONS.items():
        request.parameters[name].string_param = value
    return Call("good", "unary", INFER, body=request.SerializeToString())


def _typed_call(model: str, photo: bytes) -> Call:
    request = pb.ModelInferRequest(model_name=model)
    elements = {"image": photo, **{n: v.encode() for n, v in _IDENTITY_OPTIONS.items()}}
    for name, value in elements.items():
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(value)
    return Call("good", "unary", INFER, body=request.SerializeToString())


def _v1_call(model: str, photo: bytes) -> Call:
    body = {"instances": [base64.b64encode(photo).decode()], "parameters": _IDENTITY_OPTIONS}
    headers = (("Content-Type", "application/json"),)
    return Call(
        "good", "http", "POST", f"/v1/models/{model}:explain", headers, json.dumps(body).encode()
    )


def _image(size: int) -> dict[str, Any]:
    """The input of photos, whose elements stand behind the JSON."""
    return {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": size},
    }


def _binary_body(random: Random, model: str) -> Call:
    """A body with binary tensors whose lengths, shapes or types are wrong."""
    photo = photos.valid_files()["jpeg"]
    element = raw_element(photo)
    image: dict[str, Any] = _image(len(element))
    variant = random.randrange(7)
    if variant == 0:
        image["parameters"]["binary_data_size"] = random.choice(
            (0, -1, 2**40, len(element) - 1, len(element) + 1, "1", 1.5, None, True)
        )
    elif variant == 1:
        image["shape"] = random.choice(_SHAPES)
        image["datatype"] = random.choice(_DATATYPES)
    elif variant == 2:
        element = random.choice(
            (b"", b"\x01", struct.pack("<I", 2**32 - 1), element[:-1], element + b"\0", bytes(4))
        )
    elif variant == 3:
        image["data"] = [base64.b64encode(photo).decode()]
    head = json.dumps({
        "inputs": [image] * random.choice((1, 1, 1, 2, 300)),
        "outputs": random.choice(([], [{"name": "label"}], [{"name": "x"}], [{}], 3)),
        "parameters": random.choice(
            ({}, {"binary_data_output": "x"}, {"timeout": -1}, {"timeout": "x"}, {"x": 1}, [])
        ),
    }).encode()  # fmt: skip
    length = str(len(head))
    if variant in (4, 5):
        length = random.choice((*_LENGTHS, str(len(head) - 1), str(len(head) + 1)))
    headers: list[tuple[str, str]] = [_BINARY, (_LENGTH, length)]
    if variant == 6:
        headers.append((_LENGTH, length))
    body = head + element
    if random.random() < 0.1:
        body = body[: random.randrange(len(body))]
    return Call("binary body", "http", "POST", _infer_path(model), tuple(headers), body)


def _json_body(random: Random, model: str) -> Call:
    body = bodies.broken_json(random, photos.valid_files()["png"])
    path = random.choice(_paths(model))
    return Call("json", "http", "POST", path, (("Content-Type", "application/json"),), body)


def _compressed_body(random: Random, model: str) -> Call:
    encoding, content_type, body = bodies.broken_compression(random, photos.valid_files()["png"])
    headers = (("Content-Type", content_type), ("Content-Encoding", encoding))
    return Call("compressed", "http", "POST", random.choice(_paths(model)), headers, body)


def _headers(random: Random, model: str) -> Call:
    body = random.choice((b"", b"{}", photos.valid_files()["png"]))
    headers = bodies.broken_headers(random)
    return Call("headers", "http", "POST", random.choice(_paths(model)), headers, body)


def _url(random: Random, model: str) -> Call:
    name, value = bodies.random_option(random)
    query = "".join(c for c in f"{name}={value[:500]}" if "!" <= c <= "~")
    path = random.choice(
        (
            "/v2", "/v2/models", "/v2/models/", f"/v2/models/{model}/nothing", "/v2/models/nobody",
            f"/v2/models/{model}/versions/9/infer", f"/v2/models/{model}/versions//infer",
            "/v2/models/%2e%2e/infer", "/v2/models/%00/infer", "/v2/models/a%2fb/infer",
            "/v2/models/../../ping", "//v2", "/v1/models/nobody:predict", "/ping", "/predictions/x",
            f"/v2/models/{model}/infer?{query}", f"/v1/models/{model}:predict?{query}&{query}",
        )
    )  # fmt: skip
    method = random.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "X"))
    return Call("url", "http", method, path, body=random.choice((b"", b"{}")))


def _paths(model: str) -> tuple[str, ...]:
    return (
        *(
            _infer_path(model),
            f"/v2/models/{model}/explain",
            f"/v2/models/{model}/versions/1.0/infer",
        ),
        *(f"/v1/models/{model}:predict", f"/v1/models/{model}:explain"),
    )


def _message(random: Random, model: str) -> Call:
    """A ModelInferRequest with invalid tensors and parameters, or bytes that are no message."""
    name = random.choice((model, model, model, "", "nobody", "../x", "\u00e9"))
    request = pb.ModelInferRequest(
        model_name=name, model_version=random.choice(("", "", "1.0", "9", "../x"))
    )
    for _ in range(random.choice((0, 1, 1, 2, 2, 300))):
        tensor = request.inputs.add(
            name=random.choice(("image", "image", "target", "x", "")),
            datatype=random.choice(_DATATYPES),
            shape=random.choice(_SHAPES),
        )
        if random.random() < 0.5:
            field, values = random.choice(
                (
                    ("bytes_contents", [photos.valid_files()["jpeg"]]), ("bytes_contents", []),
                    ("fp32_contents", [float("nan")]), ("bool_contents", [True]),
                    ("int_contents", [2**31 - 1]), ("int64_contents", [-(2**63)]),
                    ("uint_contents", [300]), ("uint64_contents", [2**64 - 1]),
                )
            )  # fmt: skip
            getattr(tensor.contents, field).extend(values)
        _add_parameter(random, tensor.parameters)
    if random.random() < 0.5:
        count = random.choice((len(request.inputs), 1))
        photo = photos.valid_files()["jpeg"]
        contents = (raw_element(photo), b"", b"\xff" * 9, raw_element(photo)[:-1], bytes(12))
        request.raw_input_contents.extend(random.choice(contents) for _ in range(count))
    for _ in range(random.choice((0, 0, 1, 2))):
        request.outputs.add(name=random.choice(("label", "heatmap", "x", "")))
    _add_parameter(random, request.parameters)
    message = request.SerializeToString()
    variant = random.randrange(5)
    if variant == 0:
        message = message[: random.randrange(len(message) + 1)]
    elif variant == 1 and message:
        changed = bytearray(message)
        for _ in range(random.choice((1, 1, 5, 50))):
            changed[random.randrange(len(changed))] = random.randrange(256)
        message = bytes(changed)
    return Call("message", "unary", INFER, body=message)


def _add_parameter(random: Random, parameters: Any) -> None:
    """Perhaps add a parameter with a value of some kind."""
    if random.random() < 0.6:
        return
    parameter = parameters[
        random.choice(("alpha", "timeout", "binary_data_size", "sequence_id", "x", "\u00e9"))
    ]
    kind, value = random.choice(
        (
            ("bool_param", True), ("int64_param", -(2**63)), ("uint64_param", 2**64 - 1),
            ("double_param", float("inf")), ("double_param", 0.5), ("string_param", "x" * 500),
        )
    )  # fmt: skip
    setattr(parameter, kind, value)


def _other_method(random: Random, model: str) -> Call:
    named = pb.ModelReadyRequest(name=model, version=random.choice(("", "9"))).SerializeToString()
    body = random.choice((b"", b"\xff\xff", random.randbytes(30), b"\n\x06nobody", named))
    return Call("beside inference", "unary", random.choice(_OTHER_METHODS), body=body)


_BROKEN: Final[tuple[Callable[[Random, str], Call], ...]] = (
    _binary_body, _binary_body, _binary_body, _json_body, _compressed_body, _headers, _url,
    _message, _message, _message, _other_method,
)  # fmt: skip
