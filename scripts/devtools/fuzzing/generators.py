"""Generates the call of a seed and an index: always the same call for the same two numbers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final
from urllib.parse import quote

import inference_pb2
import open_inference_grpc_pb2 as oip

from devtools.fuzzing import bodies, photos
from devtools.fuzzing.calls import Call, Protocol

_GRPC: Final = "/org.pytorch.serve.grpc."
PREDICTIONS: Final = _GRPC + "inference.InferenceAPIsService/Predictions"
STREAM: Final = _GRPC + "inference.InferenceAPIsService/StreamPredictions"
#: Sent without a sequence id: a call with one can stop the model permanently, whatever the handler
#: does (docs/reliability.md).
DUPLEX: Final = _GRPC + "inference.InferenceAPIsService/StreamPredictions2"
INFER: Final = _GRPC + "openinference.GRPCInferenceService/ModelInfer"
_OTHER_METHODS: Final = (
    _GRPC + "inference.InferenceAPIsService/Ping",
    *(
        f"{_GRPC}openinference.GRPCInferenceService/{name}"
        for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    ),
)
_METHODS: Final[tuple[tuple[str, Protocol], ...]] = (
    (PREDICTIONS, "unary"),
    (STREAM, "stream"),
    (DUPLEX, "duplex"),
)
#: Options with which the overlay is the photo itself, pixel by pixel.
_IDENTITY_OPTIONS: Final[dict[str, Any]] = {
    "outputs": ["overlay"], "alpha": 0, "image_format": "png", "size": "original",
}  # fmt: skip
_JSON: Final = (("Content-Type", bodies.JSON),)


def generate_call(seed: int, index: int, model: str, valid_share: float = 0.25) -> Call:
    """The call of a seed and an index; ``valid_share`` is the share of those that must succeed."""
    random = Random(f"{seed}:{index}")  # noqa: S311
    if random.random() < valid_share:
        return _valid(random, seed, index, model)
    return random.choice(_BROKEN)(random, model)


def _paths(model: str) -> tuple[str, ...]:
    return (
        f"/predictions/{model}", f"/predictions/{model}/1.0", f"/explanations/{model}",
        f"/v1/models/{model}:predict", f"/v1/models/{model}:explain", f"/v2/models/{model}/infer",
        f"/v2/models/{model}/explain", f"/invocations?model_name={model}", f"/{model}/predict",
    )  # fmt: skip


def _http(random: Random, kind: str, target: str, body: bytes, *headers: tuple[str, str]) -> Call:
    # TorchServe has no PUT for some of these paths, and answers so.
    method = "PUT" if random.random() < 0.25 else "POST"
    return Call(kind, "http", method, target, headers, body)


def _valid(random: Random, seed: int, index: int, model: str) -> Call:
    photo, digest, label = photos.valid_photo((seed << 32) + index)
    encoded = base64.b64encode(photo).decode()
    paths = _paths(model)
    tensors = [
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]},
        *({"name": name, "datatype": "BYTES", "shape": [1],
           "data": [value if isinstance(value, str) else json.dumps(value)]}
          for name, value in _IDENTITY_OPTIONS.items()),
    ]  # fmt: skip
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in _IDENTITY_OPTIONS.items()}
    message = inference_pb2.PredictionsRequest(
        model_name=model, input={"data": photo, "options": json.dumps(_IDENTITY_OPTIONS).encode()}
    ).SerializeToString()
    infer = oip.ModelInferRequest(model_name=model)
    for name, value in (("image", photo), *((n, t.encode()) for n, t in texts.items())):
        tensor = infer.inputs.add(name=name, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(value)
    in_path = "outputs=overlay,alpha=0,image_format=png,size=original"
    query = "&".join(f"{name}={quote(text)}" for name, text in texts.items())
    plain = json.dumps({"image": encoded, **_IDENTITY_OPTIONS}).encode()
    v1 = json.dumps({"instances": [encoded], "parameters": _IDENTITY_OPTIONS}).encode()
    v2 = json.dumps({"inputs": tensors}).encode()
    png = (("Content-Type", "image/png"),)
    variants: tuple[Callable[[], Call], ...] = (
        lambda: Call("good", "http", "POST", f"{paths[1]}/{in_path}", png, photo),
        lambda: Call("good", "http", "PUT", paths[0],
                     (*png, ("X-Explain", json.dumps(_IDENTITY_OPTIONS))), photo),
        lambda: Call("good", "http", "POST", random.choice((paths[0], paths[2], paths[7])), _JSON,
                     plain),
        lambda: Call("good", "http", "POST", random.choice(paths[3:5]), _JSON, v1),
        lambda: Call("good", "http", "POST", random.choice(paths[5:7]), _JSON, v2),
        lambda: Call("good", "http", "POST", f"{paths[8]}?{query}", png, photo),
        lambda: Call("good", "unary", PREDICTIONS, body=message),
        lambda: Call("good", "stream", STREAM, body=message),
        lambda: Call("good", "unary", INFER, body=infer.SerializeToString()),
    )  # fmt: skip
    return replace(random.choice(variants)(), digest=digest, label=label)


def _photo(random: Random, model: str) -> Call:
    damages, data = photos.damaged_file(random)
    variant = random.randrange(4)
    if variant == 0:
        inputs = {"data": data, "explain": b"false"}
        message = inference_pb2.PredictionsRequest(model_name=model, input=inputs)
        method, protocol = random.choice(_METHODS[:2])
        return Call(f"photo: {damages}", protocol, method, body=message.SerializeToString())
    if variant == 1:
        body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
        return _http(random, f"photo: {damages}", random.choice(_paths(model)), body, *_JSON)
    content_type = ("Content-Type", "image/png")
    return _http(random, f"photo: {damages}", random.choice(_paths(model)), data, content_type)


def _json(random: Random, model: str) -> Call:
    body = bodies.broken_json(random, photos.valid_files()["png"])
    return _http(random, "json", random.choice(_paths(model)), body, *_JSON)


def _form(random: Random, model: str) -> Call:
    content_type, body = bodies.broken_form(random, photos.valid_files()["png"])
    header = ("Content-Type", content_type)
    return _http(random, "form", random.choice(_paths(model)), body, header)


def _compressed(random: Random, model: str) -> Call:
    encoding, content_type, body = bodies.broken_compression(random, photos.damaged_file(random)[1])
    headers = (("Content-Type", content_type), ("Content-Encoding", encoding))
    return _http(random, "compressed", random.choice(_paths(model)), body, *headers)


def _headers(random: Random, model: str) -> Call:
    body = random.choice((photos.valid_files()["png"], b"", b"{}"))
    path = random.choice(_paths(model))
    return _http(random, "headers", path, body, *bodies.broken_headers(random))


def _url(random: Random, model: str) -> Call:
    name, value = bodies.random_option(random)
    escaped = quote(value[:3000], safe=random.choice(("", ",=/")))
    target = random.choice(
        (
            f"/predictions/{model}/1.0/{name}={escaped}",
            f"/predictions/{model}/1.0/{name}={escaped},{name}=x,",
            f"/explanations/{model}/1.0/{escaped or 'x'}",
            f"/invocations?model_name={model}&{name}={escaped}&{name}=x",
            f"/{model}/predict?{name}={escaped}",
            f"/predictions/{model}/1.0/%zz", f"/predictions/{model}/1.0/%00",
            f"/predictions/{model}/9.9", "/predictions/nobody", "/invocations?model_name=nobody",
            f"/v1/models/{model}:nothing", f"/v2/models/{model}/nothing",
            "/v1/models/nobody:predict",
        )
    )  # fmt: skip
    return _http(random, "url", target, photos.valid_files()["png"], ("Content-Type", "image/png"))


def _prediction(random: Random, model: str) -> Call:
    method, protocol = random.choice(_METHODS)
    body = bodies.broken_predictions_request(random, model, photos.valid_files()["jpeg"])
    if protocol == "duplex":
        body = random.choice((b"", b"\xff\xff", b"\n\x01x"))
    return Call("protobuf", protocol, method, body=body)


def _inference(random: Random, model: str) -> Call:
    body = bodies.broken_infer_request(random, model, photos.valid_files()["jpeg"])
    return Call("tensors", "unary", INFER, body=body)


def _other_method(random: Random, model: str) -> Call:
    body = random.choice((b"", b"\xff\xff", random.randbytes(30), b"\n\x06nobody"))
    return Call("beside inference", "unary", random.choice(_OTHER_METHODS), body=body)


_BROKEN: Final[tuple[Callable[[Random, str], Call], ...]] = (
    _photo, _photo, _photo, _json, _json, _form, _compressed, _headers, _url, _prediction,
    _inference, _inference, _other_method,
)  # fmt: skip
