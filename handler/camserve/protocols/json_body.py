"""Recognises JSON in the body of an HTTP request by what it is, whatever its content type.

TorchServe parses a body that is declared as exactly ``application/json``. It passes on all others
as bytes, ``text/*`` as text, and what ``curl -d`` sends as the fields of a form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from camserve.errors import RequestError
from camserve.protocols import json_limits
from camserve.protocols.photo_fields import IMAGE_KEYS
from camserve.settings import Limits

_FORM: Final = "application/x-www-form-urlencoded"
#: application/json, text/json, and all that end in +json (RFC 6839).
_JSON_TYPE: Final = re.compile(r"[^;]*[/+]json\s*(;|$)")
_PHOTO_KEYS: Final = ("instances", *IMAGE_KEYS)
#: The first character of an object or a list, after a byte order mark and white space; no format of
#: photos begins with it. In UTF-16 and UTF-32, zeros stand around it.
_BEGINS_LIKE_JSON: Final = re.compile(rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*[{\[]")


def with_json_parsed(
    fields: Mapping[str, Any], content_type: str, limits: Limits
) -> Mapping[str, Any]:
    """An HTTP request's fields, with the JSON of its body parsed where the server has not.

    Args:
        fields: of the request, as the server passes them on.
        content_type: of the request, in lower case; empty where there is none.
        limits: of the number of values in objects.

    Raises:
        RequestError: ``invalid_json``: it is declared as JSON, or begins like it, but is none;
            ``conflicting_options``, ``invalid_request``: a key has two values; ``json_too_large``.
    """
    if content_type.startswith(_FORM):
        return _parse_form(fields, limits)
    body = fields.get("body")
    if not isinstance(body, bytes | bytearray | str) or is_parsed_string(body, content_type):
        return fields
    encoded = body.encode() if isinstance(body, str) else body
    is_declared = _JSON_TYPE.match(content_type) is not None
    if not is_declared and not _BEGINS_LIKE_JSON.match(encoded[:100]):
        return fields
    try:
        # The encoding is found by the zeros in it, and a byte order mark is left out.
        return {**fields, "body": json_limits.parse_json(encoded, limits)}
    except (ValueError, RecursionError) as failure:
        what = "is declared as JSON but is none" if is_declared else "begins like JSON but is none"
        raise RequestError(
            "invalid_json",
            f"the body {what}: {_describe(failure)}; send a photo's file as it is, or JSON as "
            '{"image": {"b64": ".."}}',
        ) from None


def is_parsed_string(body: Any, content_type: str) -> bool:
    """Whether a body was a JSON string, which the server has parsed: it is declared as JSON."""
    return isinstance(body, str) and content_type.startswith("application/json")


def _parse_form(fields: Mapping[str, Any], limits: Limits) -> Mapping[str, Any]:
    """The JSON that was sent as a form without a content type of its own, as by ``curl -d``.

    The server has parted it at each ``&``, and at the first ``=`` after that. It has made spaces of
    plus signs, which are told from others in base64 alone.
    """
    names = [*fields]
    begin = next((n for n, name in enumerate(names) if name.lstrip().startswith(("{", "["))), None)
    if begin is None:
        return fields
    parts = []
    for name in names[begin:]:
        value = fields[name]
        text = value if isinstance(value, str) else bytes(value).decode(errors="replace")
        parts.append(f"{name}={text}" if text else name)
    try:
        body = _restore_plus(json_limits.parse_json("&".join(parts), limits))
    except (ValueError, RecursionError):
        raise RequestError(
            "invalid_json",
            "the body looks like JSON that was sent as a form, which does not keep it whole; send "
            "it with the header Content-Type: application/json",
        ) from None
    # Those before it are options of the query.
    return {**{name: fields[name] for name in names[:begin]}, "body": body}


def _restore_plus(value: Any, is_photo: bool = False) -> Any:
    """A parsed value with plus signs in photos' base64, where the form decoder left spaces."""
    if isinstance(value, dict):
        # A tensor of KServe v2 has its elements under "data", whatever they are.
        photo_keys = _PHOTO_KEYS if value.get("name", "image") == "image" else ()
        return {name: _restore_plus(child, name in photo_keys) for name, child in value.items()}
    if isinstance(value, list):
        return [_restore_plus(child, is_photo) for child in value]
    return value.replace(" ", "+") if is_photo and isinstance(value, str) else value


def _describe(failure: Exception) -> str:
    if isinstance(failure, json.JSONDecodeError):
        return f"{failure.msg} at line {failure.lineno}, column {failure.colno}"
    if isinstance(failure, UnicodeDecodeError):
        return f"byte {failure.start} is not {failure.encoding}"
    return "it is nested too deep"
