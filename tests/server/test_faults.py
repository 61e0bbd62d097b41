"""What becomes of everybody's requests when something goes wrong: a real server, under load.

Whatever happens, each request ends within a bounded time, with the right answer to its own photo or
an honest error, and the server is back by itself.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import numpy as np
import psutil
import pytest

from tests.support.fault_server import FaultServer, fault, misbehaving_archive, serving, wait_until
from tests.support.load_clients import (
    ANSWERED,
    LOST_BATCH_ERRORS,
    QUEUE_FULL_ERRORS,
    Photo,
    Traffic,
    over_grpc,
    over_http,
)
from tests.support.scripts import COLOR_MODEL, two_cores

logger = logging.getLogger(__name__)

BATCH, QUEUE = 8, 16
#: A worker is killed when it took longer over a batch, in seconds.
RESPONSE_TIMEOUT = 4
SETTINGS: dict[str, Any] = {
    "responseTimeout": RESPONSE_TIMEOUT,
    "maxBatchDelay": 20,
    "batchSize": BATCH,
}
#: TorchServe's wait, a Python with torch, the network, its warm-up: 4 to 6 s on two idle cores.
BACK = 45.0


@pytest.fixture(scope="module")
def faulty(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """A server of the network that misbehaves, with as many workers as ``serve.sh start`` gives it.

    It registers models, and has a short queue.
    """
    folder = tmp_path_factory.mktemp("faulty")
    archive = folder / "store" / f"{COLOR_MODEL}.mar"
    archive.parent.mkdir()
    misbehaving_archive(store / f"{COLOR_MODEL}.mar", archive, **SETTINGS)
    config: dict[str, Any] = {"job_queue_size": QUEUE, "enable_model_api": "true"}
    with two_cores() as cores, serving(folder, {COLOR_MODEL: archive}, **config) as server:
        assert len(server.ready_workers()) == cores
        yield server


@pytest.fixture
def workers(faulty: FaultServer) -> list[int]:
    """The process ids of the workers before anything happens."""
    return faulty.ready_workers()


@pytest.fixture
def traffic(faulty: FaultServer) -> Iterator[Traffic]:
    """Twelve callers, under way."""
    with Traffic(faulty) as traffic:
        traffic.go_on()
        yield traffic


def report(kinds: Mapping[str, int], **seconds: float) -> None:
    """What was measured; ``pytest --log-cli-level=INFO`` shows it."""
    figures = {name: round(value, 2) for name, value in seconds.items()}
    logger.info("%s %s", figures, dict(kinds))


def assert_sane(server: FaultServer, workers: int) -> None:
    """Nobody waits, and there are so many workers, and no process beside them."""
    wait_until(lambda: server.pending() == 0, 10, "the queue is empty")
    wait_until(lambda: len(server.ready_workers()) == workers, BACK, f"{workers} workers are ready")

    def alone() -> bool:
        children = {child.pid for child in server.java.children() if child.is_running()}
        return children == set(server.ready_workers())

    # One that is no longer wanted takes a moment to end.
    wait_until(alone, 10, "no other worker is left")


def send(server: FaultServer, photo: bytes) -> httpx.Response:
    """Ask about one photo over HTTP."""
    url = f"{server.inference}/predictions/{COLOR_MODEL}"
    return httpx.post(url, content=photo, headers=server.bearer(), timeout=60)


@pytest.mark.parametrize("from_outside", [False, True])
def test_a_worker_that_is_killed(
    faulty: FaultServer, workers: list[int], traffic: Traffic, from_outside: bool
) -> None:
    said: list[int] = []
    if from_outside:
        psutil.Process(workers[0]).kill()
    else:
        # A photo whose forward is the end of its process: the batch is under way for sure.
        said.append(send(faulty, fault("kill")).status_code)
    assert set(said) <= {500, 507}
    back = traffic.go_on(seconds=BACK)
    traffic.stop()
    kinds = traffic.kinds
    report(kinds, slowest=traffic.slowest, back=back)
    assert kinds.keys() <= {ANSWERED} | LOST_BATCH_ERRORS
    # Those of its batch; who waited in the queue was answered by another worker, or the next.
    assert kinds.total() - kinds[ANSWERED] <= BATCH
    assert traffic.slowest < BACK
    assert_sane(faulty, len(workers))
    assert len(set(workers) - set(faulty.ready_workers())) == 1


def test_a_worker_that_hangs(faulty: FaultServer, workers: list[int], traffic: Traffic) -> None:
    start = time.monotonic()
    ended = send(faulty, fault("hang"))
    took = time.monotonic() - start
    assert ended.status_code == 500
    assert RESPONSE_TIMEOUT <= took < BACK
    back = took + traffic.go_on(seconds=BACK)
    traffic.stop()
    kinds = traffic.kinds
    report(kinds, slowest=traffic.slowest, ended=took, back=back)
    assert kinds.keys() <= {ANSWERED} | LOST_BATCH_ERRORS
    assert kinds.total() - kinds[ANSWERED] < BATCH
    assert traffic.slowest < BACK
    assert_sane(faulty, len(workers))


def test_a_full_queue(faulty: FaultServer, workers: list[int]) -> None:
    random = np.random.default_rng(1)
    photos = [Photo.draw(random) for _ in range(40)]
    token = faulty.token()
    with ExitStack() as open_ones:
        asks = [open_ones.enter_context(kind(faulty)) for kind in (over_http, over_grpc) * 20]
        pool = open_ones.enter_context(ThreadPoolExecutor(40 + len(workers)))
        slow = []
        for _ in workers:
            # Each by itself: two that come together would be one worker's batch.
            slow.append(pool.submit(send, faulty, fault("slow")))
            time.sleep(0.3)
        calls = [pool.submit(ask, photo, token) for ask, photo in zip(asks, photos, strict=True)]
        kinds = [call.result()[0] for call in calls]
    report(Counter(kinds))
    assert {one.result().status_code for one in slow} == {200}
    assert {ANSWERED} < set(kinds) <= {ANSWERED} | QUEUE_FULL_ERRORS
    assert kinds.count(ANSWERED) >= QUEUE
    assert faulty.ready_workers() == workers
    assert_sane(faulty, len(workers))


def test_callers_that_go_away(faulty: FaultServer, workers: list[int], traffic: Traffic) -> None:
    slow = fault("slow")
    port = int(faulty.environment["INFERENCE_PORT"])
    head = (
        f"POST /predictions/{COLOR_MODEL} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {faulty.token()}\r\nContent-Type: image/png\r\n"
    )
    mine = []
    with ExitStack() as open_ones:
        for _ in range(4):
            asked = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
            asked.sendall(f"{head}Content-Length: {len(slow)}\r\n\r\n".encode() + slow)
            half = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
            half.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + slow)
            headless = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
            headless.sendall(head.encode())
            mine += [one.getsockname()[1] for one in (asked, half, headless)]
        channel = open_ones.enter_context(grpc.insecure_channel(faulty.grpc))
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": slow})
        bearer = [("protocol", "gRPC"), ("authorization", f"Bearer {faulty.token()}")]
        calls = [stub.Predictions.future(request, metadata=bearer, timeout=60) for _ in range(4)]
        time.sleep(0.2)
        for call in calls:
            call.cancel()
    traffic.go_on(48)
    traffic.stop()
    report(traffic.kinds, slowest=traffic.slowest)
    assert set(traffic.kinds) == {ANSWERED}
    assert faulty.ready_workers() == workers

    def held() -> set[int]:
        connections = faulty.java.net_connections("tcp")
        return {one.raddr.port for one in connections if one.raddr} & set(mine)

    wait_until(lambda: not held(), 10, "the server let go of those who went away")


def scale(server: FaultServer, workers: int) -> float:
    """Have so many workers; the seconds that it took.

    TorchServe is not asked to wait for them (``synchronous``): the thread of its that would wait is
    one of two that read requests.
    """
    start = time.monotonic()
    path, query = f"/models/{COLOR_MODEL}", {"min_worker": workers, "max_worker": workers}

    def done() -> bool:
        reply = httpx.put(
            server.management + path,
            params={**query, "synchronous": "false"},
            headers=server.bearer("management"),
            timeout=120,
        )
        # TorchServe walks its list of workers while it changes: then it has to be asked again.
        if "ConcurrentModification" in reply.text:
            return False
        assert reply.is_success, reply.text
        return True

    wait_until(done, BACK, f"{workers} workers")
    wait_until(lambda: len(server.ready_workers()) == workers, BACK, f"{workers} are ready")
    return time.monotonic() - start


def test_more_workers_under_load_and_fewer_without(
    faulty: FaultServer, workers: list[int], traffic: Traffic
) -> None:
    up = scale(faulty, len(workers) + 1)
    traffic.go_on()
    traffic.stop()
    # Under load TorchServe would answer requests twice, and in the end none: docs/reliability.md.
    down = scale(faulty, len(workers))
    with Traffic(faulty) as again:
        again.go_on()
    report(traffic.kinds + again.kinds, slowest=traffic.slowest, up=up, down=down)
    assert set(traffic.kinds + again.kinds) == {ANSWERED}
    assert_sane(faulty, len(workers))


def test_a_new_token(faulty: FaultServer, traffic: Traffic) -> None:
    old = faulty.token()
    faulty.manage("GET", "/token", "API", type="inference")
    traffic.token = faulty.token()
    renewed = time.monotonic()
    assert traffic.token != old
    wait_until(lambda: time.monotonic() > renewed + 0.5, 10, "all carry the new token")
    traffic.go_on(48)
    traffic.stop()
    report(traffic.kinds, slowest=traffic.slowest)
    assert set(traffic.kinds) <= {ANSWERED, "HTTP 400", "gRPC PERMISSION_DENIED"}
    late = [one.kind for one in traffic.outcomes if one.sent > renewed + 0.5]
    assert set(late) == {ANSWERED}
    refused = httpx.get(f"{faulty.inference}/ping", headers={"Authorization": f"Bearer {old}"})
    assert refused.status_code == 400


def test_a_new_version(store: Path, faulty: FaultServer, traffic: Traffic) -> None:
    """The last of them: it leaves the other version behind."""
    archive = faulty.store / "next.mar"
    misbehaving_archive(store / f"{COLOR_MODEL}.mar", archive, version="2.0", **SETTINGS)
    faulty.manage("POST", "/models", url=archive.name, initial_workers=1, synchronous="false")
    wait_until(
        lambda: bool(faulty.ready_workers(f"{COLOR_MODEL}/2.0")), BACK, "its worker is ready"
    )
    traffic.go_on()
    assert {one.version for one in traffic.outcomes} == {"1.0"}
    faulty.manage("PUT", f"/models/{COLOR_MODEL}/2.0/set-default")
    switched = time.monotonic()
    traffic.go_on(48)
    faulty.manage("DELETE", f"/models/{COLOR_MODEL}/1.0")
    traffic.go_on()
    traffic.stop()
    report(traffic.kinds, slowest=traffic.slowest)
    assert set(traffic.kinds) == {ANSWERED}
    assert {one.version for one in traffic.outcomes if one.sent > switched} == {"2.0"}
    # TorchServe gives it what its archive says.
    assert_sane(faulty, 1)
