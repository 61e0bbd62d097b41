"""The clients over gRPC: TorchServe's ``Predictions`` call."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from camserve_client._base import ClientConfig, PredictionRequest, _BaseAsyncClient, _BaseClient
from camserve_client.errors import CamserveError, RequestTimeoutError, UnavailableError
from camserve_client.responses import INVALID_TOKEN, error_from_torchserve, status_error
from camserve_client.tokens import Token
from camserve_client.transports._loopback import is_loopback
from camserve_client.transports._protobuf import (
    PREDICTIONS,
    PredictionResponse,
    PredictionsRequest,
)

# gRPC's default is 4 MiB; pictures of a photo's original size are larger.
_MAX_MESSAGE_LENGTH: Final = 64 * 1024 * 1024
_CHANNEL_OPTIONS: Final = [
    ("grpc.max_send_message_length", _MAX_MESSAGE_LENGTH),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_LENGTH),
]
#: The status codes that are worth a retry.
_RETRYABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
#: TorchServe's messages with INTERNAL where HTTP has 503 (a full queue) and 507.
_RETRYABLE_MESSAGES: Final = ("has no worker to serve", "Out of resources", "System out of memory")
#: Of gRPC's message, and the edge's, where a call is too large, which no retry makes smaller.
_TOO_LARGE: Final = "larger than max"
#: TorchServe's exceptions with INTERNAL where HTTP has 404.
_NOT_FOUND: Final = ("ModelNotFoundException", "ModelVersionNotFoundException")


class GrpcClient(_BaseClient):
    """Blocking calls over gRPC.

    Args:
        address: the server's gRPC address, such as ``127.0.0.1:7070``.
        model, version, token, retries, sleep: as for :class:`camserve_client.Client`.
        timeout: of an attempt, in seconds.
        credentials: for TLS, from :func:`grpc.ssl_channel_credentials`; without them, the channel
            is not encrypted.
        server_name: the name in the server's certificate, if it differs from the address.
        channel: the channel to call through, for example with interceptors, instead of one made
            from ``address``, ``credentials`` and ``server_name``; closed with the client. gRPC
            limits the messages of a channel to 4 MiB, unless it is made with other options.

    Raises:
        ValueError: an argument is not valid.

    Example:
        >>> with GrpcClient("127.0.0.1:7070", "resnet50", token=read_token) as client:
        ...     reply = client.predict("cat.jpg", top_k=3)
        >>> reply.predictions[0].label
        'tabby'
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
        channel: grpc.Channel | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(ClientConfig(model, version, timeout, retries), token)
        self._sleep = sleep
        self._address = _check_address(address)
        _check_channel(channel, credentials, server_name)
        if channel is None:
            channel = (
                grpc.insecure_channel(address, _options(address))
                if credentials is None
                else grpc.secure_channel(address, credentials, _options(address, server_name))
            )
        self._channel = channel
        self._predictions = self._channel.unary_unary(
            PREDICTIONS, PredictionsRequest.SerializeToString, PredictionResponse.FromString
        )

    def close(self) -> None:
        self._channel.close()

    def _send(self, request: PredictionRequest) -> bytes:
        message = _message(self._config, request)
        try:
            response = self._predictions(
                message, timeout=self._config.timeout, metadata=_metadata(request)
            )
        except grpc.RpcError as error:
            raise _error_from_grpc(self._address, error) from error
        return bytes(response.prediction)


class AsyncGrpcClient(_BaseAsyncClient):
    """Calls over gRPC to await; the arguments are those of :class:`GrpcClient`.

    ``channel`` is a channel of :mod:`grpc.aio`, made in the event loop that the calls run in.

    Example:
        >>> async def predict(path):
        ...     async with AsyncGrpcClient("127.0.0.1:7070", "resnet50") as client:
        ...         return await client.predict(path)
        >>> asyncio.run(predict("cat.jpg")).predictions[0].label
        'tabby'
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
        channel: grpc.aio.Channel | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(ClientConfig(model, version, timeout, retries), token)
        self._sleep = sleep
        self._address = _check_address(address)
        _check_channel(channel, credentials, server_name)
        self._credentials = credentials
        self._server_name = server_name
        self._channel = channel

    async def aclose(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def _send(self, request: PredictionRequest) -> bytes:
        message = _message(self._config, request)
        try:
            response = await self._predictions()(
                message, timeout=self._config.timeout, metadata=_metadata(request)
            )
        except grpc.RpcError as error:
            raise _error_from_grpc(self._address, error) from error
        return bytes(response.prediction)

    def _predictions(self) -> grpc.aio.UnaryUnaryMultiCallable:
        # A channel belongs to the event loop in which it is made, so the first call makes it.
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self._address, _options(self._address))
                if self._credentials is None
                else grpc.aio.secure_channel(
                    self._address, self._credentials, _options(self._address, self._server_name)
                )
            )
        return self._channel.unary_unary(
            PREDICTIONS, PredictionsRequest.SerializeToString, PredictionResponse.FromString
        )


def _check_channel(channel: Any, credentials: Any, server_name: str | None) -> None:
    if channel is not None and (credentials is not None or server_name is not None):
        raise ValueError("a channel has its own credentials and server_name: give one or the other")


def _options(address: str, server_name: str | None = None) -> list[tuple[str, Any]]:
    """The options of a channel; ``server_name`` is for an encrypted one."""
    direct = [("grpc.enable_http_proxy", 0)] if is_loopback(address.rpartition(":")[0]) else []
    override = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    return [*_CHANNEL_OPTIONS, *direct, *override]


def _check_address(address: str) -> str:
    if "://" in address:
        raise ValueError(f"address {address!r}: accepted is host:port, as 127.0.0.1:7070")
    return address


def _message(config: ClientConfig, request: PredictionRequest) -> Any:
    return PredictionsRequest(
        model_name=config.model,
        model_version=config.version or "",
        input={"data": request.photo, "options": request.options.encode()},
    )


def _metadata(request: PredictionRequest) -> list[tuple[str, str]]:
    authorization = [("authorization", f"Bearer {request.token}")] if request.token else []
    return [("protocol", "gRPC"), *authorization]


def _error_from_grpc(address: str, error: Any) -> CamserveError:
    """The error for a failed call.

    The details that TorchServe sends are a message and, in a line of its own, the name of its
    exception. The statuses are those of the same failures over HTTP.
    """
    code, details = error.code(), error.details() or ""
    message, _, rest = details.partition("\n")
    exception = re.search(r"\w+Exception", rest)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestTimeoutError(f"{address} did not answer in time")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in message:
        return status_error("request_too_large", 413, message)
    if code in _RETRYABLE:
        return UnavailableError(f"{address} is unavailable: {message}")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return error_from_torchserve(INVALID_TOKEN, 400, message)
    if code is grpc.StatusCode.INTERNAL:
        if any(part in message for part in _RETRYABLE_MESSAGES):
            return UnavailableError(f"{address} is unavailable: {message}")
        name = exception[0] if exception else "grpc_internal"
        return error_from_torchserve(name, 404 if name in _NOT_FOUND else 500, message)
    if code is grpc.StatusCode.CANCELLED:
        # TorchServe cancels a call whose message is above its limit.
        reason = f"the server closed the call, as it does when the photo is too large: {message}"
        return status_error("grpc_cancelled", 413, reason)
    return status_error(f"grpc_{code.name.lower()}", 500, message)
