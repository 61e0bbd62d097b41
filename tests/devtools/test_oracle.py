"""The test oracle: which answers are acceptable, and the problems that it names."""

from __future__ import annotations

import json

import pytest

from devtools.fuzzing.calls import Call
from devtools.fuzzing.generators import PREDICTIONS
from devtools.fuzzing.oracle import judge
from devtools.fuzzing.server_target import Answer


def answer(code: str, body: bytes, detail: str = "") -> Answer:
    return Answer(code, (body,) if body else (), detail, 0.1)


def error(code: str = "invalid_image", status: int = 400, message: str = "no") -> bytes:
    return json.dumps({"error": {"code": code, "status": status, "message": message}}).encode()


HTTP = Call("json", "http", "POST", "/predictions/m")


@pytest.mark.parametrize(
    ("call", "received", "problem"),
    [
        (HTTP, answer("400", error()), ""),
        (HTTP, answer("500", error("internal_error", 500)), "500 internal_error"),
        (HTTP, answer("503", b'{"code": 503, "type": "X", "message": "died"}'), "503"),
        (HTTP, answer("404", b'{"code": 404, "type": "X", "message": "none"}'), ""),
        (HTTP, answer("400", b"{"), "no valid body"),
        (HTTP, answer("200", b'{"predictions": NaN}'), "NaN is not JSON"),
        (HTTP, answer("200", b'{"nothing": 1}'), "against the schema"),
        (HTTP, answer("400", error("nonsense")), "error 'nonsense' with status 400"),
        (HTTP, answer("400", error(message="a\x00")), "raw bytes"),
        (HTTP, answer("none", b"", "ReadTimeout"), "none: ReadTimeout"),
        (Call("p", "unary", PREDICTIONS), answer("UNAVAILABLE", b"", "died"), "UNAVAILABLE: died"),
        (Call("p", "unary", PREDICTIONS), answer("UNKNOWN", b""), ""),
        (Call("p", "unary", PREDICTIONS, digest="x"), answer("UNKNOWN", b""), "UNKNOWN"),
        (
            Call("g", "http", "POST", digest="x"),
            answer("400", error()),
            "a valid photo is rejected",
        ),
    ],
)
def test_the_verdict_names_the_problem(call: Call, received: Answer, problem: str) -> None:
    verdict = judge(call, received)
    assert problem in verdict.problem
    assert bool(verdict.problem) is bool(problem)


def test_calls_that_the_edge_rejects_itself_have_their_own_outcome() -> None:
    not_routed = b'{"error": {"code": "not_found", "status": 404, "message": "no such path here"}}'
    as_grpc = Call("h", "http", "POST", headers=(("Content-Type", "application/grpc"),))
    too_large = b'{"error": {"code": "request_too_large", "status": 413, "message": "28 MB"}}'
    streaming = Call("p", "duplex", f"{PREDICTIONS}2")
    rejected = [
        (HTTP, answer("404", not_routed)),
        (HTTP, answer("413", too_large)),
        (HTTP, answer("400", b"")),
        (as_grpc, answer("200", b"")),
        (streaming, answer("UNIMPLEMENTED", b"", not_routed.decode())),
    ]
    for call, received in rejected:
        assert judge(call, received, through_edge=True).outcome == f"edge {received.code}"
    for call, received in (rejected[0], *rejected[2:4]):
        assert judge(call, received).problem
    assert judge(HTTP, answer("404", too_large), through_edge=True).problem
    for code in ("200", "503"):
        assert judge(HTTP, answer(code, b""), through_edge=True).problem


def test_a_fault_of_the_frontend_alone_is_no_problem_but_for_a_valid_photo() -> None:
    body = b'{"code": 500, "type": "ErrorDataDecoderException", "message": "empty name"}'
    verdict = judge(HTTP, answer("500", body))
    assert (verdict.problem, verdict.frontend_fault) == ("", "500 ErrorDataDecoderException")
    assert judge(Call("g", "http", "POST", digest="x"), answer("500", body)).problem
