"""Answers that are asked for often and may be a second old."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class CachedCall(Generic[Key, Value]):
    """Calls a function once for everybody who asks in the meantime and for some seconds after.

    An exception is an answer as well.

    Args:
        call: what is called with the key.
        seconds: how long its answer is good.
        max_keys: the most answers that are kept; the oldest make room.
    """

    def __init__(
        self, call: Callable[[Key], Awaitable[Value]], seconds: float, max_keys: int = 1000
    ) -> None:
        self._call = call
        self._seconds = seconds
        self._max_keys = max_keys
        self._answers: OrderedDict[Key, tuple[asyncio.Future[Value], float]] = OrderedDict()

    async def get(self, key: Key) -> Value:
        """The answer for a key.

        Raises:
            Exception: what the function raised.
        """
        answer, expires = self._answers.get(key, (None, 0.0))
        if answer is None or (answer.done() and time.monotonic() >= expires):
            answer = asyncio.ensure_future(self._ask(key))
            # It may fail when nobody waits for it any more.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._answers[key] = (answer, float("inf"))
            self._answers.move_to_end(key)
            if len(self._answers) > self._max_keys:
                self._answers.popitem(last=False)
        # Whoever goes away does not take the answer from the others.
        return await asyncio.shield(answer)

    async def _ask(self, key: Key) -> Value:
        try:
            return await self._call(key)
        finally:
            own = self._answers.get(key)
            if own is not None and own[0] is asyncio.current_task():
                self._answers[key] = (own[0], time.monotonic() + self._seconds)
