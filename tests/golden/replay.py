"""Sends recorded requests with plain HTTP and gRPC clients that are independent of the project."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import inference_pb2
import management_pb2
import open_inference_grpc_pb2 as oip
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tests.golden.records import Api, GrpcRequest, HttpRequest, Reply, Request
from tests.support.server_client import v2_json

_TIMEOUT = 120.0
_INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
_MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService"
_OPEN_INFERENCE = "/org.pytorch.serve.grpc.openinference.GRPCInferenceService"


def _json(text: str | bytes) -> Any:
    """Parsed JSON; NaN and Infinity are rejected."""

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=reject)


def _as_dict(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


#: By the full name of the method: the type of the reply's message, and how it is read.
_REPLIES: Mapping[str, tuple[type[Message], Callable[[Any], Any]]] = {
    f"{_INFERENCE}/Ping": (inference_pb2.TorchServeHealthResponse, _as_dict),
    f"{_INFERENCE}/Predictions": (
        inference_pb2.PredictionResponse, lambda reply: _json(reply.prediction),
    ),
    f"{_INFERENCE}/StreamPredictions": (
        inference_pb2.PredictionResponse, lambda reply: _json(reply.prediction),
    ),
    f"{_MANAGEMENT}/DescribeModel": (
        management_pb2.ManagementResponse, lambda reply: _json(reply.msg),
    ),
    f"{_OPEN_INFERENCE}/ServerLive": (oip.ServerLiveResponse, _as_dict),
    f"{_OPEN_INFERENCE}/ServerReady": (oip.ServerReadyResponse, _as_dict),
    f"{_OPEN_INFERENCE}/ModelReady": (oip.ModelReadyResponse, _as_dict),
    f"{_OPEN_INFERENCE}/ModelInfer": (oip.ModelInferResponse, v2_json),
}  # fmt: skip


@dataclass(frozen=True)
class ReplayClient:
    """Connections to a server's addresses, and a token for each.

    Attributes:
        http: by API, bound to its address.
        grpc: by API, a channel to its address.
        tokens: by API.
    """

    http: Mapping[Api, httpx.Client]
    grpc: Mapping[Api, grpc.Channel]
    tokens: Mapping[Api, str]

    @classmethod
    @contextmanager
    def open(
        cls, http: Mapping[Api, str], grpc_: Mapping[Api, str], tokens: Mapping[Api, str]
    ) -> Iterator[ReplayClient]:
        """Connect to the addresses, given by API as ``http://host:port`` and ``host:port``."""
        clients = {api: httpx.Client(base_url=url, timeout=_TIMEOUT) for api, url in http.items()}
        channels = {api: grpc.insecure_channel(address) for api, address in grpc_.items()}
        try:
            yield cls(clients, channels, tokens)
        finally:
            for connection in (*clients.values(), *channels.values()):
                connection.close()

    def send(self, request: Request) -> Reply:
        """The server's reply to a request, sent byte for byte."""
        if isinstance(request, HttpRequest):
            return self._http(request)
        return self._grpc(request)

    def _http(self, request: HttpRequest) -> Reply:
        client = self.http[request.api]
        headers = dict(request.headers)
        if request.token:
            headers["authorization"] = f"Bearer {self.tokens[request.api]}"
        url = client.base_url.copy_with(raw_path=request.path.encode("ascii"))
        # Built here: client.request would add headers and escape the path.
        response = client.send(
            httpx.Request(request.method, url, headers=headers, content=request.body)
        )
        content_type = response.headers.get("content-type")
        is_json = content_type == "application/json"
        body = _json(response.content) if is_json else response.text
        return Reply(response.status_code, content_type, body)

    def _grpc(self, request: GrpcRequest) -> Reply:
        channel = self.grpc[request.api]
        metadata = [("protocol", "gRPC")]
        if request.token:
            metadata.append(("authorization", f"Bearer {self.tokens[request.api]}"))
        message, read = _REPLIES[request.method]
        options: dict[str, Any] = {"metadata": metadata, "timeout": _TIMEOUT}
        try:
            if request.stream:
                replies = list(channel.unary_stream(request.method)(request.message, **options))
                body: Any = [read(message.FromString(reply)) for reply in replies]
            else:
                body = read(
                    message.FromString(
                        channel.unary_unary(request.method)(request.message, **options)
                    )
                )
        except grpc.RpcError as failure:
            return Reply(failure.code().name, None, None)
        return Reply(grpc.StatusCode.OK.name, None, body)
