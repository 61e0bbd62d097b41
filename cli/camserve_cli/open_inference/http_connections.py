"""HTTP connections: a bounded number, and none that sends no request.

aiohttp has a time limit between two requests of a connection, but none for the first.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from camserve_cli.open_inference.limits import Limits


class Connections:
    """Opens connections, and closes those on which no headers arrive in time.

    Args:
        limits: of their number, and of the time for the first headers.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._without_request: dict[RequestHandler, asyncio.TimerHandle] = {}

    def open(self, server: web.Server) -> asyncio.Protocol:
        """What handles a new connection of a server."""
        if len(server.connections) >= self._limits.max_connections:
            return _Refused()
        connection = server()
        self._without_request[connection] = asyncio.get_running_loop().call_later(
            self._limits.header_seconds, self._close, connection
        )
        return connection

    def note_request(self, request: web.Request) -> None:
        """A request has come on its connection."""
        timer = self._without_request.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _close(self, connection: RequestHandler) -> None:
        self._without_request.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
