"""The clients over gRPC, by TorchServe's own ``Predictions`` call."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from camserve_client.answers import TOKEN_REFUSED, torchserve
from camserve_client.calls import AsyncCalls, Request, SyncCalls
from camserve_client.errors import CamserveError, RefusedError, TimedOutError, UnavailableError
from camserve_client.messages import PREDICTIONS, PredictionResponse, PredictionsRequest
from camserve_client.tokens import Token

# A channel takes no more than 4 MiB otherwise; pictures of a photo's own size are more.
_LARGEST: Final = 64 * 1024 * 1024
_OPTIONS: Final = [
    ("grpc.max_send_message_length", _LARGEST),
    ("grpc.max_receive_message_length", _LARGEST),
]
_BUSY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
#: What TorchServe says with INTERNAL where HTTP has 503 (a full queue) and 507.
_BUSY_WORDS: Final = ("has no worker to serve", "Out of resources", "System out of memory")
#: The HTTP status of what TorchServe answers with INTERNAL over gRPC, by its exception's name.
_NOT_FOUND: Final = ("ModelNotFoundException", "ModelVersionNotFoundException")


class GrpcClient(SyncCalls):
    """Blocking calls over gRPC.

    Args:
        address: the server's gRPC address, as ``127.0.0.1:7070``.
        model, version, token, retries, sleep: as for :class:`camserve_client.Client`.
        timeout: the seconds that an attempt may take.
        credentials: for TLS, as :func:`grpc.ssl_channel_credentials` makes them; without, the
            channel is not encrypted.
        server_name: that the certificate must have, where it is not the address's.

    Raises:
        ValueError: an argument is not accepted.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: str | None = None,
        token: Token = None,
        timeout: float = 30.0,
        retries: int = 4,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(model, version, token, timeout, retries)
        self._sleep = sleep
        self._address = _checked(address)
        self._channel = (
            grpc.insecure_channel(address, _OPTIONS)
            if credentials is None
            else grpc.secure_channel(address, credentials, _secured(server_name))
        )
        self._predictions = self._channel.unary_unary(
            PREDICTIONS, PredictionsRequest.SerializeToString, PredictionResponse.FromString
        )

    def close(self) -> None:
        self._channel.close()

    def _send(self, request: Request) -> bytes:
        message = _message(self._model, self._version, request)
        try:
            response = self._predictions(
                message, timeout=self._timeout, metadata=_metadata(request)
            )
        except grpc.RpcError as failure:
            raise _error(self._address, failure) from failure
        return bytes(response.prediction)


class AsyncGrpcClient(AsyncCalls):
    """Calls over gRPC to await; the arguments are those of :class:`GrpcClient`."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: str | None = None,
        token: Token = None,
        timeout: float = 30.0,
        retries: int = 4,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(model, version, token, timeout, retries)
        self._sleep = sleep
        self._address = _checked(address)
        self._credentials = credentials
        self._server_name = server_name
        self._channel: grpc.aio.Channel | None = None

    async def aclose(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def _send(self, request: Request) -> bytes:
        message = _message(self._model, self._version, request)
        try:
            response = await self._predictions()(
                message, timeout=self._timeout, metadata=_metadata(request)
            )
        except grpc.RpcError as failure:
            raise _error(self._address, failure) from failure
        return bytes(response.prediction)

    def _predictions(self) -> grpc.aio.UnaryUnaryMultiCallable:
        # A channel belongs to the event loop that runs when it is made: the one of the first call.
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self._address, _OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(
                    self._address, self._credentials, _secured(self._server_name)
                )
            )
        return self._channel.unary_unary(
            PREDICTIONS, PredictionsRequest.SerializeToString, PredictionResponse.FromString
        )


def _secured(server_name: str | None) -> list[tuple[str, Any]]:
    """The options of an encrypted channel."""
    asked = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    return [*_OPTIONS, *asked]


def _checked(address: str) -> str:
    if "://" in address:
        raise ValueError(f"address {address!r}: accepted is host:port, as 127.0.0.1:7070")
    return address


def _message(model: str, version: str | None, request: Request) -> Any:
    return PredictionsRequest(
        model_name=model,
        model_version=version or "",
        input={"data": request.photo, "options": request.options.encode()},
    )


def _metadata(request: Request) -> list[tuple[str, str]]:
    authorization = [("authorization", f"Bearer {request.token}")] if request.token else []
    return [("protocol", "gRPC"), *authorization]


def _error(address: str, failure: Any) -> CamserveError:
    """What a failed call is to the caller.

    TorchServe says what failed in the details: a message and, in a line of its own, the name of
    its exception. The statuses are those of the same failures over HTTP.
    """
    code, details = failure.code(), failure.details() or ""
    message, _, rest = details.partition("\n")
    exception = re.search(r"\w+Exception", rest)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOutError(f"{address} did not answer in time")
    if code in _BUSY:
        return UnavailableError(f"{address} is unavailable: {message}")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return torchserve(TOKEN_REFUSED, 400, message)
    if code is grpc.StatusCode.INTERNAL:
        if any(words in message for words in _BUSY_WORDS):
            return UnavailableError(f"{address} is unavailable: {message}")
        kind = exception[0] if exception else "grpc_internal"
        return torchserve(kind, 404 if kind in _NOT_FOUND else 500, message)
    if code is grpc.StatusCode.CANCELLED:
        return RefusedError(
            "grpc_cancelled", 413, f"the server broke off, as it does for a large photo: {message}"
        )
    return RefusedError(f"grpc_{code.name.lower()}", 500, message)
