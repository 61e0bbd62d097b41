"""Builds the requests of ``cases``, with the helpers of the other tests and with httpx.

Nothing here is needed to replay a record.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import inference_pb2
from google.protobuf.message import Message

from tests.golden.photos import OTHER, PHOTO
from tests.golden.records import Api, GrpcRequest, HttpRequest, Request
from tests.golden.server import MODEL
from tests.support import transport_matrix
from tests.support.option_strategies import Options
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, infer_request
from tests.support.transport_matrix import b64

# The calls of `transport_matrix` name this model.
assert COLOR_MODEL == MODEL

PREDICT, EXPLAIN = f"/predictions/{MODEL}", f"/explanations/{MODEL}"
V1, V2 = f"/v1/models/{MODEL}", f"/v2/models/{MODEL}"
PHOTO64, OTHER64, JUNK64 = b64(PHOTO), b64(OTHER), b64(b"no photo at all")
#: Headers that every client adds by itself.
_CLIENT_HEADERS = (
    "host", "accept", "accept-encoding", "connection", "user-agent", "content-length",
    "authorization",
)  # fmt: skip
INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
OPEN_INFERENCE = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"

#: Requests by the name of their record.
Cases = dict[str, Request]


# Capturing a request instead of sending it


class _CapturedRequestError(Exception):
    """Ends a call with the request that it would have sent."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.request = request


def _capture(request: httpx.Request) -> httpx.Response:
    raise _CapturedRequestError(_http_request(request))


class _CapturingStub:
    """Replaces a generated gRPC stub; its calls raise :class:`_CapturedRequestError`."""

    def __init__(self, service: str) -> None:
        self.service = service

    def __getattr__(self, rpc: str) -> Any:
        def send(request: Message, **_: Any) -> None:
            raise _CapturedRequestError(grpc_call(self.service, rpc, request))

        return send


_CAPTURING_CLIENT = Client(
    http=httpx.Client(base_url="http://server", transport=httpx.MockTransport(_capture)),
    grpc=_CapturingStub(INFERENCE),
    run_dir=Path(),
    ports={},
    token="",
    open_inference=_CapturingStub(OPEN_INFERENCE),
)


def captured(
    transport: transport_matrix.Transport, options: Options, method: str = "POST"
) -> Request:
    try:
        transport(_CAPTURING_CLIENT, PHOTO, options, method)
    except _CapturedRequestError as sent:
        return sent.request
    raise AssertionError("the call sent nothing")


def _http_request(
    request: httpx.Request, api: Api = "inference", token: bool = True
) -> HttpRequest:
    headers = {
        name.decode("ascii"): value.decode("ascii")
        for name, value in request.headers.raw
        if name.decode("ascii").lower() not in _CLIENT_HEADERS
    }
    path = request.url.raw_path.decode("ascii")
    return HttpRequest(request.method, path, headers, request.read(), api, token)


# Building a request


def http(
    path: str,
    method: str = "POST",
    api: Api = "inference",
    token: bool = True,
    **content: Any,
) -> HttpRequest:
    """The request that httpx would send for the same arguments."""
    return _http_request(httpx.Request(method, f"http://server{path}", **content), api, token)


def json_body(path: str, body: Any) -> HttpRequest:
    headers = {"Content-Type": "application/json"}
    return http(path, content=json.dumps(body), headers=headers)


def json_photo(**options: Any) -> HttpRequest:
    """The photo with options, as JSON."""
    return json_body(PREDICT, {"image": PHOTO64, **options})


def grpc_call(
    service: str,
    rpc: str,
    message: Message,
    api: Api = "inference",
    token: bool = True,
) -> GrpcRequest:
    stream = rpc.startswith("Stream")
    return GrpcRequest(
        f"/{service}/{rpc}", message.SerializeToString(deterministic=True), stream, api, token
    )


def predictions(rpc: str = "Predictions", token: bool = True, **inputs: bytes) -> GrpcRequest:
    message = inference_pb2.PredictionsRequest(model_name=MODEL, input=inputs)
    return grpc_call(INFERENCE, rpc, message, token=token)


def infer(*inputs: dict[str, Any], model: str = MODEL, **more: Any) -> GrpcRequest:
    return grpc_call(OPEN_INFERENCE, "ModelInfer", infer_request(model, inputs, **more))


def v1(*instances: Any, verb: str = "predict", **more: Any) -> HttpRequest:
    return json_body(f"{V1}:{verb}", {"instances": list(instances), **more})


def v2(*inputs: dict[str, Any], verb: str = "infer", **more: Any) -> HttpRequest:
    return json_body(f"{V2}/{verb}", {"inputs": list(inputs), **more})
