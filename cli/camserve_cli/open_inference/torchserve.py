"""TorchServe as a host: the only module of the front that knows it.

Each request has a connection of its own: while a worker is scaled down, TorchServe may answer a
request twice, and the second answer would be taken for that of the connection's next request.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson

from camserve_cli.arguments import is_name
from camserve_cli.open_inference.errors import FrontError, unauthorized, unavailable
from camserve_cli.open_inference.host import HostReply, HostRequest, Models, ReserveReply
from camserve_cli.open_inference.upstream import UpstreamClient, UpstreamError
from camserve_cli.serving import ready
from camserve_cli.serving.tokens import TokenError, current_token

#: Longer than responseTimeout of model-config.yaml (60 s), so that TorchServe itself reports a
#: request that it gives up.
REPLY_TIMEOUT: Final = 90.0
#: Seconds of a call that is no prediction.
_CALL_TIMEOUT: Final = 10.0
#: Connections that wait for a request.
_SPARE: Final = 4
_JSON_LENGTH: Final = "inference-header-content-length"
#: By the status of an error that TorchServe itself answers with.
_ERRORS: Final = {
    413: ("request_too_large", "the request is larger than the server accepts"),
    500: ("internal_error", "the model's worker ended, or gave no answer in time"),
    503: ("unavailable", "the model's queue is full, or it has no worker; try again later"),
    507: ("out_of_memory", "the model's worker ended while it held the request; try again later"),
}


@dataclass(frozen=True)
class TorchServeAddress:
    """Where a TorchServe listens, and where its tokens are.

    Attributes:
        inference, management: base URLs.
        token_folder: holds key_file.json; without one, calls carry no token.
        token_lifetime: of a new token, in seconds.
        trust: verifies its certificate; None where it speaks no TLS.
    """

    inference: str
    management: str
    token_folder: Path
    token_lifetime: float = 3600.0
    trust: ssl.SSLContext | None = None


class TorchServe:
    """A running TorchServe. It implements :class:`~camserve_cli.open_inference.host.ModelHost`.

    Args:
        address: where it listens.
        max_reply: the most bytes of a reply.
    """

    platform = "torchserve"

    def __init__(self, address: TorchServeAddress, max_reply: int) -> None:
        self._address = address
        self._max_reply = max_reply
        self._inference = UpstreamClient(address.inference, address.trust, spare=_SPARE)
        self._management = UpstreamClient(address.management, address.trust, spare=0)

    async def close(self) -> None:
        """Close its connections."""
        await self._inference.close()
        await self._management.close()

    async def is_live(self) -> bool:
        """Whether /ping answers, and does not say that only a restart helps."""
        try:
            status, _ = await _call(self._inference, "/ping", await self._token("inference"))
        except FrontError:
            return False
        # A token that is refused was refused by a live server.
        return status < 500

    async def models(self) -> Models:
        """The models by the management API.

        Raises:
            FrontError: ``unavailable``: it does not answer.
        """
        listed = await self._manage("/models?limit=1000")
        models = {}
        for name in [str(model["modelName"]) for model in listed["models"]]:
            (default, *_), every = await asyncio.gather(
                self._manage(f"/models/{quote(name)}"), self._manage(f"/models/{quote(name)}/all")
            )
            first = str(default["modelVersion"])
            versions = [str(model["modelVersion"]) for model in every]
            models[name] = (first, *(version for version in versions if version != first))
        return models

    async def is_model_ready(self, model: str, version: str) -> bool:
        """Whether a model answers a prediction, without an explanation, in 10 seconds."""
        request = HostRequest(
            model,
            version,
            ready.PHOTO,
            {"Content-Type": "image/png", "X-Explain": '{"explain": false}'},
            authorization=await self._token("inference"),
            timeout=_CALL_TIMEOUT,
        )
        try:
            reply = await self.infer(request, _reserve_nothing)
            return bool(orjson.loads(reply.body)["predictions"])
        except (FrontError, ValueError, KeyError, TypeError):
            return False

    async def check_authorization(self, authorization: str) -> None:
        """Ask /ping with a caller's token.

        Raises:
            FrontError: ``unauthorized``, or ``unavailable``: it does not answer.
        """
        status, body = await _call(self._inference, "/ping", authorization)
        if status >= 400 and _is_token_refusal(body):
            raise unauthorized(has_token=bool(authorization))

    async def infer(self, request: HostRequest, reserve_reply: ReserveReply) -> HostReply:
        """The handler's answer to a request, be it an error.

        Raises:
            FrontError: TorchServe itself answers with an error, does not answer in time, or cannot
                be reached.
        """
        headers = dict(request.headers)
        if request.authorization:
            headers["Authorization"] = request.authorization
        limit = REPLY_TIMEOUT if request.timeout is None else min(REPLY_TIMEOUT, request.timeout)

        async def reserve(length: int) -> None:
            if length > self._max_reply:
                raise FrontError("bad_gateway", "the reply is larger than max_response_size")
            await reserve_reply(length)

        try:
            async with asyncio.timeout(limit):
                reply = await self._inference.request(
                    "POST", _path(request), headers, request.body, reserve
                )
        except TimeoutError:
            hint = "try again later"
            if limit == request.timeout:
                hint = "that is the request's own timeout; accepted: a longer one"
            raise FrontError("timed_out", f"no answer in {limit:g} s; {hint}") from None
        except UpstreamError:
            raise unavailable("the server cannot be reached, or ended its connection") from None
        if reply.status != 200 and not _is_of_handler(reply.body):
            raise _error_of(reply.status, reply.body, request)
        json_length = reply.headers.get(_JSON_LENGTH)
        return HostReply(
            reply.body,
            reply.headers.get("content-type", "application/json"),
            int(json_length) if json_length else None,
            reply.status,
        )

    async def _manage(self, path: str) -> Any:
        """What the management API answers, parsed.

        Raises:
            FrontError: ``unavailable``: it does not answer, or not with JSON.
        """
        token = await self._token("management")
        status, body = await _call(self._management, path, token)
        try:
            if status == 200:
                return orjson.loads(body)
        except ValueError:
            pass
        raise unavailable(f"TorchServe's management API answers with HTTP {status}")

    async def _token(self, kind: str) -> str:
        """The front's own authorization; empty where TorchServe has no tokens."""
        try:
            # It waits for a lock, and may call TorchServe.
            token = await asyncio.to_thread(
                current_token,
                self._address.token_folder,
                kind,
                self._address.token_lifetime,
                lambda key: self._renew(kind, key),
            )
        except (TokenError, ready.NotReadyError, OSError):
            return ""
        return f"Bearer {token.text}"

    def _renew(self, kind: str, key: str) -> None:
        """Have TorchServe make a new token.

        Raises:
            ready.NotReadyError: it does not answer.
        """
        address = ready.Address(self._address.management, _CALL_TIMEOUT, self._address.trust)
        address.call("GET", f"/token?type={kind}", key)


