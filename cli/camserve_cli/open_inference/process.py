"""The front as a process: both servers before a TorchServe, from the start to the last reply."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import grpc
from aiohttp import web

from camserve_cli.errors import CommandError
from camserve_cli.open_inference import grpc_service, http_service
from camserve_cli.open_inference.admission import Admission
from camserve_cli.open_inference.http_connections import Connections
from camserve_cli.open_inference.limits import Limits
from camserve_cli.open_inference.service import InferenceService
from camserve_cli.open_inference.torchserve import TorchServe, TorchServeAddress
from camserve_cli.serving.certificates import Certificate

_logger = logging.getLogger(__name__)


class FrontProcessError(CommandError):
    """What keeps the front from listening, in words for the person who starts it."""


@dataclass(frozen=True)
class Settings:
    """How the front is started.

    Attributes:
        upstream: the TorchServe that it stands before.
        http, grpc: ``host:port`` to listen on.
        certificate: with which both ports speak TLS; None for none.
        limits: of requests.
    """

    upstream: TorchServeAddress
    http: str = "127.0.0.1:8000"
    grpc: str = "127.0.0.1:8001"
    certificate: Certificate | None = None
    limits: Limits = field(default_factory=Limits)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in work, 20 seconds at most.

    Raises:
        FrontProcessError: an address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    limits = settings.limits
    admission = Admission(limits.max_active, limits.max_waiting, limits.memory)
    host = TorchServe(settings.upstream, limits.max_reply)
    service = InferenceService(host, admission)
    try:
        # Who is answered over HTTP can call over gRPC as well.
        async with _grpc(service, settings) as rpc, _http(service, settings) as http:
            _logger.info("listening: HTTP %s, gRPC %s", settings.http, settings.grpc)
            await stop.wait()
            _logger.info("stopping: no new requests")
            admission.close()
            http.close()
            # Both end early where nothing is in work.
            await asyncio.gather(rpc.stop(limits.drain_seconds), _drain(admission, limits))
    finally:
        await host.close()
    _logger.info("stopped")


async def _drain(admission: Admission, limits: Limits) -> None:
    """Wait for the requests in work, as long as the limits allow."""
    try:
        async with asyncio.timeout(limits.drain_seconds):
            await admission.wait_until_idle()
    except TimeoutError:
        _logger.warning("requests were still in work after %g s", limits.drain_seconds)


@asynccontextmanager
async def _http(service: InferenceService, settings: Settings) -> AsyncIterator[asyncio.Server]:
    """The HTTP server, listening."""
    limits = settings.limits
    connections = Connections(limits)
    app = http_service.create_app(service, limits, connections)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        keepalive_timeout=60,
        max_line_size=limits.max_headers,
        max_field_size=limits.max_headers,
    )
    await runner.setup()
    # It is there once the runner is set up.
    handler = cast(web.Server, runner.server)
    host, _, port = settings.http.rpartition(":")
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: connections.open(handler),
            host.strip("[]"),
            int(port),
            ssl=_tls(settings.certificate),
            ssl_handshake_timeout=limits.header_seconds if settings.certificate else None,
        )
    except OSError as failure:
        await runner.cleanup()
        raise FrontProcessError(f"cannot listen on {settings.http}: {failure.strerror}") from None
    try:
        yield server
    finally:
        server.close()
        await runner.cleanup()


@asynccontextmanager
async def _grpc(service: InferenceService, settings: Settings) -> AsyncIterator[grpc.aio.Server]:
    """The gRPC server, listening."""
    server = grpc_service.create_server(service, settings.limits)
    try:
        if settings.certificate is None:
            server.add_insecure_port(settings.grpc)
        else:
            pair = (settings.certificate.key.read_bytes(), settings.certificate.chain.read_bytes())
            server.add_secure_port(settings.grpc, grpc.ssl_server_credentials([pair]))
        await server.start()
    except RuntimeError:
        raise FrontProcessError(f"cannot listen on {settings.grpc}; is the port taken?") from None
    try:
        yield server
    finally:
        await server.stop(0)


def _tls(certificate: Certificate | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.chain, certificate.key)
    return context
