"""Sends calls over several connections at once, until all are sent or the time is up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

from devtools.fuzzing.front_calls import generate_front_call
from devtools.fuzzing.front_oracle import judge_front
from devtools.fuzzing.generators import generate_call
from devtools.fuzzing.oracle import judge
from devtools.fuzzing.results import FuzzResults
from devtools.fuzzing.server_target import Connection, ServerTarget


def send_calls(
    target: ServerTarget,
    results: FuzzResults,
    *,
    connections: int,
    indices: Iterable[int] | None = None,
    seconds: float | None = None,
    valid_share: float = 0.25,
    on_interval: Callable[[], None] | None = None,
    interval: float = 0.5,
) -> float:
    """Send the calls of the results' seed, and add what becomes of them to the results.

    Args:
        indices: of the calls; all from 0 on where it is None.
        seconds: after which no further call is sent.
        valid_share: share of the calls that must succeed, 0 to 1.
        on_interval: called about every ``interval`` seconds meanwhile.

    Returns:
        The seconds it took.
    """
    start = time.monotonic()
    end = start + seconds if seconds is not None else float("inf")
    remaining = _SharedIterator(iter(indices if indices is not None else itertools.count()))

    def run_connection() -> None:
        with target.connection() as connection:
            while time.monotonic() < end and (index := remaining.next()) is not None:
                send(connection, index)

    def send(connection: Connection, index: int) -> None:
        generate = generate_front_call if target.is_front else generate_call
        call = generate(results.seed, index, target.model, valid_share)
        answer = connection.send(call)
        if target.is_front:
            verdict = judge_front(call, answer, target.predicts_color)
        else:
            through_edge = target.authority is not None
            verdict = judge(call, answer, target.predicts_color, through_edge=through_edge)
        results.add(index, call, verdict, answer.seconds)

    with ThreadPoolExecutor(connections) as pool:
        running = {pool.submit(run_connection) for _ in range(connections)}
        while running:
            done, running = wait(running, timeout=interval)
            for future in done:
                future.result()
            if on_interval:
                on_interval()
    return time.monotonic() - start


class _SharedIterator:
    """An iterator that several threads may take from; None at its end."""

    def __init__(self, indices: Iterator[int]) -> None:
        self._indices, self._lock = indices, threading.Lock()

    def next(self) -> int | None:
        with self._lock:
            return next(self._indices, None)
