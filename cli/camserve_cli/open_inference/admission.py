"""How many requests are in work, how many wait for that, and how many bytes they may hold."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from camserve_cli.open_inference.errors import FrontError, unavailable


@dataclass(eq=False)
class _Waiting:
    """Something that waits for memory.

    Attributes:
        size: what it needs, in bytes.
        granted: done once it has them.
    """

    size: int
    granted: asyncio.Future[None]


class Reservation:
    """The memory of one request, in bytes. First its body's, then its reply's."""

    def __init__(self, admission: Admission, size: int) -> None:
        self._admission = admission
        self._size = size

    def shrink(self, size: int) -> None:
        """Give back what the request turned out not to need; never more than there is."""
        self._admission.give_back(max(0, self._size - size))
        self._size = min(self._size, size)

    async def exchange(self, size: int) -> None:
        """Give back the request's memory and wait for that of its reply.

        Whoever waits here holds nothing, so that those who hold something come to an end.

        Raises:
            FrontError: ``bad_gateway``: the reply is larger than all the memory.
        """
        self.shrink(0)
        await self._admission.reserve_for_reply(size)
        self._size = size


class Admission:
    """Lets requests in, first come, first served; a reply's memory goes before a new request.

    Args:
        max_active: the most requests that are read, forwarded or answered at a time.
        max_waiting: the most requests that wait for that. Their bodies are not read.
        memory: for the bodies of requests and replies, in bytes.
    """

    def __init__(self, max_active: int, max_waiting: int, memory: int) -> None:
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._memory = memory
        self._memory_left = memory
        self._active = 0
        self._requests: deque[_Waiting] = deque()
        self._replies: deque[_Waiting] = deque()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_closed(self) -> bool:
        """Whether new requests are refused, because the front stops."""
        return self._is_closed

    def close(self) -> None:
        """Refuse new requests; those that are there go on."""
        self._is_closed = True

    async def wait_until_idle(self) -> None:
        """Return when no request is in work or waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def admit(self, size: int) -> AsyncIterator[Reservation]:
        """Wait for a place and memory, and hold them.

        Args:
            size: of the request's body, in bytes; the most that it may have where that is unknown.

        Raises:
            FrontError: ``queue_full``, or ``unavailable``: the front stops.
        """
        if self._is_closed:
            raise unavailable("the server is stopping")
        is_free = self._active < self._max_active and size <= self._memory_left
        if self._requests or self._replies or not is_free:
            await self._wait_for_place(size)
        else:
            self._take(size)
        reservation = Reservation(self, size)
        try:
            yield reservation
        finally:
            self._active -= 1
            reservation.shrink(0)
            self._grant()

    def give_back(self, size: int) -> None:
        """Let others have memory that was reserved."""
        if size:
            self._memory_left += size
            self._grant()

    async def reserve_for_reply(self, size: int) -> None:
        """Wait for a reply's memory.

        Raises:
            FrontError: ``bad_gateway``: there is never so much.
        """
        if size > self._memory:
            raise FrontError("bad_gateway", "the reply is larger than the server may hold")
        if not self._replies and size <= self._memory_left:
            self._memory_left -= size
            return
        await self._wait(self._replies, size, self.give_back)

    async def _wait_for_place(self, size: int) -> None:
        if len(self._requests) >= self._max_waiting:
            raise FrontError(
                "queue_full",
                f"{self._max_waiting} requests are waiting already; try again later",
                headers={"Retry-After": "1"},
            )
        await self._wait(self._requests, size, self._release)

    async def _wait(self, queue: deque[_Waiting], size: int, undo: Callable[[int], None]) -> None:
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        self._idle.clear()
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in queue:
                queue.remove(waiting)
                # What waits behind it may need less.
                self._grant()
            elif not waiting.granted.cancelled():
                undo(size)
            raise

    def _take(self, size: int) -> None:
        self._active += 1
        self._memory_left -= size
        self._idle.clear()

    def _release(self, size: int) -> None:
        self._active -= 1
        self.give_back(size)
        self._grant()

    def _grant(self) -> None:
        """Let in whoever waits, in order, as far as places and memory reach."""
        while self._replies and self._replies[0].size <= self._memory_left:
            waiting = self._replies.popleft()
            # Who has gone away in this very moment is still in the queue.
            if not waiting.granted.cancelled():
                self._memory_left -= waiting.size
                waiting.granted.set_result(None)
        while (
            not self._replies
            and self._requests
            and self._active < self._max_active
            and self._requests[0].size <= self._memory_left
        ):
            waiting = self._requests.popleft()
            if not waiting.granted.cancelled():
                self._take(waiting.size)
                waiting.granted.set_result(None)
        if not self._active and not self._requests:
            self._idle.set()
