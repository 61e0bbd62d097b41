"""Admission: places, memory, the queue, and who goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from camserve_cli.open_inference.admission import Admission
from camserve_cli.open_inference.cached import CachedCall
from camserve_cli.open_inference.errors import FrontError


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


class Request:
    """A request that holds its place until it is told to leave."""

    def __init__(self, admission: Admission, size: int) -> None:
        self.is_in = False
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(admission, size))

    async def _run(self, admission: Admission, size: int) -> None:
        async with admission.admit(size):
            self.is_in = True
            await self.leave.wait()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_places_are_given_in_order() -> None:
    async def test() -> None:
        admission = Admission(max_active=1, max_waiting=2, memory=100)
        first, second, third = (Request(admission, 1) for _ in range(3))
        await settle()
        assert [one.is_in for one in (first, second, third)] == [True, False, False]
        with pytest.raises(FrontError) as caught:
            async with admission.admit(1):
                pass
        assert caught.value.code == "queue_full"
        first.leave.set()
        await settle()
        assert [one.is_in for one in (second, third)] == [True, False]
        second.leave.set()
        third.leave.set()
        await admission.wait_until_idle()

    run(test())


def test_memory_is_waited_for_and_given_back() -> None:
    async def test() -> None:
        admission = Admission(max_active=9, max_waiting=9, memory=100)
        async with admission.admit(80) as reservation:
            large = Request(admission, 50)
            # It would fit, but goes behind the one that waits.
            small = Request(admission, 10)
            await settle()
            assert [large.is_in, small.is_in] == [False, False]
            reservation.shrink(30)
            await settle()
            assert [large.is_in, small.is_in] == [True, True]
        for one in (large, small):
            one.leave.set()
        await admission.wait_until_idle()
        # All of it is there again.
        async with admission.admit(100):
            pass

    run(test())


def test_a_reply_goes_before_a_new_request() -> None:
    async def test() -> None:
        admission = Admission(max_active=9, max_waiting=9, memory=100)
        holder = Request(admission, 60)
        await settle()
        async with admission.admit(40) as reservation:
            exchanged = asyncio.create_task(reservation.exchange(90))
            newcomer = Request(admission, 20)
            await settle()
            assert not exchanged.done()
            assert not newcomer.is_in
            holder.leave.set()
            await exchanged
            await settle()
            assert not newcomer.is_in
        await settle()
        assert newcomer.is_in
        newcomer.leave.set()
        await admission.wait_until_idle()

    run(test())


def test_who_goes_away_leaves_nothing_behind() -> None:
    async def test() -> None:
        admission = Admission(max_active=1, max_waiting=9, memory=100)
        first, second, third = (Request(admission, 100) for _ in range(3))
        await settle()
        second.task.cancel()
        # In the same moment as its place comes free.
        first.leave.set()
        await settle()
        assert third.is_in
        third.task.cancel()
        await settle()
        await admission.wait_until_idle()
        async with admission.admit(100):
            pass

    run(test())


def test_a_reply_that_is_larger_than_the_memory() -> None:
    async def test() -> None:
        admission = Admission(max_active=1, max_waiting=1, memory=100)
        async with admission.admit(1) as reservation:
            with pytest.raises(FrontError) as caught:
                await reservation.exchange(101)
            assert caught.value.code == "bad_gateway"
        async with admission.admit(100):
            pass

    run(test())


def test_after_its_close_only_those_who_are_there_go_on() -> None:
    async def test() -> None:
        admission = Admission(max_active=1, max_waiting=1, memory=100)
        first, second = Request(admission, 1), Request(admission, 1)
        await settle()
        admission.close()
        with pytest.raises(FrontError) as caught:
            async with admission.admit(1):
                pass
        assert caught.value.code == "unavailable"
        for one in (first, second):
            one.leave.set()
        await admission.wait_until_idle()
        assert second.is_in

    run(test())


def test_an_answer_is_shared_and_kept_for_a_while() -> None:
    async def test() -> None:
        calls = []
        release = asyncio.Event()

        async def ask(key: str) -> int:
            calls.append(key)
            await release.wait()
            return len(calls)

        cached = CachedCall[str, int](ask, seconds=0.05, max_keys=2)
        first, second = (asyncio.create_task(cached.get("a")) for _ in range(2))
        await settle()
        first.cancel()
        release.set()
        assert await second == 1
        assert await cached.get("a") == 1
        await asyncio.sleep(0.1)
        assert await cached.get("a") == 2
        # The oldest makes room.
        for key in ("b", "c", "a"):
            await cached.get(key)
        assert calls == ["a", "a", "b", "c", "a"]

    run(test())
