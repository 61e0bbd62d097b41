"""A closed loop of requests over a number of connections, run in a process of its own.

Each connection sends its next request as soon as the reply to the last one is read, which is what
is meant by throughput "at 16 connections". It knows nothing but the standard library, and
``python -m benchmark.load`` takes a job as JSON on stdin, so that the loop shares neither the
interpreter's lock nor its memory with whoever asks for it.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmark.figures import percentile

SCRIPTS = Path(__file__).resolve().parent.parent
#: Replies of each connection that are parsed to the bottom. Parsing the 200 KB of every one would
#: take from the server the processor that it is measured on.
PARSED = 3
#: How long a connection rests after a failure, in seconds: one that is refused would only spin.
_REST = 0.05


@dataclass(frozen=True)
class Job:
    """What is to be sent, and for how long.

    Attributes:
        host, port, path: where it is posted to.
        headers: of every request.
        body: the file that is sent.
        connections: how many requests are under way at any time.
        seconds: how long is measured; no end where it is None.
        requests: how many replies are measured at most; no end where it is None.
        warmup: seconds before that, whose replies count for nothing but their failures.
        timeout: seconds that a reply may take.
        expect: a key that a reply, a JSON object, must hold something under; any JSON by default.
    """

    host: str
    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    seconds: float | None = None
    requests: int | None = None
    warmup: float = 0.0
    timeout: float = 120.0
    expect: str = ""


@dataclass(frozen=True)
class Window:
    """What was measured.

    Attributes:
        seconds: how long.
        latencies: of each reply in it, in ms.
        failures: how often a request failed, by reason, warm-up included.
    """

    seconds: float
    latencies: tuple[float, ...]
    failures: dict[str, int]

    @property
    def throughput(self) -> float:
        """Replies per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def p50(self) -> float:
        """The median latency in ms."""
        return percentile(self.latencies, 0.5)

    @property
    def p99(self) -> float:
        """The latency in ms that 99% of the replies stay below."""
        return percentile(self.latencies, 0.99)


class LoadError(Exception):
    """The process that sends the requests ended without a result."""


def run(job: Job, tick: Callable[[], None] | None = None, every: float = 0.5) -> Window:
    """Run a job in a process of its own.

    Args:
        tick: called while it runs, about each ``every`` seconds.

    Raises:
        LoadError: with what the process said.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmark.load"],
        cwd=SCRIPTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        asked: str | None = json.dumps(asdict(job))
        try:
            while True:
                try:
                    out, err = process.communicate(asked, timeout=every if tick else None)
                    break
                except subprocess.TimeoutExpired:
                    asked = None
                    if tick:
                        tick()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise LoadError(f"the load generator failed: {err.strip()}")
    found = json.loads(out)
    return Window(found["seconds"], tuple(found["latencies"]), found["failures"])


@dataclass
class _Tally:
    """What the connections share: when the window begins and ends, and what fell into it."""

    job: Job
    begin: float
    end: float
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def note(self, start: float, now: float, reason: str | None) -> None:
        """Count one request that began at ``start`` and was answered, or failed, ``now``."""
        with self.lock:
            if self.stop.is_set():
                return
            if reason is not None:
                self.failures[reason] += 1
            elif self.begin <= now <= self.end:
                self.latencies.append((now - start) * 1000)
            if self.job.requests is not None and self._tried() >= self.job.requests:
                self.end = now
            if now >= self.end:
                self.stop.set()

    def _tried(self) -> int:
        # Failures count, too: a server that refuses all would be asked for ever.
        return len(self.latencies) + self.failures.total()


def drive(job: Job) -> Window:
    """Run a job in this process."""
    body = Path(job.body).read_bytes()
    begin = time.perf_counter() + job.warmup
    tally = _Tally(job, begin, begin + job.seconds if job.seconds is not None else float("inf"))
    threads = [
        threading.Thread(target=_connection, args=(tally, body)) for _ in range(job.connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Window(max(tally.end - begin, 0.0), tuple(tally.latencies), dict(tally.failures))


def _connection(tally: _Tally, body: bytes) -> None:
    job = tally.job
    connection = http.client.HTTPConnection(job.host, job.port, timeout=job.timeout)
    parsed = 0
    try:
        while not tally.stop.is_set():
            start = time.perf_counter()
            try:
                connection.request("POST", job.path, body, job.headers)
                reply = connection.getresponse()
                content = reply.read()
                now = time.perf_counter()
                reason = _wrong(reply.status, content, job.expect, parsed < PARSED)
                parsed += 1
            except (OSError, http.client.HTTPException) as failure:
                now, reason = time.perf_counter(), f"{type(failure).__name__}: {failure}"
                connection.close()
            tally.note(start, now, reason)
            if reason is not None:
                time.sleep(_REST)
    finally:
        connection.close()


def _wrong(status: int, content: bytes, expect: str, parse: bool) -> str | None:
    """Why a reply is no good; None where it is."""
    if status != 200:
        return f"status {status}"
    if not parse:
        whole = content[:1] + content[-1:] in (b"{}", b"[]")
        return None if whole else "a body that is no JSON"
    try:
        reply = json.loads(content)
    except ValueError:
        return "a body that is no JSON"
    if expect and not (isinstance(reply, dict) and reply.get(expect)):
        return f"a reply without {expect}"
    return None


if __name__ == "__main__":
    print(json.dumps(asdict(drive(Job(**json.load(sys.stdin))))))
