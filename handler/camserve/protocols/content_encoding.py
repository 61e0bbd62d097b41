"""Compressed bodies of HTTP requests, decompressed up to a limit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

from camserve.errors import RequestError, short_repr
from camserve.settings import Limits

_ACCEPTED: Final = "accepted: gzip, deflate, or none"
#: By the name of the encoding, what ``zlib`` calls its formats. Some clients take "deflate" for raw
#: deflate, without zlib's header.
# Files that were put together; each costs a copy of what is left of the body.
_MAX_MEMBERS: Final = 100
_FORMATS: Final = {"gzip": (31,), "deflate": (15, -15)}


def with_body_decompressed(
    fields: Mapping[str, Any], encoding: str, limits: Limits
) -> Mapping[str, Any]:
    """An HTTP request's fields, with its body decompressed.

    Args:
        fields: of the request, as the server passes them on.
        encoding: the header Content-Encoding; empty where there is none.
        limits: the largest photo in base64, with its options, is the limit of the body.

    Raises:
        RequestError: ``unsupported_format`` for another encoding, ``invalid_request`` for a body
            that is not of it, ``image_too_large``.
    """
    encodings = [name.strip().lower() for name in encoding.split(",")]
    encodings = [name.removeprefix("x-") for name in encodings if name not in ("", "identity")]
    if not encodings:
        return fields
    if len(encodings) > 1 or encodings[0] not in _FORMATS:
        raise RequestError(
            "unsupported_format", f"Content-Encoding {short_repr(encoding)}; {_ACCEPTED}"
        )
    body = fields.get("body")
    if not isinstance(body, bytes | bytearray):
        raise RequestError(
            "invalid_request",
            f"a form cannot be compressed by Content-Encoding {encodings[0]}; accepted: the form "
            "as it is, or a photo's file or JSON as the compressed body",
        )
    return {**fields, "body": _decompress(body, encodings[0], limits)}


def _decompress(body: bytes | bytearray, encoding: str, limits: Limits) -> bytes:
    # Base64 has 4 bytes for 3.
    limit = limits.photo_bytes * 4 // 3 + limits.json_bytes
    for window_bits in _FORMATS[encoding]:
        content, rest = bytearray(), bytes(body)
        # A gzip file may have several members (RFC 1952, 2.2).
        for _ in range(_MAX_MEMBERS if encoding == "gzip" else 1):
            decompressor = zlib.decompressobj(window_bits)
            try:
                content += decompressor.decompress(rest, limit + 1 - len(content))
            except zlib.error:
                break
            if len(content) > limit:
                raise RequestError(
                    "image_too_large",
                    f"the body has more than {limit} bytes once decompressed; accepted: up to that",
                )
            if not decompressor.eof:
                break
            rest = decompressor.unused_data
            if not rest:
                return bytes(content)
    raise RequestError(
        "invalid_request",
        f"the body is declared as {encoding} but is none, or is cut short; {_ACCEPTED}",
    )
