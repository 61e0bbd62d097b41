"""The request, the token and the retries of a call, for each of the four clients."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import time
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from camserve_client import (
    AsyncGrpcClient,
    AuthenticationError,
    CamserveError,
    CertificateError,
    Client,
    GrpcClient,
    InvalidReplyError,
    Reply,
    RequestRejectedError,
    RequestTimeoutError,
    ServerFailedError,
    StatusError,
    UnavailableError,
)
from tests.support.stub_server import (
    CLIENT_KINDS,
    CLIENTS,
    CONNECTING,
    CONNECTION_LOST,
    HANDLER_RAISED,
    NO_MODEL,
    OK,
    OUT_OF_MEMORY,
    QUEUE_FULL,
    REJECTED,
    REPLY,
    TIMED_OUT,
    TOKEN_REJECTED,
    UNREACHABLE,
    WORKER_DIED,
    Answer,
    ReceivedCall,
    StubServer,
    torchserve_error,
)

#: As the edge answers.
TOO_LARGE = {
    "error": {"code": "request_too_large", "status": 413, "message": "the request is larger"}
}
UNAUTHORIZED = {"error": {"code": "unauthorized", "status": 401, "message": "the token is wrong"}}
each_client = pytest.mark.parametrize("client_kind", CLIENT_KINDS)


@pytest.fixture
def largest_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each random delay the largest possible one."""
    monkeypatch.setattr(random, "uniform", lambda least, most: most if least == 0 else None)


@each_client
def test_what_a_request_carries(client_kind: str) -> None:
    stub = StubServer([OK])
    settings = {"version": "1.0", "token": "secret", "timeout": 50}
    (reply,) = stub.explain(
        client_kind,
        settings=settings,
        target=["tabby", np.int64(282)],
        alpha=np.float32(0.5),
        layer=None,
        outputs=("mask", "map"),
    )
    assert reply.raw == REPLY
    (received,) = stub.received
    assert (received.model, received.version, received.photo, received.token) == (
        "pets",
        "1.0",
        b"photo",
        "secret",
    )
    assert json.loads(received.options) == {
        "target": ["tabby", 282],
        "alpha": 0.5,
        "outputs": ["mask", "map"],
    }
    # gRPC rounds it up.
    assert 0 < received.timeout < 51


@each_client
def test_defaults_are_left_to_the_server(client_kind: str) -> None:
    stub = StubServer([OK])
    stub.explain(client_kind)
    (received,) = stub.received
    assert (received.version, received.options, received.token) == ("", "{}", None)
    assert 0 < received.timeout < 31


@each_client
def test_options_are_sent_in_ascii(client_kind: str) -> None:
    stub = StubServer([OK])
    stub.explain(client_kind, target="Flaschenöffner\n猫")
    assert stub.received[0].options.isascii()
    assert json.loads(stub.received[0].options) == {"target": "Flaschenöffner\n猫"}


@each_client
def test_large_photos_and_replies(client_kind: str) -> None:
    # Larger than gRPC's default limit.
    photo = bytes(6 * 1024 * 1024)
    stub = StubServer([Answer(body={**REPLY, "more": "x" * len(photo)})])
    (reply,) = stub.explain(client_kind, photo)
    assert stub.received[0].photo == photo
    assert len(reply.raw["more"]) == len(photo)


@pytest.mark.parametrize("client_kind", ["http", "http async"])
def test_a_models_name_is_quoted_in_the_url(client_kind: str) -> None:
    stub = StubServer([OK])
    stub.explain(client_kind, settings={"model": "cats & dogs?/1", "version": "2#"})
    assert stub.paths == ["/predictions/cats%20%26%20dogs%3F%2F1/2%23"]


@pytest.mark.parametrize("client_kind", ["grpc", "grpc async"])
def test_credentials_make_the_channel(client_kind: str) -> None:
    # Local credentials need no certificate.
    settings = {"credentials": grpc.local_channel_credentials(), "token": "secret"}
    stub = StubServer([OK])
    stub.explain(client_kind, settings=settings, credentials=grpc.local_server_credentials())
    assert stub.received[0].token == "secret"
    # A client with TLS sends nothing to a server without TLS.
    stub = StubServer([OK])
    with pytest.raises(UnavailableError):
        stub.explain(
            client_kind, settings={"credentials": grpc.ssl_channel_credentials(), "retries": 0}
        )
    assert stub.received == []


