"""A small HTTP/1.1 client that uses each connection for one request, and opens it ahead of time.

A connection of its own costs a request some 0.4 ms, unless it is there already; a general client
costs as much again.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

_CONNECT_SECONDS: Final = 2.0
#: Seconds that a connection waits for its request; what stands between may forget it after more.
_SPARE_SECONDS: Final = 60.0
_MAX_HEAD: Final = 65536


class UpstreamError(Exception):
    """No connection, or no whole HTTP reply on it."""


@dataclass(frozen=True)
class UpstreamReply:
    """An HTTP reply.

    Attributes:
        headers: by their names in small letters.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray


class UpstreamClient:
    """Calls one address.

    Args:
        base: ``http://host:port`` or ``https://host:port``.
        trust: verifies the certificate where it is https.
        spare: how many connections wait for a request.
    """

    def __init__(self, base: str, trust: ssl.SSLContext | None, spare: int) -> None:
        parts = urlsplit(base)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._host_header = parts.netloc
        self._trust = trust if parts.scheme == "https" else None
        self._spare = spare
        self._waiting: deque[tuple[_Connection, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | bytearray = b"",
        reserve: Callable[[int], Awaitable[None]] | None = None,
    ) -> UpstreamReply:
        """Send a request, and read the reply.

        Args:
            path: percent-encoded.
            headers: without Host and Content-Length.
            reserve: is told the length of the reply's body before that is read.

        Raises:
            UpstreamError: there is no connection, or no whole reply.
            ValueError: a header has a line break.
        """
        head = _request_head(method, path, {"Host": self._host_header, **headers}, len(body))
        connection = await self._connection()
        try:
            connection.send(head, body)
            status, reply_headers, length = await connection.head
            if reserve is not None:
                await reserve(length)
            return UpstreamReply(status, reply_headers, await connection.read_body(length))
        finally:
            connection.abort()

    async def close(self) -> None:
        """Close the connections that wait."""
        self._is_closed = True
        for task in self._opening:
            task.cancel()
        for connection, _ in self._waiting:
            connection.abort()
        self._waiting.clear()

    async def _connection(self) -> _Connection:
        """One that waits, or a new one."""
        taken = None
        while self._waiting and taken is None:
            connection, opened = self._waiting.popleft()
            if connection.is_open and time.monotonic() - opened < _SPARE_SECONDS:
                taken = connection
            else:
                connection.abort()
        connection = taken or await self._open()
        # When the reply is there, so are they.
        while len(self._waiting) + len(self._opening) < self._spare and not self._is_closed:
            task = asyncio.create_task(self._open_spare())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        return connection

    async def _open_spare(self) -> None:
        with suppress(UpstreamError):
            self._waiting.append((await self._open(), time.monotonic()))

    async def _open(self) -> _Connection:
        """A new connection.

        Raises:
            UpstreamError: it cannot be opened.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection, self._host, self._port, ssl=self._trust
                )
        except (OSError, TimeoutError) as failure:
            raise UpstreamError(f"no connection: {type(failure).__name__}") from None
        return connection


class _Connection(asyncio.BufferedProtocol):
    """One request and its reply."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        #: The reply's status, headers and length.
        self.head: asyncio.Future[tuple[int, dict[str, str], int]] = loop.create_future()
        self._whole: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_MAX_HEAD)
        self._filled = 0
        for future in (self.head, self._whole):
            # Nobody may be waiting when the connection is lost.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes | bytearray) -> None:
        """Send the request.

        Raises:
            UpstreamError: the connection is closed.
        """
        if self._transport is None:
            raise UpstreamError("the connection was closed")
        self._transport.writelines([head, body] if body else [head])

    async def read_body(self, length: int) -> bytes | bytearray:
        """The reply's body, of the length that the head says.

        Raises:
            UpstreamError: it does not come to its end.
        """
        begin = self._buffer.index(b"\r\n\r\n") + 4
        rest = memoryview(self._buffer)[begin : min(self._filled, begin + length)]
        if len(rest) == length:
            return bytes(rest)
        body = bytearray(length)
        body[: len(rest)] = rest
        self._filled = len(rest)
        self._buffer = body
        if self._transport is None:
            raise UpstreamError("the connection was closed")
        self._transport.resume_reading()
        await self._whole
        return body

    def abort(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is not of this class.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if not self.head.done():
            self._parse_head()
        elif self._filled == len(self._buffer) and not self._whole.done():
            self._whole.set_result(None)
            self._pause()

    def eof_received(self) -> None:
        self._fail()

    def connection_lost(self, failure: Exception | None) -> None:
        self._fail()
        self._transport = None

    def _parse_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0 and self._filled < _MAX_HEAD:
            return
        # The body is read once there is room for it.
        self._pause()
        try:
            self.head.set_result(_parse_reply_head(bytes(self._buffer[: max(end, 0)])))
        except (ValueError, KeyError, IndexError):
            self.head.set_exception(UpstreamError("not an HTTP reply with a length"))

    def _pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _fail(self) -> None:
        for future in (self.head, self._whole):
            if not future.done():
                future.set_exception(UpstreamError("the connection was closed"))


def _request_head(method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
    """The bytes before a request's body.

    Raises:
        ValueError: a header has a character that would end it.
    """
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {length}", "Connection: close"]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("a header of the request has a line break")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _parse_reply_head(head: bytes) -> tuple[int, dict[str, str], int]:
    """The status, the headers and the body's length.

    Raises:
        ValueError, KeyError, IndexError: it is no head of a reply with a length.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status = first.split(" ")[:2]
    if not version.startswith("HTTP/1."):
        raise ValueError("not HTTP")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers["content-length"])
    if length < 0:
        raise ValueError("a negative length")
    return int(status), headers, length
