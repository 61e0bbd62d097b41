"""Calls over several connections at once, until a number of them is sent or the time is up."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from soaking.calls import Call
from soaking.cases import call as case
from soaking.target import Connection, Target
from soaking.verdict import Verdict, judge

#: Findings that are kept; where everything fails, more say nothing new.
MOST_FINDINGS = 50


@dataclass(frozen=True)
class Finding:
    """A call whose answer is wrong.

    Attributes:
        index: by which, with the seed, it is sent again.
        file: that holds it.
    """

    index: int
    family: str
    problem: str
    file: str


@dataclass
class Tally:
    """What became of the calls.

    Attributes:
        outcomes, families: how often each came.
        faults: answers of 5xx by TorchServe's frontend alone, by what it says.
        problems: how many answers were wrong; ``findings`` holds the first of them.
        good: answers to good photos that were right.
        latencies: of those, in ms.
    """

    seed: int
    out: Path
    sent: int = 0
    good: int = 0
    problems: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, index: int, call: Call, verdict: Verdict, seconds: float) -> None:
        """Count a call, and keep it in a file where its answer is wrong or a fault."""
        with self.lock:
            self.sent += 1
            self.outcomes[verdict.outcome] += 1
            self.families[call.family.partition(":")[0]] += 1
            if verdict.fault:
                if not self.faults[verdict.fault]:
                    self._keep(index, call, "fault")
                self.faults[verdict.fault] += 1
            if verdict.problem:
                self.problems += 1
                if len(self.findings) < MOST_FINDINGS:
                    file = self._keep(index, call, "wrong")
                    self.findings.append(Finding(index, call.family, verdict.problem, file))
            elif call.digest:
                self.good += 1
                self.latencies.append(seconds * 1000)

    def _keep(self, index: int, call: Call, why: str) -> str:
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / f"{why}-{self.seed}-{index}.json"
        file.write_text(call.text())
        return str(file)


def drive(
    target: Target,
    tally: Tally,
    *,
    connections: int,
    indices: Iterable[int] | None = None,
    seconds: float | None = None,
    good: float = 0.25,
    tick: Callable[[], None] | None = None,
    every: float = 0.5,
) -> float:
    """Send the calls of the seed.

    Args:
        indices: of them; all from 0 on where none are given.
        seconds: after which no further one is sent.
        good: the share of photos that must be answered.
        tick: called while they are sent, about each ``every`` seconds.

    Returns:
        The seconds it took.
    """
    start = time.monotonic()
    end = start + seconds if seconds is not None else float("inf")
    left = _Shared(iter(indices if indices is not None else itertools.count()))

    def one_connection() -> None:
        with target.connection() as connection:
            while time.monotonic() < end and (index := left.next()) is not None:
                _send(connection, index)

    def _send(connection: Connection, index: int) -> None:
        call = case(tally.seed, index, target.model, good)
        answer = connection.send(call)
        verdict = judge(call, answer, target.colours, edge=target.authority is not None)
        tally.note(index, call, verdict, answer.seconds)

    with ThreadPoolExecutor(connections) as pool:
        running = {pool.submit(one_connection) for _ in range(connections)}
        while running:
            done, running = wait(running, timeout=every)
            for future in done:
                future.result()
            if tick:
                tick()
    return time.monotonic() - start


class _Shared:
    """The next of several indices, for whichever thread asks."""

    def __init__(self, indices: Iterator[int]) -> None:
        self._indices, self._lock = indices, threading.Lock()

    def next(self) -> int | None:
        with self._lock:
            return next(self._indices, None)