def test_a_call_goes_through_the_callers_own_channel() -> None:
    stub = StubServer([OK])
    with stub.served("grpc") as place:
        channel = grpc.insecure_channel(place["address"])
        # Nothing is called there.
        with GrpcClient("nowhere.invalid:1", "pets", channel=channel) as client:
            assert client.explain(b"photo").raw == REPLY
        with pytest.raises(ValueError, match="closed channel"):
            channel.unary_unary("/any")(b"")


def test_a_call_goes_through_the_callers_own_async_channel() -> None:
    stub = StubServer([OK])

    async def explain(address: str) -> Reply:
        channel = grpc.aio.insecure_channel(address)
        async with AsyncGrpcClient("nowhere.invalid:1", "pets", channel=channel) as client:
            reply = await client.explain(b"photo")
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        return reply

    with stub.served("grpc async") as place:
        assert asyncio.run(explain(place["address"])).raw == REPLY


@pytest.mark.parametrize("client_kind", ["grpc", "grpc async"])
@pytest.mark.parametrize(
    "also", [{"server_name": "cam.example"}, {"credentials": grpc.local_channel_credentials()}]
)
def test_a_channel_has_its_own_credentials(client_kind: str, also: dict[str, Any]) -> None:
    # Never used: it is only compared with None.
    channel: Any = object()
    with pytest.raises(ValueError, match="its own credentials and server_name"):
        CLIENTS[client_kind]("127.0.0.1:7070", "pets", channel=channel, **also)


@each_client
@pytest.mark.parametrize(
    "busy",
    [
        QUEUE_FULL,
        WORKER_DIED,
        HANDLER_RAISED,
        OUT_OF_MEMORY,
        UNREACHABLE,
        CONNECTING,
        CONNECTION_LOST,
    ],
    ids=["queue", "worker", "handler", "memory", "unreachable", "connecting", "connection lost"],
)
def test_a_call_to_a_busy_server_is_retried(client_kind: str, busy: Answer) -> None:
    stub = StubServer([busy, busy, OK])
    assert stub.explain(client_kind)[0].predictions[0].label == "tabby"
    first, second, third = stub.received
    assert first.photo == second.photo == third.photo == b"photo"
    assert len(stub.waits) == 2


@each_client
@pytest.mark.usefixtures("largest_delays")
def test_delays_grow_up_to_a_limit(client_kind: str) -> None:
    stub = StubServer([QUEUE_FULL])
    with pytest.raises(UnavailableError, match=r"has no worker .*; tried 8 times") as failure:
        stub.explain(client_kind, settings={"retries": 7})
    assert len(stub.received) == 8
    assert stub.waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert failure.value.code == "unavailable"


@each_client
def test_no_retries(client_kind: str) -> None:
    stub = StubServer([QUEUE_FULL])
    with pytest.raises(UnavailableError) as failure:
        stub.explain(client_kind, settings={"retries": 0})
    assert "tried" not in str(failure.value)
    assert len(stub.received) == 1


@pytest.mark.parametrize("client_kind", ["http", "http async"])
@pytest.mark.usefixtures("largest_delays")
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
def test_the_servers_retry_after_is_respected(
    client_kind: str, header: str, wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)  # 22:13:20
    stub = StubServer([Answer(503, b"", headers={"Retry-After": header}), OK])
    stub.explain(client_kind)
    assert stub.waits == pytest.approx([wait])


@pytest.mark.parametrize("client_kind", ["http", "http async"])
def test_a_retry_after_beyond_the_timeout_ends_the_call(client_kind: str) -> None:
    stub = StubServer([Answer(503, b"", headers={"Retry-After": "31"}), OK])
    with pytest.raises(UnavailableError, match="retry after 31 s") as failure:
        stub.explain(client_kind)
    assert failure.value.retry_after == 31
    assert (len(stub.received), stub.waits) == (1, [])


