"""What a real server writes of the requests that it gets."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import grpc
import httpx

from devtools.fuzzing.photos import damaged_file
from tests.support import color_resnet
from tests.support.contract import inputs_of
from tests.support.request_builders import b64
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, infer_request

PHOTO = color_resnet.png(color_resnet.photo(("red", (160, 120), 60)))
PATH = f"/predictions/{COLOR_MODEL}"
#: What no line may hold: the beginning of the photo, in any of the forms that it is sent in.
IMAGE = ("PNG\\r", "iVBORw0KGgo", PHOTO[:16].hex())


def lines_of(server: Client, call: Callable[[], Any], at_least: int = 1) -> list[dict[str, Any]]:
    """What the log grows by when a call is made."""
    before = len(server.log())
    call()
    deadline = time.monotonic() + 10
    while len(server.log()) < before + at_least and time.monotonic() < deadline:
        time.sleep(0.05)
    # What would be one too many comes later than the first.
    time.sleep(0.3)
    # Netty tells of buffers that TorchServe has lost whenever Java collects them, long after.
    return [line for line in server.log()[before:] if line["logger"] != "ResourceLeakDetector"]


def test_every_line_is_an_object_with_time_level_and_logger(server: Client) -> None:
    server.http.post(PATH, content=PHOTO)
    log = server.log()
    assert log
    assert [line for line in log if not {"time", "level", "logger"} <= line.keys()] == []
    levels = {line["level"] for line in log}
    assert levels <= {"INFO", "WARN", "ERROR"}


def test_an_answered_request_is_one_line_with_its_id(server: Client) -> None:
    replies: list[httpx.Response] = []
    (line,) = lines_of(server, lambda: replies.append(server.http.post(PATH, content=PHOTO)))
    assert line["request_id"] == replies[0].headers["x-request-id"]
    assert (line["logger"], line["level"], line["transport"]) == ("request", "INFO", "http")
    assert (line["status"], line["outcome"], line["code"]) == (200, "answered", "none")
    assert (line["model"], line["version"], line["batch"]) == (COLOR_MODEL, "1.0", 1)
    assert 0 < line["ms"] < 60_000


def test_every_request_is_at_most_one_line_without_image_or_token(server: Client) -> None:
    def calls() -> None:
        form = {"data": PHOTO}
        server.http.post(PATH, files=form, data={"target": "red"})
        server.http.post(PATH, content=b"no photo")
        server.http.post(f"{PATH}/1.0/alpha=7", content=PHOTO)
        server.http.post(PATH, content=b'{"image": ', headers={"Content-Type": "application/json"})
        server.http.post("/predictions/nobody", content=PHOTO)
        server.http.post(PATH, content=PHOTO, headers={"Authorization": "Bearer s3cret"})
        server.http.get("/ping")
        server.predict(COLOR_MODEL, data=PHOTO)
        server.stream(COLOR_MODEL, data=PHOTO)
        server.infer(infer_request(COLOR_MODEL, inputs_of([PHOTO])))
        with suppress(grpc.RpcError):
            server.grpc.Predictions(
                infer_request(COLOR_MODEL, []), metadata=[("authorization", "s3cret")], timeout=10
            )

    found = lines_of(server, calls, at_least=9)
    requests = [line for line in found if line["logger"] == "request"]
    assert len(requests) == 7
    assert len({line["request_id"] for line in requests}) == 7
    refused = [line["message"] for line in found if line["logger"] == "HttpRequestHandler"]
    assert len(refused) == 2
    # By class and place, without the name or the token that was sent.
    assert "ModelNotFoundException at " in refused[0]
    assert "InvalidKeyException at " in refused[1]
    assert "nobody" not in refused[0]
    # The rest may say that a gRPC call was refused, and no more than that.
    assert len(found) <= 7 + 2 + 1, found
    text = (server.run_dir / "logs" / "server.log").read_text()
    assert [secret for secret in (*IMAGE, "s3cret", server.token) if secret in text] == []


def test_a_damaged_photo_is_no_more_than_its_line(server: Client) -> None:
    # Decoders print of some of these what they think of them.
    damaged = [damaged_file(Random(n))[1] for n in range(40)]
    found = lines_of(server, lambda: [server.http.post(PATH, content=one) for one in damaged], 40)
    assert [line for line in found if line["logger"] != "request"] == []
    assert len(found) == len(damaged)


def test_one_bad_photo_among_several_is_told(server: Client) -> None:
    body = {"instances": [{"image": {"b64": b64(PHOTO)}}, {"image": {"b64": "eA=="}}]}
    (line,) = lines_of(
        server, lambda: server.http.post(f"/v1/models/{COLOR_MODEL}:predict", json=body)
    )
    assert (line["protocol"], line["status"], line["photos"]) == ("kserve v1", 200, 1)
    assert (line["outcome"], line["code"]) == ("partly", "unsupported_format")


def test_requests_of_two_connections_have_a_line_each(server: Client) -> None:
    with httpx.Client(base_url=server.http.base_url, headers=server.http.headers) as other:
        replies = [client.post(PATH, content=PHOTO) for client in (server.http, other)]
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == 2
    assert ids <= {line.get("request_id") for line in server.log()}
