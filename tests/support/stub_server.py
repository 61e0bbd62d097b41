"""A server that answers as it is told, over HTTP and gRPC, and the four clients to ask it with.

What holds for one client holds for all, so most tests of them are written once, for each of
:data:`WAYS`.
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

WAYS = ("http", "http async", "grpc", "grpc async")
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
_NO_TOKEN = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


@dataclass(frozen=True)
class Answer:
    """One answer, as TorchServe gives it over either transport.

    Attributes:
        status, body, headers: over HTTP; a body of text is one of TorchServe's own errors.
        failure: over gRPC, which gives the body otherwise.
        raises: what httpx raises instead.
    """

    status: int = 200
    body: Any = None
    failure: tuple[grpc.StatusCode, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    raises: type[httpx.RequestError] | None = None

    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def torchserve(status: int, kind: str, message: str) -> dict[str, Any]:
    return {"code": status, "type": kind, "message": message}


OK = Answer(body=REPLY)
QUEUE_FULL = Answer(
    503,
    torchserve(503, "ServiceUnavailableException", _NO_WORKER),
    (grpc.StatusCode.INTERNAL, f"{_NO_WORKER}\nInternalServerException.()"),
)
WORKER_DIED = Answer(
    507,
    torchserve(507, "InternalServerException", "Worker died."),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Worker died.\norg.pytorch.serve.http.InternalServerException",
    ),
)
HANDLER_RAISED = Answer(
    503,
    torchserve(503, "InternalServerException", "Prediction failed"),
    (
        grpc.StatusCode.UNAVAILABLE,
        "Prediction failed\norg.pytorch.serve.http.InternalServerException",
    ),
)
OUT_OF_MEMORY = Answer(
    507,
    torchserve(507, "InternalServerException", "Out of resources"),
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
BROKEN_OFF = Answer(
    failure=(grpc.StatusCode.UNAVAILABLE, "Socket closed"), raises=httpx.RemoteProtocolError
)
TIMED_OUT = Answer(
    failure=(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), raises=httpx.ReadTimeout
)
TOKEN_REFUSED = Answer(
    400,
    torchserve(400, "InvalidKeyException", _NO_TOKEN),
    (grpc.StatusCode.PERMISSION_DENIED, _NO_TOKEN),
)
NO_MODEL = Answer(
    404,
    torchserve(404, "ModelNotFoundException", "Model not found: pets"),
    (
        grpc.StatusCode.INTERNAL,
        "Model not found: pets\norg.pytorch.serve.archive.model.ModelNotFoundException",
    ),
)
REFUSED = Answer(
    400,
    {"error": {"code": "unknown_class", "status": 400, "message": "target 'pink' is no label"}},
)


@dataclass(frozen=True)
class Asked:
    """What one attempt carried."""

    model: str
    version: str
    photo: bytes
    options: str
    token: str | None
    timeout: float


@dataclass
class Stub:
    """The server.

    Attributes:
        answers: given in turn; the last one from then on. A callable answers by the token.
        asked: every attempt that came.
        paths: of those over HTTP.
        waits: what the clients waited before they repeated a call, in seconds.
    """

    answers: list[Answer] | Callable[[str | None], Answer]
    asked: list[Asked] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if callable(self.answers):
            return self.answers(asked.token)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    def over_http(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.raw_path.decode())
        _, predictions, model, *version = self.paths[-1].split("/")
        assert predictions == "predictions"
        assert request.headers["Content-Type"] == "application/octet-stream"
        asked = Asked(
            model,
            "".join(version),
            request.content,
            request.headers["X-Explain"],
            _token(request.headers.get("Authorization")),
            request.extensions["timeout"]["read"],
        )
        answer = self.answer(asked)
        if answer.raises:
            raise answer.raises("as told", request=request)
        return httpx.Response(answer.status, content=answer.data(), headers=answer.headers)

    def over_grpc(self, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        assert metadata["protocol"] == "gRPC"
        assert set(request.input) == {"data", "options"}
        asked = Asked(
            request.model_name,
            request.model_version,
            request.input["data"],
            request.input["options"].decode(),
            _token(metadata.get("authorization")),
            context.time_remaining(),
        )
        answer = self.answer(asked)
        if answer.failure:
            context.abort(*answer.failure)
        return inference_pb2.PredictionResponse(prediction=answer.data())

    @contextmanager
    def served(
        self, way: str, credentials: grpc.ServerCredentials | None = None
    ) -> Iterator[dict[str, Any]]:
        """The server's address and what else a client needs to reach it."""
        if way.startswith("http"):
            transport = httpx.MockTransport(self.over_http)
            yield {"address": "http://cam.example", "transport": transport}
            return
        handler = grpc.method_handlers_generic_handler(
            "org.pytorch.serve.grpc.inference.InferenceAPIsService",
            {
                # By TorchServe's own definitions, not the client's.
                "Predictions": grpc.unary_unary_rpc_method_handler(
                    self.over_grpc,
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
        way: str,
        *photos: Any,
        settings: dict[str, Any] | None = None,
        credentials: grpc.ServerCredentials | None = None,
        **options: Any,
    ) -> list[Reply]:
        """A client explains photos, all at once.

        Args:
            way: the client, one of :data:`WAYS`.
            photos: one by default.
            settings: the client's.
            credentials: the server's, for gRPC.
            options: of the call.
        """
        with self.served(way, credentials) as place:
            given = {"model": "pets", **place, **(settings or {})}
            return explain(way, photos or (b"photo",), self.waits, given, options)


def explain(
    way: str, photos: Any, waits: list[float], settings: dict[str, Any], options: dict[str, Any]
) -> list[Reply]:
    """A client explains photos; it is closed afterwards."""
    if not way.endswith("async"):
        with (
            CLIENTS[way](sleep=waits.append, **settings) as client,
            ThreadPoolExecutor(len(photos)) as pool,
        ):
            return list(pool.map(lambda photo: client.explain(photo, **options), photos))

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def ask() -> list[Reply]:
        async with CLIENTS[way](sleep=wait, **settings) as client:
            return await asyncio.gather(*(client.explain(photo, **options) for photo in photos))

    return asyncio.run(ask())


def _token(authorization: str | None) -> str | None:
    return authorization.removeprefix("Bearer ") if authorization else None