@each_client
def test_a_timeout_is_not_retried(client_kind: str) -> None:
    stub = StubServer([TIMED_OUT, OK])
    with pytest.raises(RequestTimeoutError, match="did not answer in time"):
        stub.explain(client_kind)
    assert len(stub.received) == 1


@each_client
@pytest.mark.parametrize(
    ("answer", "error_class", "code", "status", "message"),
    [
        (REJECTED, RequestRejectedError, "unknown_class", 400, "target 'pink' is no label"),
        (
            NO_MODEL,
            RequestRejectedError,
            "ModelNotFoundException",
            404,
            "Model not found: pets",
        ),
        (
            Answer(
                500,
                {"error": {"code": "internal_error", "status": 500, "message": "a defect"}},
            ),
            ServerFailedError,
            "internal_error",
            500,
            "a defect",
        ),
        (
            Answer(
                500,
                torchserve_error(500, "InternalServerException", "Worker died."),
                (grpc.StatusCode.INTERNAL, "Worker died.\na.b.InternalServerException"),
            ),
            ServerFailedError,
            "InternalServerException",
            500,
            "Worker died.",
        ),
    ],
    ids=["handler rejects", "model", "handler fails", "worker"],
)
def test_a_status_error_is_final_and_the_same_over_both_transports(
    client_kind: str,
    answer: Answer,
    error_class: type[StatusError],
    code: str,
    status: int,
    message: str,
) -> None:
    stub = StubServer([answer, OK])
    with pytest.raises(StatusError) as failure:
        stub.explain(client_kind)
    error = failure.value
    assert type(error) is error_class
    assert (error.code, error.status, error.message) == (code, status, message)
    assert str(error) == f"{message} ({code}, {status})"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # its own
    assert len(stub.received) == 1


@pytest.mark.parametrize(
    ("client_kind", "answer", "code", "status", "message"),
    [
        ("http", Answer(413, b""), "http_413", 413, "Request Entity Too Large"),
        ("http", Answer(502, b"\n<h1>Bad</h1>"), "http_502", 502, "Bad Gateway"),
        ("http", Answer(418, b"a\n teapot "), "http_418", 418, "a teapot"),
        ("http", Answer(404, ["no"]), "http_404", 404, '["no"]'),
        # As TorchServe answers HTTP where it speaks TLS.
        ("http", Answer(403, {"status": "only HTTPS"}), "http_403", 403, "only HTTPS"),
        ("http", Answer(302, b""), "http_302", 302, "Found"),
        (
            "grpc",
            Answer(failure=(grpc.StatusCode.CANCELLED, "Stream removed")),
            "grpc_cancelled",
            413,
            "the server closed the call, as it does when the photo is too large: Stream removed",
        ),
        # The edge's, and what gRPC says where a message is larger than a channel's own limit.
        ("http", Answer(413, TOO_LARGE), "request_too_large", 413, "the request is larger"),
        *(
            (
                "grpc",
                Answer(failure=(grpc.StatusCode.RESOURCE_EXHAUSTED, text)),
                "request_too_large",
                413,
                text,
            )
            for text in ("message larger than max: 28 MB", "Sent message larger than max (2 vs. 1)")
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
def test_answers_that_are_not_torchserves(
    client_kind: str, answer: Answer, code: str, status: int, message: str
) -> None:
    for one in (client_kind, f"{client_kind} async"):
        with pytest.raises(StatusError) as failure:
            StubServer([answer]).explain(one)
        error = failure.value
        assert type(error) is (ServerFailedError if status >= 500 else RequestRejectedError)
        assert (error.code, error.status, error.message) == (code, status, message)


@each_client
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "the reply is not JSON; it begins with b'<html>'"),
        (b"\xff\xfe", "the reply is not JSON"),
        ([], "reply must be an object"),
        ({"model": {}}, "reply.model has no 'name'"),
        ({"error": "no"}, "the error in the reply does not match the schema"),
    ],
)
def test_a_reply_that_does_not_match_the_schema(client_kind: str, body: Any, message: str) -> None:
    stub = StubServer([Answer(body=body)])
    with pytest.raises(InvalidReplyError, match=message.replace("[", r"\[")) as failure:
        stub.explain(client_kind)
    assert isinstance(failure.value, CamserveError)
    assert failure.value.code == "bad_reply"
    assert len(stub.received) == 1


