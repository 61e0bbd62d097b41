"""One photo of a batch makes the network fail: the others are answered as if it were not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import numpy as np
import pytest

from tests.support.fault_server import FaultServer, fault, misbehaving_archive, serving
from tests.support.load_clients import ANSWERED, OPTIONS, Photo
from tests.support.scripts import COLOR_MODEL
from tests.support.transport_matrix import together

BATCH = 8
PHOTOS = [Photo.draw(np.random.default_rng(seed)) for seed in range(BATCH - 1)]


@pytest.fixture(scope="module")
def careful(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """A server of the network that misbehaves; requests that are sent together share a batch."""
    folder = tmp_path_factory.mktemp("careful")
    archive = folder / "store" / f"{COLOR_MODEL}.mar"
    archive.parent.mkdir()
    original = store / f"{COLOR_MODEL}.mar"
    misbehaving_archive(original, archive, batchSize=BATCH, maxBatchDelay=1000)
    with serving(folder, {COLOR_MODEL: archive}, workers="1") as server:
        yield server


def over_http(server: FaultServer, content: bytes) -> dict[str, Any]:
    """The reply; of an error, its status is HTTP's as well."""
    reply = httpx.post(
        f"{server.inference}/predictions/{COLOR_MODEL}",
        files={"data": content},
        data=OPTIONS,
        headers=server.bearer(),
        timeout=60,
    )
    body = dict(reply.json())
    assert reply.status_code == body.get("error", {"status": 200})["status"], body
    return body


def over_grpc(server: FaultServer, content: bytes) -> dict[str, Any]:
    inputs = {name: value.encode() for name, value in OPTIONS.items()}
    request = inference_pb2.PredictionsRequest(
        model_name=COLOR_MODEL, input={"data": content, **inputs}
    )
    bearer = [("protocol", "gRPC"), ("authorization", f"Bearer {server.token()}")]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        return dict(json.loads(stub.Predictions(request, metadata=bearer, timeout=60).prediction))


def of_a_batch(server: FaultServer, contents: list[bytes]) -> list[dict[str, Any]]:
    """The replies to photos that are sent at once, by HTTP and gRPC in turn."""
    ways = (over_http, over_grpc)
    return together([partial(ways[n % 2], server, content) for n, content in enumerate(contents)])


@pytest.fixture(scope="module")
def alone(careful: FaultServer) -> list[dict[str, Any]]:
    """What each good photo is answered where nothing goes wrong."""
    replies = of_a_batch(careful, [photo.content for photo in PHOTOS])
    for photo, reply in zip(PHOTOS, replies, strict=True):
        assert photo.verdict(reply) == ANSWERED
    return replies


def assert_same(reply: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same reply; what a batch of another size rounds otherwise is that alone."""
    (got,), (want,) = reply["explanations"], expected["explanations"]
    assert (got["label"], got["overlay"]) == (want["label"], want["overlay"])
    scores, others = (
        [(one["class_id"], one["probability"]) for one in body["predictions"]]
        for body in (reply, expected)
    )
    np.testing.assert_allclose(scores, others, rtol=1e-5)


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("raise", "internal_error"),
        ("nan", "non_finite_scores"),
        ("memory_error", None),
        ("out_of_memory", None),
    ],
)
def test_the_others_are_answered(
    careful: FaultServer, alone: list[dict[str, Any]], name: str, code: str | None, place: int
) -> None:
    workers = careful.ready_workers()
    contents = [photo.content for photo in PHOTOS]
    contents.insert(place, fault(name))
    replies = of_a_batch(careful, contents)
    bad = replies.pop(place)
    # What fits in half a batch is answered.
    assert (bad["error"]["code"] if "error" in bad else None) == code
    assert bool(bad.get("predictions")) is (code is None)
    for reply, expected in zip(replies, alone, strict=True):
        assert_same(reply, expected)
    assert careful.ready_workers() == workers


def test_what_fits_in_no_half_is_said_to_that_half(
    careful: FaultServer, alone: list[dict[str, Any]]
) -> None:
    workers = careful.ready_workers()
    replies = of_a_batch(careful, [*(photo.content for photo in PHOTOS), fault("insatiable")])
    assert replies.pop()["error"] | {"message": ""} == {
        "code": "out_of_memory",
        "status": 507,
        "message": "",
    }
    starved = [reply["error"]["code"] for reply in replies if "error" in reply]
    for reply, expected in zip(replies, alone, strict=True):
        if "error" not in reply:
            assert_same(reply, expected)
    # Those of its half; a batch that they did not all make together has a smaller one.
    assert set(starved) <= {"out_of_memory"}
    assert len(starved) < BATCH / 2
    assert careful.ready_workers() == workers
