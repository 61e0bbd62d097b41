"""A closed loop of requests over a number of connections, run in a process of its own.

Each connection sends its next request as soon as the reply to the last one is read: that is what
throughput "at 16 connections" means. ``python -m devtools.benchmark.load_generator`` reads a job
as JSON from stdin and needs nothing but the standard library. So the loop shares neither the
interpreter's lock nor its memory with the process that measures.
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

from devtools.errors import LoadError
from devtools.measurements import percentile
from devtools.paths import SCRIPTS

#: Replies of each connection that are parsed completely. Parsing the 200 KB of every one would take
#: processor time from the server that is measured.
PARSED = 3
#: Seconds that a connection waits after a failure: a refused one would only spin.
_PAUSE = 0.05


@dataclass(frozen=True)
class LoadJob:
    """What is to be sent, and for how long.

    Attributes:
        host, port, path: where it is posted to.
        headers: of every request.
        body: the file that is sent.
        connections: how many requests are in flight at any time.
        seconds: length of the measured window; None for no limit.
        requests: maximum number of replies in the window; None for no limit.
        warmup: seconds of load before the window, of which only failures are counted.
        timeout: seconds that a reply may take.
        expect: a key under which a reply, a JSON object, must hold a value that is not empty; empty
            where any JSON will do.
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
class LoadResult:
    """What was measured in the window.

    Attributes:
        seconds: its length.
        latencies: of each reply in it, in ms.
        failures: number of failed requests by reason, those of the warm-up included.
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
        """The 99th percentile of the latency in ms."""
        return percentile(self.latencies, 0.99)


def run_in_subprocess(
    job: LoadJob, on_interval: Callable[[], None] | None = None, interval: float = 0.5
) -> LoadResult:
    """Run a job in a process of its own.

    Args:
        on_interval: called about every ``interval`` seconds while the job runs.

    Raises:
        LoadError: the process failed; with what it wrote to stderr.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "devtools.benchmark.load_generator"],
        cwd=SCRIPTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        job_json: str | None = json.dumps(asdict(job))
        try:
            while True:
                try:
                    out, err = process.communicate(
                        job_json, timeout=interval if on_interval else None
                    )
                    break
                except subprocess.TimeoutExpired:
                    job_json = None
                    if on_interval:
                        on_interval()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise LoadError(f"the load generator failed: {err.strip()}")
    result = json.loads(out)
    return LoadResult(result["seconds"], tuple(result["latencies"]), result["failures"])


@dataclass
class _Window:
    """What the connections share: when the window begins and ends, and what was measured in it."""

    job: LoadJob
    begin: float
    end: float
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def record(self, start: float, now: float, failure: str | None) -> None:
        """Count one request that was sent at ``start`` and was answered, or failed, ``now``."""
        with self.lock:
            if self.stop.is_set():
                return
            if failure is not None:
                self.failures[failure] += 1
            elif self.begin <= now <= self.end:
                self.latencies.append((now - start) * 1000)
            if self.job.requests is not None and self._attempts() >= self.job.requests:
                self.end = now
            if now >= self.end:
                self.stop.set()

    def _attempts(self) -> int:
        # With failures, as otherwise the load on a server that rejects everything never ended.
        return len(self.latencies) + self.failures.total()


def run(job: LoadJob) -> LoadResult:
    """Run a job in this process."""
    body = Path(job.body).read_bytes()
    begin = time.perf_counter() + job.warmup
    window = _Window(job, begin, begin + job.seconds if job.seconds is not None else float("inf"))
    threads = [
        threading.Thread(target=_run_connection, args=(window, body))
        for _ in range(job.connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return LoadResult(max(window.end - begin, 0.0), tuple(window.latencies), dict(window.failures))


def _run_connection(window: _Window, body: bytes) -> None:
    job = window.job
    connection = http.client.HTTPConnection(job.host, job.port, timeout=job.timeout)
    parsed = 0
    try:
        while not window.stop.is_set():
            start = time.perf_counter()
            try:
                connection.request("POST", job.path, body, job.headers)
                reply = connection.getresponse()
                content = reply.read()
                now = time.perf_counter()
                failure = _why_invalid(reply.status, content, job.expect, parsed < PARSED)
                parsed += 1
            except (OSError, http.client.HTTPException) as error:
                now, failure = time.perf_counter(), f"{type(error).__name__}: {error}"
                connection.close()
            window.record(start, now, failure)
            if failure is not None:
                time.sleep(_PAUSE)
    finally:
        connection.close()


def _why_invalid(status: int, content: bytes, expect: str, parse: bool) -> str | None:
    """Why a reply counts as a failure; None where it does not."""
    if status != 200:
        return f"status {status}"
    if not parse:
        is_json = content[:1] + content[-1:] in (b"{}", b"[]")
        return None if is_json else "a body that is not JSON"
    try:
        reply = json.loads(content)
    except ValueError:
        return "a body that is not JSON"
    if expect and not (isinstance(reply, dict) and reply.get(expect)):
        return f"a reply without {expect}"
    return None


if __name__ == "__main__":
    print(json.dumps(asdict(run(LoadJob(**json.load(sys.stdin))))))