class Issuer:
    """Issues numbered tokens; the server accepts those from number ``good`` on."""

    def __init__(self, good: int) -> None:
        self.good = good
        self.given = 0

    def issue(self) -> str:
        self.given += 1
        return f"token-{self.given}"

    def check(self, token: str | None) -> Answer:
        number = int((token or "token-0").removeprefix("token-"))
        return OK if number >= self.good else TOKEN_REJECTED


def tokens(received: list[ReceivedCall]) -> list[str | None]:
    return [one.token for one in received]


@each_client
def test_a_callable_gives_the_token_once(client_kind: str) -> None:
    issuer = Issuer(good=1)
    stub = StubServer(issuer.check)
    stub.explain(client_kind, *[b"photo"] * 6, settings={"token": issuer.issue})
    assert tokens(stub.received) == ["token-1"] * 6


@each_client
def test_a_rejected_token_is_renewed_once_for_all_calls(client_kind: str) -> None:
    issuer = Issuer(good=2)
    stub = StubServer(issuer.check)
    replies = stub.explain(
        client_kind, *[b"photo"] * 6, settings={"token": issuer.issue, "retries": 0}
    )
    assert len(replies) == 6
    assert issuer.given == 2
    assert set(tokens(stub.received)) == {"token-1", "token-2"}
    assert stub.waits == [0] * (len(stub.received) - 6)


@each_client
def test_a_token_that_is_rejected_again(client_kind: str) -> None:
    issuer = Issuer(good=99)
    stub = StubServer(issuer.check)
    with pytest.raises(AuthenticationError, match="Token Authorization failed") as failure:
        stub.explain(client_kind, settings={"token": issuer.issue})
    assert tokens(stub.received) == ["token-1", "token-2"]
    assert (failure.value.code, failure.value.status) == ("InvalidKeyException", 400)


@each_client
@pytest.mark.parametrize("token", ["token-1", None])
def test_a_token_that_cannot_be_renewed(client_kind: str, token: str | None) -> None:
    stub = StubServer([TOKEN_REJECTED, OK])
    with pytest.raises(AuthenticationError):
        stub.explain(client_kind, settings={"token": token})
    assert tokens(stub.received) == [token]


@pytest.mark.parametrize("body", [b"expired", UNAUTHORIZED])
def test_a_proxy_rejects_a_token_with_401(body: Any) -> None:
    issuer = Issuer(good=1)
    stub = StubServer([Answer(401, body), OK])
    stub.explain("http", settings={"token": issuer.issue})
    assert tokens(stub.received) == ["token-1", "token-2"]


@each_client
def test_a_renewal_is_not_counted_as_a_retry(client_kind: str) -> None:
    issuer = Issuer(good=1)
    stub = StubServer([QUEUE_FULL, TOKEN_REJECTED, QUEUE_FULL, OK])
    stub.explain(client_kind, settings={"token": issuer.issue, "retries": 2})
    assert tokens(stub.received) == ["token-1", "token-1", "token-2", "token-2"]


@each_client
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
def test_a_clients_arguments_are_validated(client_kind: str, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as failure:
        StubServer([OK]).explain(client_kind, settings=wrong)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("client_kind", "address"),
    [
        ("http", "127.0.0.1:8080"),
        ("http async", "cam.example"),
        ("http", "http://"),
        ("http async", "http://cam.example:port"),
        ("grpc", "http://127.0.0.1:7070"),
        ("grpc async", "https://cam.example"),
    ],
)
def test_an_address_of_the_wrong_kind(client_kind: str, address: str) -> None:
    with pytest.raises(ValueError, match="accepted is"):
        CLIENTS[client_kind](address, "pets")


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    attempts: list[object] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", request=request)

    client = Client(
        "https://cam.example", "pets", transport=httpx.MockTransport(refuse), sleep=attempts.append
    )
    with client, pytest.raises(CertificateError, match=r"accepted: .* or verify=ssl") as error:
        client.explain(b"photo")
    assert error.value.code == "untrusted_certificate"
    assert len(attempts) == 1