async def _reserve_nothing(size: int) -> None:
    """Let a reply of a few hundred bytes in."""


async def _call(client: UpstreamClient, path: str, authorization: str) -> tuple[int, bytes]:
    """The status and the body that a path answers with.

    Raises:
        FrontError: ``unavailable``: there is no answer in 10 seconds.
    """
    headers = {"Authorization": authorization} if authorization else {}
    try:
        async with asyncio.timeout(_CALL_TIMEOUT):
            reply = await client.request("GET", path, headers)
    except (TimeoutError, UpstreamError):
        raise unavailable("the server cannot be reached, or does not answer") from None
    return reply.status, bytes(reply.body)


def _path(request: HostRequest) -> str:
    """The path of a prediction.

    Raises:
        FrontError: ``not_found``: no model or version has such a name.
    """
    if not is_name(request.model) or (request.version and not is_name(request.version)):
        raise _unknown(request.model, request.version)
    verb = "explanations" if request.explain else "predictions"
    version = f"/{quote(request.version)}" if request.version else ""
    return f"/{verb}/{quote(request.model)}{version}"


def _unknown(model: str, version: str) -> FrontError:
    what = f"model {model[:80]!r}" + (f" of version {version[:80]!r}" if version else "")
    return FrontError(
        "not_found",
        f"no {what} is served here; GET /v2/models lists the models, GET /v2/models/M the versions",
    )


def _is_token_refusal(body: bytes | bytearray) -> bool:
    return b"InvalidKeyException" in body[:500]


def _is_of_handler(body: bytes | bytearray) -> bool:
    """Whether an error is the handler's: TorchServe's own have a type."""
    try:
        told = json.loads(body)
    except ValueError:
        return False
    return isinstance(told, Mapping) and not {"code", "type", "message"} <= told.keys()


def _error_of(status: int, body: bytes | bytearray, request: HostRequest) -> FrontError:
    """An error that TorchServe itself answers with."""
    if _is_token_refusal(body):
        return unauthorized(has_token=bool(request.authorization))
    if status == 404:
        return _unknown(request.model, request.version)
    if status in _ERRORS:
        code, message = _ERRORS[status]
        return FrontError(code, message)
    if status < 500:
        return FrontError("invalid_request", "the server could not read the request", status=status)
    return FrontError("internal_error", f"the server failed with HTTP {status}", status=status)
