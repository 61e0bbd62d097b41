"""What a host needs of an HTTP request: its token, its headers and options, and the timeout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.messages import timeout_seconds
from camserve_cli.open_inference.service import normalize_authorization

#: The header with the length of the JSON that binary tensors follow.
JSON_LENGTH: Final = "Inference-Header-Content-Length"
# So written, TorchServe leaves it to the handler, which finds keys that are given twice.
_JSON_FOR_HOST: Final = "Application/JSON"
_OPTIONS: Final = "X-Explain"
#: The most bytes of options in headers and query. TorchServe's Netty takes 8 KiB of headers.
_MAX_OPTIONS: Final = 6144
#: Among the parameters of a request, which hold no objects.
_TIMEOUT: Final = re.compile(rb'"parameters"\s*:\s*\{[^{}]*"timeout"\s*:\s*([0-9]{1,18})\s*[,}]')


def authorization_of(request: web.Request) -> str:
    """The caller's token, with the scheme as hosts expect it; empty where there is none."""
    return normalize_authorization(request.headers.get(hdrs.AUTHORIZATION, ""))


def headers_for_host(request: web.Request) -> dict[str, str]:
    """The headers of a prediction that the host needs.

    Raises:
        FrontError: ``invalid_request``: a header is given twice; ``expectation_failed``;
            ``json_too_large``.
    """
    if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
        raise FrontError("expectation_failed", "accepted: no header Expect, or 100-continue")
    for name in (JSON_LENGTH, hdrs.CONTENT_ENCODING, hdrs.AUTHORIZATION):
        if len(request.headers.getall(name, ())) > 1:
            raise FrontError("invalid_request", f"the header {name} is given twice; give it once")
    headers = {}
    if json_length := request.headers.get(JSON_LENGTH):
        headers[JSON_LENGTH] = json_length
    headers[hdrs.CONTENT_TYPE] = "application/octet-stream" if json_length else _JSON_FOR_HOST
    if encoding := request.headers.get(hdrs.CONTENT_ENCODING):
        headers[hdrs.CONTENT_ENCODING] = encoding
    if options := _options(request):
        headers[_OPTIONS] = options
    return headers


def _options(request: web.Request) -> str:
    """The options of header and query, as the handler reads them from one header.

    Raises:
        FrontError: ``json_too_large``.
    """
    objects = [*request.headers.getall(_OPTIONS, ())]
    for name, value in parse_qsl(request.query_string, keep_blank_values=True):
        # Under "options", an object. A header has no line breaks, and not every host reads UTF-8.
        objects.append(_ascii_json(value) if name == "options" else json.dumps({name: value}))
    options = ", ".join(objects)
    # A header's bytes that are no UTF-8 are kept as they are, for the handler to read or refuse.
    if len(options.encode("utf-8", "surrogateescape")) > _MAX_OPTIONS:
        raise FrontError(
            "json_too_large",
            f"the options of query and {_OPTIONS} have more than {_MAX_OPTIONS} bytes; accepted: "
            "up to that, or options in the body",
        )
    return options


def _ascii_json(text: str) -> str:
    """JSON in printable ASCII: what else is in it is escaped, or a space between values."""
    return re.sub(
        r"[^ -~]", lambda found: json.dumps(found[0])[1:-1] if found[0] > "~" else " ", text
    )


def timeout_in(body: bytearray, headers: Mapping[str, str]) -> float | None:
    """The parameter ``timeout`` of a body of KServe v2, in seconds; None without one.

    It is found, not parsed: a body may hold millions of values. The handler parses it, and says
    what is wrong with it.
    """
    json_length = headers.get(JSON_LENGTH, "")
    end = int(json_length) if json_length.isdecimal() and len(json_length) < 10 else len(body)
    found = _TIMEOUT.search(body, 0, end)
    return timeout_seconds({"timeout": float(found[1])}) if found else None
