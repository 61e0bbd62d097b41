"""What the front finds in an HTTP body without parsing it."""

from __future__ import annotations

import pytest

from camserve_cli.open_inference.http_request import timeout_in

LENGTH = "Inference-Header-Content-Length"


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b'{"parameters": {"timeout": 2500000}, "inputs": []}', 2.5),
        (b'{"inputs":[],"parameters":{"priority":1,"timeout":1}}', 1e-6),
        (b'{"parameters": {"timeout": 0}}', None),
        (b'{"parameters": {"timeout": -5}}', None),
        (b'{"parameters": {"timeout": "5"}}', None),
        (b'{"parameters": {"timeout": 99999999999999999999}}', None),
        (b'{"timeout": 5}', None),
        (b'{"inputs": []}', None),
        (b'\xff\xd8 "timeout"', None),
    ],
)
def test_the_timeout_of_a_body(body: bytes, seconds: float | None) -> None:
    assert timeout_in(bytearray(body), {}) == seconds


def test_only_the_json_is_searched() -> None:
    behind = b'"parameters": {"timeout": 5}'
    body = bytearray(b'{"inputs": []}' + behind)
    assert timeout_in(body, {LENGTH: "14"}) is None
    assert timeout_in(body, {LENGTH: "x"}) == 5e-6
