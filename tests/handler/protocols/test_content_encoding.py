"""Compressed bodies are read up to a limit."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from camserve.errors import RequestError
from camserve.protocols.content_encoding import with_body_decompressed
from camserve.protocols.parsing import ImageRequest, IncomingRequest, parse_request
from camserve.settings import Limits, Settings

LIMITS = Limits(photo_bytes=3000, json_bytes=100)
LIMIT = 4100
PHOTO = b"\xff\xd8\xff photo " * 100


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


COMPRESSED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in capitals": ("GZip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "gzip of two members": (
        "gzip",
        lambda content: gzip.compress(content[:99]) + gzip.compress(content[99:]),
    ),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
    "none": ("", bytes),
    "identity and gzip": ("identity, gzip", gzip.compress),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_bodies_are_decompressed(kind: str) -> None:
    encoding, compress = COMPRESSED[kind]
    fields = {"alpha": b"1", "body": bytearray(compress(PHOTO))}
    assert with_body_decompressed(fields, encoding, LIMITS) == {"alpha": b"1", "body": PHOTO}


@pytest.mark.parametrize("kind", ["gzip", "deflate", "deflate without its header"])
def test_a_bomb_is_refused_at_the_limit(kind: str) -> None:
    encoding, compress = COMPRESSED[kind]
    for size in (LIMIT + 1, 100_000_000):
        with pytest.raises(RequestError, match=f"more than {LIMIT} bytes once decomp") as error:
            with_body_decompressed({"body": compress(bytes(size))}, encoding, LIMITS)
        assert error.value.status == 413
    members = [bytes(LIMIT // 2), bytes(LIMIT)]
    with pytest.raises(RequestError, match=f"more than {LIMIT} bytes once decomp"):
        with_body_decompressed({"body": b"".join(map(gzip.compress, members))}, "gzip", LIMITS)
    fields = with_body_decompressed({"body": compress(bytes(LIMIT))}, encoding, LIMITS)
    assert fields["body"] == bytes(LIMIT)


@pytest.mark.parametrize(
    ("fields", "encoding", "code"),
    [
        ({"body": PHOTO}, "gzip", "invalid_request"),
        ({"body": gzip.compress(PHOTO)[:-1]}, "gzip", "invalid_request"),
        ({"body": gzip.compress(PHOTO)[:20]}, "gzip", "invalid_request"),
        ({"body": gzip.compress(PHOTO) + b"more"}, "gzip", "invalid_request"),
        ({"body": b""}, "gzip", "invalid_request"),
        ({"body": PHOTO}, "deflate", "invalid_request"),
        ({"body": PHOTO}, "br", "unsupported_format"),
        ({"body": PHOTO}, "zstd", "unsupported_format"),
        ({"body": PHOTO}, "gzip, deflate", "unsupported_format"),
        ({"data": PHOTO}, "gzip", "invalid_request"),
        ({}, "gzip", "invalid_request"),
    ],
)
def test_what_is_not_read_is_refused(fields: dict[str, bytes], encoding: str, code: str) -> None:
    with pytest.raises(RequestError, match="accepted: ") as error:
        with_body_decompressed(fields, encoding, LIMITS)
    assert error.value.code == code


def test_json_may_be_compressed() -> None:
    body = gzip.compress(json.dumps({"instances": [{"b64": "/9j/", "top_k": 2}]}).encode())
    settings = Settings.model_validate({"arch": "resnet50", "layer": "layer4.2"})
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    parsed = parse_request(IncomingRequest({"body": body}, headers), settings)
    expected = ImageRequest(b"\xff\xd8\xff", settings.options({"top_k": 2}))
    assert parsed.instances == (expected,)
    assert parsed.reply_format.protocol == "kserve v1"
