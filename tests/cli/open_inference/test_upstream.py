"""The HTTP client of the front: replies in pieces, broken ones, and connections that end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from camserve_cli.open_inference.upstream import UpstreamClient, UpstreamError, UpstreamReply


async def exchange(
    *pieces: bytes, requests: int = 1, body: bytes = b"body"
) -> tuple[list[UpstreamReply], list[bytes]]:
    """The replies of a server that answers with these pieces, and what it received."""
    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            received.append(head + await reader.readexactly(len(body)))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        except asyncio.IncompleteReadError:
            # A spare connection that was not used.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = UpstreamClient(f"http://127.0.0.1:{port}", None, spare=2)
    try:
        replies = [await client.request("POST", "/p", {"X-A": "1"}, body) for _ in range(requests)]
    finally:
        await client.close()
        server.close()
    return replies, received


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-B: 2\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b"12345",),
        (HEAD, b"12345"),
        (HEAD[:20], HEAD[20:] + b"12", b"345"),
        (HEAD + b"12345 and what is behind it",),
    ],
)
def test_a_reply_in_any_pieces(pieces: tuple[bytes, ...]) -> None:
    ((reply,), (received,)) = asyncio.run(exchange(*pieces))
    assert (reply.status, bytes(reply.body)) == (200, b"12345")
    assert reply.headers["x-b"] == "2"
    assert received.startswith(b"POST /p HTTP/1.1\r\n")
    assert b"\r\nX-A: 1\r\n" in received
    assert received.endswith(b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")


def test_a_large_reply_and_many_requests() -> None:
    body = bytes(range(256)) * 4000
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    replies, received = asyncio.run(exchange(head + body, requests=5, body=body))
    assert [bytes(reply.body) == body for reply in replies] == [True] * 5
    assert len(received) == 5


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200 OK\r\n",),
        (b"SSH-2.0-OpenSSH\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",),
        (b"HTTP/1.1 x OK\r\nContent-Length: 1\r\n\r\n1",),
        (HEAD, b"123"),
        (b"x" * 70_000,),
    ],
)
def test_no_whole_reply(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(UpstreamError):
        asyncio.run(exchange(*pieces))


def test_nobody_listens() -> None:
    async def test() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        client = UpstreamClient(f"http://127.0.0.1:{port}", None, spare=1)
        with pytest.raises(UpstreamError):
            await client.request("GET", "/", {})
        await client.close()

    asyncio.run(test())


def test_a_header_cannot_end_the_head() -> None:
    async def test() -> None:
        client = UpstreamClient("http://127.0.0.1:1", None, spare=0)
        with pytest.raises(ValueError, match="line break"):
            await client.request("GET", "/", {"X-A": "1\r\nX-B: 2"})

    asyncio.run(test())


def test_room_for_the_reply_is_made_before_it_is_read() -> None:
    async def test(reserve: Callable[[int], Awaitable[None]]) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + b"12345")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = UpstreamClient(f"http://127.0.0.1:{port}", None, spare=0)
        reply = await client.request("GET", "/", {}, reserve=reserve)
        assert bytes(reply.body) == b"12345"
        server.close()

    reserved: list[int] = []

    async def reserve(length: int) -> None:
        reserved.append(length)
        await asyncio.sleep(0.05)

    asyncio.run(test(reserve))
    assert reserved == [5]
