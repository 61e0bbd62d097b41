"""Where a request carries its photo: in JSON, in a form or a gRPC map, as bytes or in base64."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pybase64

from camserve.errors import RequestError, short_repr
from camserve.protocols import json_limits
from camserve.protocols.option_sources import decode_texts
from camserve.settings import Limits

Encoded = bytes | bytearray
_NO_BASE64: Final = re.compile(r"[^A-Za-z0-9+/=]")
#: The names under which a form, a gRPC map or a raw body carries the photo.
FORM_IMAGES: Final = ("data", "body", "image")
#: The keys under which a JSON object carries it.
JSON_IMAGES: Final = ("image", "data", "b64")

_HOW: Final = (
    "send the photo as the request's body, as form field or gRPC input 'data', "
    'or in JSON as {"image": {"b64": ".."}}'
)


def from_json(body: Any) -> tuple[Encoded, dict[str, Any]]:
    """A JSON object: the photo under one key, the options beside it."""
    if not isinstance(body, dict):
        raise RequestError(
            "invalid_request",
            f"a photo's JSON must be an object, not {json_limits.json_type_name(body)}; {_HOW}",
        )
    key = _only_image(body, JSON_IMAGES)
    return decode_photo(body[key]), {name: value for name, value in body.items() if name != key}


def from_form(
    fields: dict[str, Any], content_type: str, limits: Limits
) -> tuple[Encoded, list[dict[str, Any]]]:
    """A raw body, form fields, a gRPC map: the photo and, beside it, options as text."""
    key = _only_image(fields, FORM_IMAGES)
    image = fields.pop(key)
    if content_type.startswith("application/json"):
        raise RequestError("invalid_json", f"the body is declared as JSON but is none; {_HOW}")
    if content_type.startswith("application/x-www-form-urlencoded") and isinstance(image, Encoded):
        # Such a form carries text, so the photo in it is base64; curl's -d sends any file so, and
        # does not escape a plus, which then reads as a space.
        image = bytes(image).decode("ascii", "replace").replace(" ", "+")
    sources = []
    if "options" in fields:
        sources.append(json_limits.parse("options", fields.pop("options"), limits))
    sources.append(decode_texts(fields))
    return decode_photo(image), sources


def _only_image(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    found = [name for name in names if name in fields]
    if not found:
        # A photo sent as a form by mistake makes names of its bytes.
        has = f"only {ascii(short_repr(sorted(fields)))[1:-1]}" if fields else "nothing"
        raise RequestError("missing_image", f"the request carries {has}, but no photo; {_HOW}")
    if len(found) > 1:
        raise RequestError(
            "invalid_request", f"the request carries a photo as {' and as '.join(found)}; send one"
        )
    return found[0]


def decode_photo(image: Any) -> Encoded:
    """The encoded photo: bytes as they are, text and ``{"b64": text}`` from base64."""
    if isinstance(image, dict):
        if set(image) != {"b64"}:
            raise RequestError(
                "invalid_request", 'the photo\'s JSON object must be {"b64": ".."} and no more'
            )
        image = image["b64"]
    if isinstance(image, str):
        try:
            image = pybase64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            stray = _NO_BASE64.search(image)
            wrong = (
                f"it holds {short_repr(stray[0])}" if stray else "it is cut short, or padded amiss"
            )
            raise RequestError(
                "invalid_base64",
                f"the photo's base64 is broken: {wrong}; accepted: the standard alphabet with "
                "padding, without line breaks or a data: prefix; binary needs no base64 but an "
                "image content type",
            ) from None
    if not isinstance(image, bytes | bytearray):
        raise RequestError(
            "invalid_request", f"the photo must not be {json_limits.json_type_name(image)}; {_HOW}"
        )
    if not image:
        raise RequestError("missing_image", f"the photo is empty; {_HOW}")
    return image
