"""Tasks in threads: results in the order of the tasks, errors of their own task or stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from camserve.errors import RequestError
from camserve.runtime.thread_pool import Task, ThreadPool

TIMEOUT_S = 30
REJECTED = RequestError("invalid_image", "no photo")


def identity(value: int) -> int:
    return value


def reject() -> int:
    raise REJECTED


def divide_by_zero() -> int:
    return 1 // 0


def tasks_returning(*values: int) -> list[Task[int]]:
    return [partial(identity, value) for value in values]


def failing_stream(*values: int) -> Iterator[Task[int]]:
    yield from tasks_returning(*values)
    raise REJECTED


@pytest.fixture(params=[1, 2, 5])
def pool(request: pytest.FixtureRequest) -> ThreadPool:
    return ThreadPool(request.param)


def test_map_returns_results_in_the_order_of_the_tasks(pool: ThreadPool) -> None:
    assert pool.map(tasks_returning(*range(100))) == list(range(100))


def test_map_pipelined_returns_the_results_of_streams_of_any_length(pool: ThreadPool) -> None:
    streams = [tasks_returning(*range(length)) for length in (3, 0, 1, 7, 0)]
    assert pool.map_pipelined(streams) == [list(range(length)) for length in (3, 0, 1, 7, 0)]


def test_no_tasks_have_no_results(pool: ThreadPool) -> None:
    assert pool.map([]) == []
    assert pool.map_pipelined([]) == []


def test_a_task_that_fails_does_not_affect_others(pool: ThreadPool) -> None:
    first, rejected, failed, last = pool.map(
        [*tasks_returning(1), reject, divide_by_zero, *tasks_returning(2)]
    )
    assert (first, rejected, last) == (1, REJECTED, 2)
    assert isinstance(failed, RequestError)
    assert failed.code == "internal_error"


@pytest.mark.parametrize(
    "stream",
    [
        [reject, divide_by_zero],
        [*tasks_returning(1), reject],
        failing_stream(),
        failing_stream(1, 2),
    ],
)
def test_a_stream_that_fails_does_not_affect_others(stream: Iterable[Task[int]]) -> None:
    streams = [tasks_returning(1, 2), stream, tasks_returning(3)]
    assert ThreadPool(2).map_pipelined(streams) == [[1, 2], REJECTED, [3]]


def test_tasks_of_one_stream_run_in_parallel() -> None:
    barrier = threading.Barrier(2, timeout=TIMEOUT_S)
    (results,) = ThreadPool(2).map_pipelined([[barrier.wait, barrier.wait]])
    assert isinstance(results, list)
    assert sorted(results) == [0, 1]


@pytest.mark.parametrize("count", [0, 1])
def test_no_thread_is_started_for_less_than_two_tasks(count: int) -> None:
    pool, threads_before = ThreadPool(2), set(threading.enumerate())
    assert pool.map([threading.get_ident] * count) == [threading.get_ident()] * count
    assert pool.map_pipelined([[], []]) == [[], []]
    assert set(threading.enumerate()) <= threads_before


def test_streams_advance_in_one_thread_at_a_time_and_no_further_than_tasks_are_taken() -> None:
    inside, running_counts, done = threading.Lock(), list[int](), list[int]()

    def stream() -> Iterator[Task[None]]:
        for _ in range(50):
            assert inside.acquire(blocking=False)
            running_counts.append(len(running_counts) - len(done))
            time.sleep(0.0005)  # long enough for another thread to enter if there were no lock
            inside.release()
            yield partial(done.append, 0)

    assert ThreadPool(4).map_pipelined([stream() for _ in range(4)]) == [[None] * 50] * 4
    assert max(running_counts) < 4
