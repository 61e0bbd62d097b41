"""A few hundred broken requests by every way to a real server, good ones among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soaking.calls import Call
from soaking.cases import PREDICTIONS, call
from soaking.photos import digest_of, good, whole
from soaking.target import Answer, Target
from soaking.traffic import Tally, drive
from soaking.verdict import judge
from soaking.vitals import Watch
from tests.support.scripts import COLOURS
from tests.support.server_client import Client

SEED, REQUESTS = 6, 400


@pytest.fixture(scope="module")
def target(server: Client) -> Target:
    pid = json.loads((server.run_dir / "server.json").read_text())["pid"]
    address = f"127.0.0.1:{server.ports['GRPC_INFERENCE_PORT']}"
    base = str(server.http.base_url)
    return Target(base, address, server.token, pid, COLOURS, colours=True)


def test_every_answer_is_sound_and_no_worker_ends(target: Target, tmp_path: Path) -> None:
    tally, watch = Tally(SEED, tmp_path), Watch(target.pid)
    drive(target, tally, connections=6, indices=range(REQUESTS), tick=watch)
    watch()
    assert tally.sent == REQUESTS
    assert tally.findings == []
    assert tally.problems == 0
    assert watch.deaths == 0
    assert tally.good > REQUESTS / 6
    # All of it was tried, and most of what is broken reached the handler.
    assert len(tally.families) == 9
    assert {"invalid_image", "invalid_json", "missing_image", "answered"} <= tally.outcomes.keys()


def test_a_case_is_the_same_whenever_it_is_asked_for() -> None:
    calls = [call(1, n, "m") for n in range(200)]
    assert calls == [call(1, n, "m") for n in range(200)]
    assert calls != [call(2, n, "m") for n in range(200)]


def test_every_good_photo_is_its_own() -> None:
    made = [good(n) for n in range(50)]
    assert len({digest for _, digest, _ in made}) == 50
    assert all(digest_of(photo) == digest for photo, digest, _ in made)
    assert len(whole()) == 17


def answer(code: str, body: bytes, says: str = "") -> Answer:
    return Answer(code, (body,) if body else (), says, 0.1)


def error(code: str = "invalid_image", status: int = 400, message: str = "no") -> bytes:
    return json.dumps({"error": {"code": code, "status": status, "message": message}}).encode()


HTTP = Call("json", "http", "POST", "/predictions/m")


@pytest.mark.parametrize(
    ("one", "got", "said"),
    [
        (HTTP, answer("500", error("internal_error", 500)), "500 internal_error"),
        (HTTP, answer("503", b'{"code": 503, "type": "X", "message": "died"}'), "503"),
        (HTTP, answer("400", b"{"), "no valid body"),
        (HTTP, answer("200", b'{"predictions": NaN}'), "NaN is no JSON"),
        (HTTP, answer("200", b'{"nothing": 1}'), "against the schema"),
        (HTTP, answer("400", error("nonsense")), "error 'nonsense' with status 400"),
        (HTTP, answer("400", error(message="a\x00")), "raw bytes"),
        (HTTP, answer("none", b"", "ReadTimeout"), "none: ReadTimeout"),
        (Call("p", "unary", PREDICTIONS), answer("UNAVAILABLE", b"", "died"), "UNAVAILABLE: died"),
        (Call("p", "unary", PREDICTIONS, digest="x"), answer("UNKNOWN", b""), "UNKNOWN"),
        (Call("g", "http", "POST", digest="x"), answer("400", error()), "a good photo is refused"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(one: Call, got: Answer, said: str) -> None:
    assert said in judge(one, got).problem


@pytest.mark.parametrize(
    ("one", "got"),
    [
        (HTTP, answer("400", error())),
        (HTTP, answer("404", b'{"code": 404, "type": "X", "message": "none"}')),
        (Call("p", "unary", PREDICTIONS), answer("UNKNOWN", b"")),
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(one: Call, got: Answer) -> None:
    assert judge(one, got).problem == ""


def test_what_the_edge_refuses_by_itself_is_told_apart() -> None:
    none = b'{"error": {"code": "not_found", "status": 404, "message": "no such path here"}}'
    as_grpc = Call("h", "http", "POST", headers=(("Content-Type", "application/grpc"),))
    streaming = Call("p", "duplex", f"{PREDICTIONS}2")
    refused = [
        (HTTP, answer("404", none)),
        (HTTP, answer("400", b"")),
        (as_grpc, answer("200", b"")),
        (streaming, answer("UNIMPLEMENTED", b"", none.decode())),
    ]
    for one, got in refused:
        assert judge(one, got, edge=True).outcome == f"edge {got.code}"
    for one, got in refused[:3]:
        assert judge(one, got).problem
    for one, got in ((HTTP, answer("200", b"")), (HTTP, answer("503", b""))):
        assert judge(one, got, edge=True).problem


def test_what_the_frontend_does_alone_is_told_apart() -> None:
    body = b'{"code": 500, "type": "ErrorDataDecoderException", "message": "empty name"}'
    verdict = judge(HTTP, answer("500", body))
    assert (verdict.problem, verdict.fault) == ("", "500 ErrorDataDecoderException")
    # For a good photo, it is a failure all the same.
    assert judge(Call("g", "http", "POST", digest="x"), answer("500", body)).problem
