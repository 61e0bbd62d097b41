"""The photo of a request: in JSON, in form fields or a gRPC map, as bytes or in base64."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pybase64

from camserve.errors import RequestError, short_repr
from camserve.protocols import json_limits
from camserve.protocols.option_sources import decode_text_fields
from camserve.settings import Limits

#: The bytes of a photo's file.
EncodedPhoto = bytes | bytearray
#: The fields of a form, a gRPC map or a raw body that can hold the photo.
IMAGE_FIELDS: Final = ("data", "body", "image")
#: The keys of a JSON object that can hold the photo.
IMAGE_KEYS: Final = ("image", "data", "b64")

_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/=]")
_USAGE_HINT: Final = (
    "send the photo as the request's body, as form field or gRPC input 'data', "
    'or in JSON as {"image": {"b64": ".."}}'
)


def from_json(body: Any) -> tuple[EncodedPhoto, dict[str, Any]]:
    """The photo and the options of a JSON object.

    Raises:
        RequestError: ``invalid_request``, ``missing_image``, ``invalid_base64``.
    """
    if not isinstance(body, dict):
        raise RequestError(
            "invalid_request",
            f"a photo's JSON must be an object, not {json_limits.json_type_name(body)}; "
            f"{_USAGE_HINT}",
        )
    key = _single_image_field(body, IMAGE_KEYS)
    return decode_image(body[key]), {name: value for name, value in body.items() if name != key}


def from_form(
    fields: Mapping[str, Any], content_type: str, limits: Limits
) -> tuple[EncodedPhoto, list[dict[str, Any]]]:
    """The photo and the sources of options of a raw body, a form or a gRPC map.

    Args:
        fields: by name, bytes or text.
        content_type: of the request, in lower case.
        limits: of the options in the field ``options``.

    Raises:
        RequestError: ``invalid_request``, ``missing_image``, ``invalid_base64``, ``invalid_json``,
            ``json_too_large``, ``invalid_option``.
    """
    key = _single_image_field(fields, IMAGE_FIELDS)
    image = fields[key]
    text_fields = {name: value for name, value in fields.items() if name not in (key, "options")}
    if content_type.startswith("application/json"):
        raise RequestError(
            "invalid_json", f"the body is declared as JSON but is none; {_USAGE_HINT}"
        )
    if content_type.startswith("application/x-www-form-urlencoded") and isinstance(
        image, EncodedPhoto
    ):
        # Such a form carries text, so the photo in it is base64. curl -d sends any file this way
        # and does not escape a plus, which is then decoded as a space.
        image = bytes(image).decode("ascii", "replace").replace(" ", "+")
    sources = []
    if "options" in fields:
        sources.append(json_limits.parse_options("options", fields["options"], limits))
    sources.append(decode_text_fields(text_fields))
    return decode_image(image), sources


def decode_image(image: Any) -> EncodedPhoto:
    """A photo's bytes: bytes as they are, text and ``{"b64": text}`` decoded from base64.

    Raises:
        RequestError: ``invalid_request``, ``missing_image``, ``invalid_base64``.
    """
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
            invalid = _NOT_BASE64.search(image)
            reason = (
                f"it holds {short_repr(invalid[0])}"
                if invalid
                else "it is cut short, or padded amiss"
            )
            raise RequestError(
                "invalid_base64",
                f"the photo's base64 is broken: {reason}; accepted: the standard alphabet with "
                "padding, without line breaks or a data: prefix; binary needs no base64 but an "
                "image content type",
            ) from None
    if not isinstance(image, EncodedPhoto):
        raise RequestError(
            "invalid_request",
            f"the photo must not be {json_limits.json_type_name(image)}; {_USAGE_HINT}",
        )
    if not image:
        raise RequestError("missing_image", f"the photo is empty; {_USAGE_HINT}")
    return image


def _single_image_field(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    """The only one of the names that is among the fields.

    Raises:
        RequestError: ``missing_image`` for none, ``invalid_request`` for several.
    """
    present = [name for name in names if name in fields]
    if not present:
        # A photo that is sent as a form by mistake is parsed into fields with its bytes as names.
        content = f"only {ascii(short_repr(sorted(fields)))[1:-1]}" if fields else "nothing"
        raise RequestError(
            "missing_image", f"the request carries {content}, but no photo; {_USAGE_HINT}"
        )
    if len(present) > 1:
        raise RequestError(
            "invalid_request",
            f"the request carries a photo as {' and as '.join(present)}; send one",
        )
    return present[0]
