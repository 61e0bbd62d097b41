"""A call's request, its token and its repetitions, for each of the four clients."""

from __future__ import annotations

import json
import pickle
import random
import time
from typing import Any

import grpc
import numpy as np
import pytest

from camserve_client import (
    CamserveError,
    RefusedError,
    ReplyError,
    TimedOutError,
    TokenRefusedError,
    UnavailableError,
)
from tests.support.stub_server import (
    BROKEN_OFF,
    CLIENTS,
    CONNECTING,
    HANDLER_RAISED,
    NO_MODEL,
    OK,
    OUT_OF_MEMORY,
    QUEUE_FULL,
    REFUSED,
    REPLY,
    TIMED_OUT,
    TOKEN_REFUSED,
    UNREACHABLE,
    WAYS,
    WORKER_DIED,
    Answer,
    Asked,
    Stub,
    torchserve,
)

each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a random share, the whole of each wait."""
    monkeypatch.setattr(random, "uniform", lambda least, most: most if least == 0 else None)


@each_way
def test_what_is_asked(way: str) -> None:
    stub = Stub([OK])
    settings = {"version": "1.0", "token": "secret", "timeout": 50}
    (reply,) = stub.explain(
        way,
        settings=settings,
        target=["tabby", np.int64(282)],
        alpha=np.float32(0.5),
        layer=None,
        outputs=("mask", "map"),
    )
    assert reply.raw == REPLY
    (asked,) = stub.asked
    assert (asked.model, asked.version, asked.photo, asked.token) == (
        "pets",
        "1.0",
        b"photo",
        "secret",
    )
    assert json.loads(asked.options) == {
        "target": ["tabby", 282],
        "alpha": 0.5,
        "outputs": ["mask", "map"],
    }
    # gRPC rounds it up on its way.
    assert 0 < asked.timeout < 51


@each_way
def test_what_is_left_to_the_server(way: str) -> None:
    stub = Stub([OK])
    stub.explain(way)
    (asked,) = stub.asked
    assert (asked.version, asked.options, asked.token) == ("", "{}", None)
    assert 0 < asked.timeout < 31


@each_way
def test_options_travel_in_ascii(way: str) -> None:
    stub = Stub([OK])
    stub.explain(way, target="Flaschenöffner\n猫")
    assert stub.asked[0].options.isascii()
    assert json.loads(stub.asked[0].options) == {"target": "Flaschenöffner\n猫"}


@each_way
def test_large_photos_and_replies(way: str) -> None:
    # Larger than what gRPC lets through by itself.
    photo = bytes(6 * 1024 * 1024)
    stub = Stub([Answer(body={**REPLY, "more": "x" * len(photo)})])
    (reply,) = stub.explain(way, photo)
    assert stub.asked[0].photo == photo
    assert len(reply.raw["more"]) == len(photo)


@pytest.mark.parametrize("way", ["http", "http async"])
def test_a_name_does_not_leave_its_place_in_the_url(way: str) -> None:
    stub = Stub([OK])
    stub.explain(way, settings={"model": "cats & dogs?/1", "version": "2#"})
    assert stub.paths == ["/predictions/cats%20%26%20dogs%3F%2F1/2%23"]


@pytest.mark.parametrize("way", ["grpc", "grpc async"])
def test_credentials_make_the_channel(way: str) -> None:
    # Local ones need no certificate.
    settings = {"credentials": grpc.local_channel_credentials(), "token": "secret"}
    stub = Stub([OK])
    stub.explain(way, settings=settings, credentials=grpc.local_server_credentials())
    assert stub.asked[0].token == "secret"
    # A server without TLS gets to see nothing of a client that wants it.
    stub = Stub([OK])
    with pytest.raises(UnavailableError):
        stub.explain(way, settings={"credentials": grpc.ssl_channel_credentials(), "retries": 0})
    assert stub.asked == []


@each_way
@pytest.mark.parametrize(
    "busy",
    [QUEUE_FULL, WORKER_DIED, HANDLER_RAISED, OUT_OF_MEMORY, UNREACHABLE, CONNECTING, BROKEN_OFF],
    ids=["queue", "worker", "handler", "memory", "unreachable", "connecting", "broken off"],
)
def test_a_busy_server_is_asked_again(way: str, busy: Answer) -> None:
    stub = Stub([busy, busy, OK])
    assert stub.explain(way)[0].predictions[0].label == "tabby"
    first, second, third = stub.asked
    assert first.photo == second.photo == third.photo == b"photo"
    assert len(stub.waits) == 2


@each_way
@pytest.mark.usefixtures("longest_waits")
def test_each_wait_is_longer_up_to_an_end(way: str) -> None:
    stub = Stub([QUEUE_FULL])
    with pytest.raises(UnavailableError, match=r"has no worker .*; tried 8 times") as failure:
        stub.explain(way, settings={"retries": 7})
    assert len(stub.asked) == 8
    assert stub.waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert failure.value.code == "unavailable"


@each_way
def test_no_retries(way: str) -> None:
    stub = Stub([QUEUE_FULL])
    with pytest.raises(UnavailableError) as failure:
        stub.explain(way, settings={"retries": 0})
    assert "tried" not in str(failure.value)
    assert len(stub.asked) == 1


@pytest.mark.parametrize("way", ["http", "http async"])
@pytest.mark.usefixtures("longest_waits")
@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("3", 3),
        ("0", 0.2),
        ("Tue, 14 Nov 2023 22:13:27 GMT", 7),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.2),
        ("soon", 0.2),
    ],
)
def test_the_server_says_when(
    way: str, header: str, wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)  # 22:13:20
    stub = Stub([Answer(503, b"", headers={"Retry-After": header}), OK])
    stub.explain(way)
    assert stub.waits == pytest.approx([wait])


@pytest.mark.parametrize("way", ["http", "http async"])
def test_a_longer_wait_than_the_timeout_is_not_waited(way: str) -> None:
    stub = Stub([Answer(503, b"", headers={"Retry-After": "31"}), OK])
    with pytest.raises(UnavailableError, match="asked again in 31 s") as failure:
        stub.explain(way)
    assert failure.value.retry_after == 31
    assert (len(stub.asked), stub.waits) == (1, [])


@each_way
def test_a_timeout_is_not_repeated(way: str) -> None:
    stub = Stub([TIMED_OUT, OK])
    with pytest.raises(TimedOutError, match="did not answer in time"):
        stub.explain(way)
    assert len(stub.asked) == 1


@each_way
@pytest.mark.parametrize(
    ("answer", "code", "status", "message"),
    [
        (REFUSED, "unknown_class", 400, "target 'pink' is no label"),
        (NO_MODEL, "ModelNotFoundException", 404, "Model not found: pets"),
        (
            Answer(
                500,
                torchserve(500, "InternalServerException", "Worker died."),
                (grpc.StatusCode.INTERNAL, "Worker died.\na.b.InternalServerException"),
            ),
            "InternalServerException",
            500,
            "Worker died.",
        ),
    ],
    ids=["handler", "model", "worker"],
)
def test_a_refusal_is_final_and_the_same_over_both_transports(
    way: str, answer: Answer, code: str, status: int, message: str
) -> None:
    stub = Stub([answer, OK])
    with pytest.raises(RefusedError) as failure:
        stub.explain(way)
    refusal = failure.value
    assert (refusal.code, refusal.status, refusal.message) == (code, status, message)
    assert str(refusal) == f"{message} ({code}, {status})"
    assert str(pickle.loads(pickle.dumps(refusal))) == str(refusal)  # noqa: S301  # its own
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("way", "answer", "code", "status", "message"),
    [
        ("http", Answer(413, b""), "http_413", 413, "Request Entity Too Large"),
        ("http", Answer(502, b"\n<h1>Bad</h1>"), "http_502", 502, "Bad Gateway"),
        ("http", Answer(418, b"a\n teapot "), "http_418", 418, "a teapot"),
        ("http", Answer(404, ["no"]), "http_404", 404, '["no"]'),
        ("http", Answer(302, b""), "http_302", 302, "Found"),
        (
            "grpc",
            Answer(failure=(grpc.StatusCode.CANCELLED, "Stream removed")),
            "grpc_cancelled",
            413,
            "the server broke off, as it does for a large photo: Stream removed",
        ),
        (
            "grpc",
            Answer(failure=(grpc.StatusCode.UNIMPLEMENTED, "no such method")),
            "grpc_unimplemented",
            500,
            "no such method",
        ),
        (
            "grpc",
            Answer(failure=(grpc.StatusCode.INTERNAL, "odd")),
            "grpc_internal",
            500,
            "odd",
        ),
    ],
)
def test_what_is_not_torchserves_answer(
    way: str, answer: Answer, code: str, status: int, message: str
) -> None:
    for one in (way, f"{way} async"):
        with pytest.raises(RefusedError) as failure:
            Stub([answer]).explain(one)
        refusal = failure.value
        assert (refusal.code, refusal.status, refusal.message) == (code, status, message)


@each_way
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "the reply is no JSON, but begins with b'<html>'"),
        (b"\xff\xfe", "the reply is no JSON"),
        ([], "reply must be an object"),
        ({"model": {}}, "reply.model has no 'name'"),
        ({"error": "no"}, "the error in the reply is not as agreed"),
    ],
)
def test_a_reply_that_is_not_as_agreed(way: str, body: Any, message: str) -> None:
    stub = Stub([Answer(body=body)])
    with pytest.raises(ReplyError, match=message.replace("[", r"\[")) as failure:
        stub.explain(way)
    assert isinstance(failure.value, CamserveError)
    assert failure.value.code == "bad_reply"
    assert len(stub.asked) == 1


class Issuer:
    """Gives out tokens by number; the server takes those from ``good`` on."""

    def __init__(self, good: int) -> None:
        self.good = good
        self.given = 0

    def issue(self) -> str:
        self.given += 1
        return f"token-{self.given}"

    def check(self, token: str | None) -> Answer:
        number = int((token or "token-0").removeprefix("token-"))
        return OK if number >= self.good else TOKEN_REFUSED


def tokens(asked: list[Asked]) -> list[str | None]:
    return [one.token for one in asked]


@each_way
def test_a_callable_gives_the_token_once(way: str) -> None:
    issuer = Issuer(good=1)
    stub = Stub(issuer.check)
    stub.explain(way, *[b"photo"] * 6, settings={"token": issuer.issue})
    assert tokens(stub.asked) == ["token-1"] * 6


@each_way
def test_a_refused_token_is_renewed_once_for_all_calls(way: str) -> None:
    issuer = Issuer(good=2)
    stub = Stub(issuer.check)
    replies = stub.explain(way, *[b"photo"] * 6, settings={"token": issuer.issue, "retries": 0})
    assert len(replies) == 6
    assert issuer.given == 2
    assert set(tokens(stub.asked)) == {"token-1", "token-2"}
    assert stub.waits == [0] * (len(stub.asked) - 6)


@each_way
def test_a_token_that_stays_refused(way: str) -> None:
    issuer = Issuer(good=99)
    stub = Stub(issuer.check)
    with pytest.raises(TokenRefusedError, match="Token Authorization failed") as failure:
        stub.explain(way, settings={"token": issuer.issue})
    assert tokens(stub.asked) == ["token-1", "token-2"]
    assert (failure.value.code, failure.value.status) == ("InvalidKeyException", 400)


@each_way
@pytest.mark.parametrize("token", ["token-1", None])
def test_a_token_that_cannot_be_renewed(way: str, token: str | None) -> None:
    stub = Stub([TOKEN_REFUSED, OK])
    with pytest.raises(TokenRefusedError):
        stub.explain(way, settings={"token": token})
    assert tokens(stub.asked) == [token]


def test_a_proxy_refuses_a_token_with_401() -> None:
    issuer = Issuer(good=1)
    stub = Stub([Answer(401, b"expired"), OK])
    stub.explain("http", settings={"token": issuer.issue})
    assert tokens(stub.asked) == ["token-1", "token-2"]


@each_way
def test_a_renewal_takes_no_retry(way: str) -> None:
    issuer = Issuer(good=1)
    stub = Stub([QUEUE_FULL, TOKEN_REFUSED, QUEUE_FULL, OK])
    stub.explain(way, settings={"token": issuer.issue, "retries": 2})
    assert tokens(stub.asked) == ["token-1", "token-1", "token-2", "token-2"]


@each_way
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timeout": 0}, "timeout 0"),
        ({"timeout": float("inf")}, "timeout inf"),
        ({"retries": -1}, "retries -1"),
        ({"model": ""}, "a model's name"),
        ({"token": "secret\n"}, "a token is printable ASCII"),
    ],
)
def test_a_client_is_checked_when_it_is_made(way: str, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as failure:
        Stub([OK]).explain(way, settings=wrong)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("way", "address"),
    [
        ("http", "127.0.0.1:8080"),
        ("http async", "cam.example"),
        ("http", "http://"),
        ("http async", "http://cam.example:port"),
        ("grpc", "http://127.0.0.1:7070"),
        ("grpc async", "https://cam.example"),
    ],
)
def test_an_address_of_the_wrong_kind(way: str, address: str) -> None:
    with pytest.raises(ValueError, match="accepted is"):
        CLIENTS[way](address, "pets")
