"""A stub server with scripted answers, over HTTP and gRPC, and calls to it by the four clients.

All clients behave alike, so most tests are written once and parametrized by :data:`CLIENT_KINDS`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import inference_pb2

from camserve_client import AsyncClient, AsyncGrpcClient, Client, GrpcClient, Reply

CLIENT_KINDS = ("http", "http async", "grpc", "grpc async")
CLIENTS: dict[str, Any] = {
    "http": Client,
    "http async": AsyncClient,
    "grpc": GrpcClient,
    "grpc async": AsyncGrpcClient,
}

PREDICTION = {"class_id": 281, "label": "tabby", "probability": 0.62, "score": 9.1}
REPLY: dict[str, Any] = {
    "model": {"name": "pets", "version": "1.0"},
    "image": {"width": 451, "height": 300, "seen": [75.5, 0, 375.5, 300]},
    "predictions": [PREDICTION],
    "explanations": [],
}

_NO_WORKER = 'Model "pets" has no worker to serve inference request.'
_INVALID_TOKEN = (
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
)


@dataclass(frozen=True)
class Answer:
    """One answer, as TorchServe gives it over each transport.

    Attributes:
        status, headers: over HTTP.
        body: bytes as they are, anything else as JSON.
        failure: over gRPC, the status and details; None: the body is the answer.
        raises: the error that httpx raises instead of answering.
    """

    status: int = 200
    body: Any = None
    failure: tuple[grpc.StatusCode, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    raises: type[httpx.RequestError] | None = None

    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def torchserve_error(status: int, kind: str, message: str) -> dict[str, Any]:
    return {"code": status, "type": kind, "message": message}


OK = Answer(body=REPLY)
QUEUE_FULL = Answer(
    503,
    torchserve_error(503, "ServiceUnavailableException", _NO_WORKER),
    (grpc.StatusCode.INTERNAL, f"{_NO_WORKER}\nInternalServerException.()"),
)
WORKER_DIED = Answer(
    507,
    torchserve_error(507, "InternalServerException", "Worker died."),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Worker died.\norg.pytorch.serve.http.InternalServerException",
    ),
)
HANDLER_RAISED = Answer(
    503,
    torchserve_error(503, "InternalServerException", "Prediction failed"),
    (
        grpc.StatusCode.UNAVAILABLE,
        "Prediction failed\norg.pytorch.serve.http.InternalServerException",
    ),
)
OUT_OF_MEMORY = Answer(
    507,
    torchserve_error(507, "InternalServerException", "Out of resources"),
    (
        grpc.StatusCode.INTERNAL,
        "Out of resources\norg.pytorch.serve.http.InternalServerException",
    ),
)
CONNECTING = Answer(
    failure=(grpc.StatusCode.UNAVAILABLE, "connection timed out"), raises=httpx.ConnectTimeout
)
UNREACHABLE = Answer(
    failure=(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
    raises=httpx.ConnectError,
)
CONNECTION_LOST = Answer(
    failure=(grpc.StatusCode.UNAVAILABLE, "Socket closed"), raises=httpx.RemoteProtocolError
)
TIMED_OUT = Answer(
    failure=(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), raises=httpx.ReadTimeout
)
TOKEN_REJECTED = Answer(
    400,
    torchserve_error(400, "InvalidKeyException", _INVALID_TOKEN),
    (grpc.StatusCode.PERMISSION_DENIED, _INVALID_TOKEN),
)
NO_MODEL = Answer(
    404,
    torchserve_error(404, "ModelNotFoundException", "Model not found: pets"),
    (
        grpc.StatusCode.INTERNAL,
        "Model not found: pets\norg.pytorch.serve.archive.model.ModelNotFoundException",
    ),
)
REJECTED = Answer(
    400,
    {"error": {"code": "unknown_class", "status": 400, "message": "target 'pink' is no label"}},
)


@dataclass(frozen=True)
class ReceivedCall:
    """What the server received in one attempt."""

    model: str
    version: str
    photo: bytes
    options: str
    token: str | None
    timeout: float


@dataclass
class StubServer:
    """The stub server.

    Attributes:
        answers: the answers in their order; the last one is repeated. Or a callable that returns
            the answer for a token.
        received: all attempts.
        paths: the URL paths of the attempts over HTTP.
        waits: the delays before the clients' retries, in seconds.
    """

    answers: list[Answer] | Callable[[str | None], Answer]
    received: list[ReceivedCall] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def answer(self, received: ReceivedCall) -> Answer:
        self.received.append(received)
        if callable(self.answers):
            return self.answers(received.token)
        return self.answers[min(len(self.received), len(self.answers)) - 1]

    def handle_http(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.raw_path.decode())
        _, predictions, model, *version = self.paths[-1].split("/")
        assert predictions == "predictions"
        assert request.headers["Content-Type"] == "application/octet-stream"
        received = ReceivedCall(
            model,
            "".join(version),
            request.content,
            request.headers["X-Explain"],
            _token(request.headers.get("Authorization")),
            request.extensions["timeout"]["read"],
        )
        answer = self.answer(received)
        if answer.raises:
            raise answer.raises("scripted", request=request)
        return httpx.Response(answer.status, content=answer.data(), headers=answer.headers)

    def handle_grpc(self, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        assert metadata["protocol"] == "gRPC"
        assert set(request.input) == {"data", "options"}
        received = ReceivedCall(
            request.model_name,
            request.model_version,
            request.input["data"],
            request.input["options"].decode(),
            _token(metadata.get("authorization")),
            context.time_remaining(),
        )
        answer = self.answer(received)
        if answer.failure:
            context.abort(*answer.failure)
        return inference_pb2.PredictionResponse(prediction=answer.data())

    @contextmanager
    def served(
        self, client_kind: str, credentials: grpc.ServerCredentials | None = None
    ) -> Iterator[dict[str, Any]]:
        """Serve, and give the arguments with which a client reaches the server."""
        if client_kind.startswith("http"):
            transport = httpx.MockTransport(self.handle_http)
            yield {"address": "http://cam.example", "transport": transport}
            return
        handler = grpc.method_handlers_generic_handler(
            "org.pytorch.serve.grpc.inference.InferenceAPIsService",
            {
                # By stubs that are generated from TorchServe's file, not the client's own messages.
                "Predictions": grpc.unary_unary_rpc_method_handler(
                    self.handle_grpc,
                    inference_pb2.PredictionsRequest.FromString,
                    inference_pb2.PredictionResponse.SerializeToString,
                )
            },
        )
        with ThreadPoolExecutor(8) as pool:
            server = grpc.server(pool, [handler], options=[("grpc.max_receive_message_length", -1)])
            port = (
                server.add_secure_port("127.0.0.1:0", credentials)
                if credentials
                else server.add_insecure_port("127.0.0.1:0")
            )
            server.start()
            try:
                yield {"address": f"127.0.0.1:{port}"}
            finally:
                server.stop(None).wait()

    def explain(
        self,
        client_kind: str,
        *photos: Any,
        settings: dict[str, Any] | None = None,
        credentials: grpc.ServerCredentials | None = None,
        **options: Any,
    ) -> list[Reply]:
        """Have a client explain photos concurrently.

        Args:
            client_kind: one of :data:`CLIENT_KINDS`.
            photos: one photo by default.
            settings: more arguments of the client.
            credentials: the server's, for gRPC.
            options: the options of each call.
        """
        with self.served(client_kind, credentials) as place:
            given = {"model": "pets", **place, **(settings or {})}
            return explain(client_kind, photos or (b"photo",), self.waits, given, options)


def explain(
    client_kind: str,
    photos: Any,
    waits: list[float],
    settings: dict[str, Any],
    options: dict[str, Any],
) -> list[Reply]:
    """Have a client explain photos concurrently, and close it."""
    if not client_kind.endswith("async"):
        with (
            CLIENTS[client_kind](sleep=waits.append, **settings) as client,
            ThreadPoolExecutor(len(photos)) as pool,
        ):
            return list(pool.map(lambda photo: client.explain(photo, **options), photos))

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def explain_all() -> list[Reply]:
        async with CLIENTS[client_kind](sleep=wait, **settings) as client:
            calls = (client.explain(photo, **options) for photo in photos)
            replies: list[Reply] = await asyncio.gather(*calls)
            return replies

    return asyncio.run(explain_all())


def _token(authorization: str | None) -> str | None:
    return authorization.removeprefix("Bearer ") if authorization else None
