"""The photo of a request: in JSON, in form fields or a gRPC map, as bytes or in base64."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from camserve.errors import RequestError, short_repr
from camserve.protocols import json_limits
from camserve.protocols.base64_text import decode_base64, is_base64_text
from camserve.protocols.option_sources import decode_text_fields
from camserve.protocols.photo_tensors import PhotoTensor, from_lists
from camserve.settings import Limits

#: The bytes of a photo's file.
EncodedPhoto = bytes | bytearray
#: The fields of a form, a gRPC map or a raw body that can hold the photo.
IMAGE_FIELDS: Final = ("data", "body", "image")
#: The keys of a JSON object that can hold the photo.
IMAGE_KEYS: Final = ("image", "data", "b64", "image_bytes")
#: The first boundary of a multipart body, and the header of its first part.
_MULTIPART_BEGIN: Final = re.compile(
    rb"\s*--([^\r\n]{1,70})\r?\n[^\r\n]{0,200}content-(?:disposition|type):", re.IGNORECASE
)
#: Fields that browsers add to a form.
_FORM_EXTRAS: Final = ("_charset_", "submit")

_USAGE_HINT: Final = (
    "send the photo as the request's body, as form field or gRPC input 'data', "
    'or in JSON as {"image": {"b64": ".."}}'
)


def from_json(body: Any) -> tuple[EncodedPhoto | PhotoTensor, dict[str, Any]]:
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
) -> tuple[EncodedPhoto | PhotoTensor, list[dict[str, Any]]]:
    """The photo and the sources of options of a raw body, a form or a gRPC map.

    Args:
        fields: by name, bytes or text.
        content_type: of the request, in lower case.
        limits: of the options in the field ``options``.

    Raises:
        RequestError: ``invalid_request``, ``missing_image``, ``invalid_base64``, ``invalid_json``,
            ``json_too_large``, ``invalid_option``.
    """
    _check_multipart(fields, content_type)
    if content_type.startswith(("multipart/form-data", "application/x-www-form-urlencoded")):
        fields = _filled_in(fields)
    if not fields and content_type.startswith("application/x-www-form-urlencoded"):
        raise RequestError(
            "missing_image",
            "the form carries nothing; if it is JSON, send it with the header "
            f"Content-Type: application/json; {_USAGE_HINT}",
        )
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


def decode_image(image: Any) -> EncodedPhoto | PhotoTensor:
    """A photo's bytes, decoded where they are in base64: as text, as bytes, as ``{"b64": text}``.

    Nested lists of numbers are a photo as well, and so is a tensor of KServe v2.

    Raises:
        RequestError: ``invalid_request``, ``missing_image``, ``invalid_base64``.
    """
    if isinstance(image, dict):
        if set(image) != {"b64"}:
            raise RequestError(
                "invalid_request", 'the photo\'s JSON object must be {"b64": ".."} and no more'
            )
        image = image["b64"]
    if isinstance(image, list):
        image = from_lists(image)
    if isinstance(image, PhotoTensor):
        return image
    if isinstance(image, EncodedPhoto) and is_base64_text(image):
        image = bytes(image).decode("latin-1")
    if isinstance(image, str):
        image = decode_base64(image)
    if not isinstance(image, EncodedPhoto):
        raise RequestError(
            "invalid_request",
            f"the photo must not be {json_limits.json_type_name(image)}; {_USAGE_HINT}",
        )
    if not image:
        raise RequestError("missing_image", f"the photo is empty; {_USAGE_HINT}")
    return image


def _check_multipart(fields: Mapping[str, Any], content_type: str) -> None:
    """Refuse a multipart form that the server did not part into its fields.

    TorchServe passes it on as a body where its content type has no boundary or odd capitals, and
    passes on nothing where the boundary is not that of the body, or the last one is missing.

    Raises:
        RequestError: ``invalid_request``.
    """
    body = fields.get("body", b"")
    unparted = isinstance(body, EncodedPhoto) and _MULTIPART_BEGIN.match(body)
    if unparted:
        boundary = unparted[1].decode("latin-1")
        problem = f"the body is a multipart form, whose boundary is {short_repr(boundary)}"
    elif content_type.startswith("multipart/") and not fields:
        problem = "the body has no complete part between boundaries of its content type"
    else:
        return
    raise RequestError(
        "invalid_request",
        f"{problem}; the content type is {short_repr(content_type)}; accepted: "
        "'multipart/form-data; boundary=..' in small letters, with the boundary that begins each "
        "part after '--' and ends the body before '--' (an HTTP library sets it by itself)",
    )


def _filled_in(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of an HTML form without those that were left empty, and a browser's own.

    A form whose only photo is empty keeps it, for the message.
    """
    filled = {name: value for name, value in fields.items() if value and name not in _FORM_EXTRAS}
    if any(name in filled for name in IMAGE_FIELDS):
        return filled
    return {**filled, **{name: fields[name] for name in IMAGE_FIELDS if name in fields}}


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
