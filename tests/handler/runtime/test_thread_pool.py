"""Steps in threads: every result in its place, every error its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from camserve.errors import RequestError
from camserve.runtime.thread_pool import Task, ThreadPool

PATIENCE = 30
REFUSED = RequestError("invalid_image", "no photo")


def give(value: int) -> int:
    return value


def refuse() -> int:
    raise REFUSED


def divide() -> int:
    return 1 // 0


def numbers(*values: int) -> list[Task[int]]:
    return [partial(give, value) for value in values]


def broken(*values: int) -> Iterator[Task[int]]:
    yield from numbers(*values)
    raise REFUSED


@pytest.fixture(params=[1, 2, 5])
def crew(request: pytest.FixtureRequest) -> ThreadPool:
    return ThreadPool(request.param)


def test_each_step_gives_its_result_in_its_place(crew: ThreadPool) -> None:
    assert crew.map(numbers(*range(100))) == list(range(100))


def test_streams_of_any_length_give_theirs(crew: ThreadPool) -> None:
    streams = [numbers(*range(length)) for length in (3, 0, 1, 7, 0)]
    assert crew.map_pipelined(streams) == [list(range(length)) for length in (3, 0, 1, 7, 0)]


def test_nothing_to_do_gives_nothing(crew: ThreadPool) -> None:
    assert crew.map([]) == []
    assert crew.map_pipelined([]) == []


def test_a_step_that_fails_fails_alone(crew: ThreadPool) -> None:
    first, refused, failed, last = crew.map([*numbers(1), refuse, divide, *numbers(2)])
    assert (first, refused, last) == (1, REFUSED, 2)
    assert isinstance(failed, RequestError)
    assert failed.code == "internal_error"


@pytest.mark.parametrize(
    "stream", [[refuse, divide], [*numbers(1), refuse], broken(), broken(1, 2)]
)
def test_a_stream_that_fails_fails_alone(stream: list[Task[int]]) -> None:
    assert ThreadPool(2).map_pipelined([numbers(1, 2), stream, numbers(3)]) == [[1, 2], REFUSED, [3]]


def test_steps_of_one_stream_run_side_by_side() -> None:
    met = threading.Barrier(2, timeout=PATIENCE)
    (first,) = ThreadPool(2).map_pipelined([[met.wait, met.wait]])
    assert isinstance(first, list)
    assert sorted(first) == [0, 1]


@pytest.mark.parametrize("steps", [0, 1])
def test_no_helper_is_woken_for_nothing(steps: int) -> None:
    crew, before = ThreadPool(2), set(threading.enumerate())
    assert crew.map([threading.get_ident] * steps) == [threading.get_ident()] * steps
    assert crew.map_pipelined([[], []]) == [[], []]
    assert set(threading.enumerate()) <= before


def test_a_stream_moves_on_in_one_thread_at_a_time_and_never_ahead() -> None:
    inside, taken, done = threading.Lock(), list[int](), list[int]()

    def stream() -> Iterator[Task[None]]:
        for _ in range(50):
            assert inside.acquire(blocking=False)
            under_way = len(taken) - len(done)
            taken.append(under_way)
            time.sleep(0.0005)  # long enough for another thread to come in where nothing locks
            inside.release()
            yield partial(done.append, 0)

    assert ThreadPool(4).map_pipelined([stream() for _ in range(4)]) == [[None] * 50] * 4
    assert max(taken) < 4
