"""KServe v1 and v2 over HTTP, for aiohttp. The bodies of predictions pass through as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.host import HostReply, HostRequest
from camserve_cli.open_inference.http_connections import Connections
from camserve_cli.open_inference.http_request import (
    JSON_LENGTH,
    authorization_of,
    headers_for_host,
    timeout_in,
)
from camserve_cli.open_inference.limits import Limits
from camserve_cli.open_inference.service import (
    EXTENSIONS,
    InferenceService,
    ModelMetadata,
    server_version,
)

_logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: As KServe's client compares it, without a charset.
_JSON: Final = "application/json"
_PATHS: Final = (
    "GET /v2, /v2/health/live, /v2/health/ready, /v2/models, /v2/models/M, /v2/models/M/ready, "
    "/v1/models, /v1/models/M; POST /v2/models/M/infer, /v2/models/M/explain, "
    "/v1/models/M:predict, /v1/models/M:explain; in /v2 also /v2/models/M/versions/V/.."
)
#: Replies of fewer bytes are not worth a compression.
_COMPRESSIBLE: Final = 1000


def create_app(
    service: InferenceService, limits: Limits, connections: Connections
) -> web.Application:
    """The application with all paths."""

    @web.middleware
    async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.note_request(request)
        return await handler(request)

    routes = _Routes(service, limits)
    app = web.Application(
        middlewares=[note_request, _errors_as_json], client_max_size=limits.max_request
    )
    app.on_response_prepare.append(_hide_software)
    get, post = app.router.add_get, app.router.add_post
    get("/", routes.alive, allow_head=False)
    get("/v2", routes.server_metadata, allow_head=False)
    get("/v2/", routes.server_metadata, allow_head=False)
    get("/v2/health/live", routes.live, allow_head=False)
    get("/v2/health/ready", routes.ready, allow_head=False)
    get("/v2/models", routes.models, allow_head=False)
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        get(model, routes.model_metadata, allow_head=False)
        get(f"{model}/ready", routes.model_ready, allow_head=False)
        post(f"{model}/infer", routes.predict, expect_handler=_expect)
        post(f"{model}/explain", routes.explain, expect_handler=_expect)
    get("/v1/models", routes.v1_models, allow_head=False)
    get("/v1/models/{model:[^:/]+}", routes.v1_model_ready, allow_head=False)
    post("/v1/models/{model:[^:/]+}:predict", routes.predict, expect_handler=_expect)
    post("/v1/models/{model:[^:/]+}:explain", routes.explain, expect_handler=_expect)
    return app


class _Routes:
    """What answers each path."""

    def __init__(self, service: InferenceService, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def alive(self, request: web.Request) -> web.Response:
        """KServe's client asks this for whether a server of protocol v1 lives."""
        return _json({"status": "alive" if await self._service.is_live() else "dead"})

    async def live(self, request: web.Request) -> web.Response:
        live = await self._service.is_live()
        return _json({"live": live}, 200 if live else 503)

    async def ready(self, request: web.Request) -> web.Response:
        ready = await self._service.is_ready()
        return _json({"ready": ready}, 200 if ready else 503)

    async def server_metadata(self, request: web.Request) -> web.Response:
        await self._service.authorize(authorization_of(request))
        told = {"name": "camserve", "version": server_version(), "extensions": EXTENSIONS}
        return _json(told)

    async def models(self, request: web.Request) -> web.Response:
        await self._service.authorize(authorization_of(request))
        return _json({"models": list(await self._service.models())})

    async def model_metadata(self, request: web.Request) -> web.Response:
        await self._service.authorize(authorization_of(request))
        return _json(_metadata_json(await self._service.model_metadata(*_model(request))))

    async def model_ready(self, request: web.Request) -> web.Response:
        model, version = _model(request)
        ready = await self._service.is_model_ready(model, version)
        return _json({"name": model, "ready": ready}, 200 if ready else 503)

    async def v1_models(self, request: web.Request) -> web.Response:
        return await self.models(request)

    async def v1_model_ready(self, request: web.Request) -> web.Response:
        return await self.model_ready(request)

    async def predict(self, request: web.Request) -> web.StreamResponse:
        return await self._infer(request, explain=False)

    async def explain(self, request: web.Request) -> web.StreamResponse:
        return await self._infer(request, explain=True)

    async def _infer(self, request: web.Request, *, explain: bool) -> web.StreamResponse:
        authorization = authorization_of(request)
        headers = headers_for_host(request)
        await self._service.authorize(authorization)
        length = request.content_length
        largest = self._limits.max_request
        if length is not None and length > largest:
            raise _too_large(largest)
        size = largest if length is None else length
        async with self._service.admission.admit(size) as reservation:
            body = await self._read(request)
            reservation.shrink(len(body))
            model, version = _model(request)
            timeout = timeout_in(body, headers)
            host_request = HostRequest(
                model, version, body, headers, explain, authorization, timeout
            )
            del body
            reply = await self._service.infer(host_request, reservation)
            del host_request
            return await self._send(request, reply)

    async def _read(self, request: web.Request) -> bytearray:
        """The body of a request.

        Raises:
            FrontError: ``request_timeout``, ``request_too_large``.
        """
        if request.headers.get(hdrs.EXPECT) and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                while piece := await self._read_piece(request):
                    body += piece
                    if len(body) > self._limits.max_request:
                        raise _too_large(self._limits.max_request)
        except TimeoutError:
            raise FrontError(
                "request_timeout",
                f"the body did not arrive in {self._limits.receive_seconds:g} s, or nothing of it "
                f"for {self._limits.silence_seconds:g} s",
                headers={"Connection": "close"},
            ) from None
        return body

    async def _read_piece(self, request: web.Request) -> bytes:
        async with asyncio.timeout(self._limits.silence_seconds):
            return await request.content.readany()

    async def _send(self, request: web.Request, reply: HostReply) -> web.StreamResponse:
        """Send a reply, and return once the caller has read most of it."""
        body = reply.body
        if reply.status != 200 and _is_v2(request):
            body = _error_as_text(body)
        response = web.Response(status=reply.status, body=body)
        response.headers[hdrs.CONTENT_TYPE] = reply.content_type
        if reply.json_length is not None:
            response.headers[JSON_LENGTH] = str(reply.json_length)
        # Who names one encoding wants it. Libraries that name all they know would pay for it with
        # more time than it saves.
        encoding = request.headers.get(hdrs.ACCEPT_ENCODING, "").strip().lower()
        if encoding in ("gzip", "deflate") and len(body) > _COMPRESSIBLE:
            response.enable_compression(web.ContentCoding(encoding))
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as the protocol of the path has them."""
    try:
        return await handler(request)
    except FrontError as failure:
        error = failure
    except web.HTTPMethodNotAllowed as failure:
        error = FrontError(
            "method_not_allowed",
            "this path has no such method; the header Allow names those that it has",
            headers={"Allow": ", ".join(sorted(failure.allowed_methods))},
        )
    except web.HTTPNotFound:
        error = FrontError("not_found", f"no such path here; accepted: {_PATHS}")
    except ConnectionError:
        # The caller has gone.
        raise
    except Exception as failure:
        # Its text may repeat what a caller sent.
        _logger.error("a request failed", exc_info=failure)
        error = FrontError("internal_error", "the server failed; its log says where")
    return _json(error.to_json(as_text=_is_v2(request)), error.status, error.headers)


def _is_v2(request: web.Request) -> bool:
    """Whether errors are those of KServe v2, by the path."""
    return request.path == "/v2" or request.path.startswith("/v2/")


async def _expect(request: web.Request) -> None:
    """Let the caller wait until its request is admitted."""


async def _hide_software(request: web.Request, response: web.StreamResponse) -> None:
    """Leave out the versions of Python and aiohttp."""
    response.headers[hdrs.SERVER] = "camserve"


def _json(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    response = web.Response(body=orjson.dumps(content), status=status, headers=headers)
    response.headers[hdrs.CONTENT_TYPE] = _JSON
    return response


def _metadata_json(told: ModelMetadata) -> dict[str, Any]:
    inputs, outputs = (
        [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
            for tensor in tensors
        ]
        for tensors in (told.inputs, told.outputs)
    )
    return {
        "name": told.name,
        "versions": told.versions,
        "platform": told.platform,
        "inputs": inputs,
        "outputs": outputs,
    }


def _model(request: web.Request) -> tuple[str, str]:
    """The model and the version of a path; the version is empty where it names none."""
    return request.match_info["model"], request.match_info.get("version", "")


def _error_as_text(body: bytes | bytearray) -> bytes | bytearray:
    """The handler's error to what was no KServe v2, as KServe v2 has errors."""
    try:
        told = orjson.loads(body)
        if isinstance(told["error"], dict):
            told["error_detail"], told["error"] = told["error"], told["error"]["message"]
            return orjson.dumps(told)
    except (ValueError, KeyError, TypeError):
        pass
    return body


def _too_large(largest: int) -> FrontError:
    return FrontError(
        "request_too_large",
        f"the request is larger than max_request_size ({largest} bytes); accepted: a smaller photo",
        headers={"Connection": "close"},
    )
