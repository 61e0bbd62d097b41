"""Threads for a batch's photos: OpenCV and Pillow work without Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from threading import Lock
from typing import TypeVar

from camserve.errors import RequestError
from camserve.runtime import failures

T = TypeVar("T")

#: Work that needs nothing but to be called, in whatever thread.
Task = Callable[[], T]
_Results = dict[int, T | RequestError]


class ThreadPool:
    """The caller's thread and its helpers.

    Args:
        threads: how many they are together.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._helpers = ThreadPoolExecutor(threads, "pictures")

    def map(self, tasks: Iterable[Task[T]]) -> list[T | RequestError]:
        """Each task's result, or the error that it ends in, in their order."""
        streams = [(task,) for task in tasks]
        results = self.map_pipelined(streams, len(streams))
        return [one if isinstance(one, RequestError) else one[0] for one in results]

    def map_pipelined(
        self, streams: Sequence[Iterable[Task[T]]], most: int | None = None
    ) -> list[list[T] | RequestError]:
        """What the steps of each stream give, or the first error in it.

        Each thread takes the next step that is left: none waits while another has several large
        ones before it. What a stream itself does from one step to the next, one thread does at a
        time, while the others are at their steps: through several short calls of OpenCV, threads
        wait for each other more than they work.

        Args:
            streams: of steps; several of them may have none.
            most: how many steps they have together, where that is known.
        """
        results: list[_Results[T]] = [{} for _ in streams]
        left, taking = _left(streams, results), Lock()

        def take() -> Callable[[], None] | None:
            with taking:
                return next(left, None)

        def work() -> None:
            while (step := take()) is not None:
                step()

        # No helper is woken for nothing.
        if (first := take()) is not None:
            helpers = min(self._threads, most or self._threads) - 1
            helping = [self._helpers.submit(work) for _ in range(helpers)]
            first()
            work()
            for one in helping:
                one.result()
        return [_whole(of_stream) for of_stream in results]


def _left(
    streams: Iterable[Iterable[Task[T]]], results: Iterable[_Results[T]]
) -> Iterator[Callable[[], None]]:
    """All streams' steps, one stream after another, each to leave its result in its place."""
    for stream, of_stream in zip(streams, results, strict=True):
        steps = iter(stream)
        for n in count():
            step: Task[T] | RequestError | None = failures.capture_error(next, steps, None)
            if isinstance(step, RequestError):
                of_stream[n] = step
            if step is None or isinstance(step, RequestError):
                break
            yield partial(_run, step, of_stream, n)


def _run(step: Task[T], of_stream: _Results[T], n: int) -> None:
    of_stream[n] = failures.capture_error(step)


def _whole(of_stream: _Results[T]) -> list[T] | RequestError:
    whole = list[T]()
    for n in range(len(of_stream)):
        one = of_stream[n]
        if isinstance(one, RequestError):
            return one
        whole.append(one)
    return whole
