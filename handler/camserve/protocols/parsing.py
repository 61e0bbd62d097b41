"""One row of a batch, whatever transport it came by -> the photos and the options it carries."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pybase64

from camserve.errors import RequestError, shown
from camserve.options import Options
from camserve.protocols import json_limits, kserve
from camserve.protocols.schema import Envelope, Plain
from camserve.settings import Limits, Settings

Encoded = bytes | bytearray
Text = (bytes, bytearray, str)

_NO_BASE64: Final = re.compile(r"[^A-Za-z0-9+/=]")
#: The names under which a form, a gRPC map or a raw body carries the photo.
FORM_IMAGES: Final = ("data", "body", "image")
#: The keys under which a JSON object carries it.
JSON_IMAGES: Final = ("image", "data", "b64")
#: Fields by which /invocations picks the model; TorchServe hands them on.
_ROUTING: Final = ("model_name", "model_version")

_HOW: Final = (
    "send the photo as the request's body, as form field or gRPC input 'data', "
    'or in JSON as {"image": {"b64": ".."}}'
)


@dataclass(frozen=True)
class Row:
    """One request as the server hands it on.

    Attributes:
        fields: the body under ``body``, or form fields, gRPC inputs and query parameters under
            their own names; bytes, or what the server parsed from JSON.
        headers: HTTP headers, names in lower case; empty for gRPC.
        path: what follows the model's version in the URL path.
        must_explain: the call was one for explanations (``/explanations``, ``:explain``).
        describe: the call asks what the model can do.
        id: the server's own of the request, for the log.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = ""
    must_explain: bool = False
    describe: bool = False
    id: str = ""

    @property
    def over_http(self) -> bool:
        """Rather than over gRPC, which sends no headers."""
        return bool(self.headers)


@dataclass(frozen=True)
class Instance:
    """One photo and what is asked of it.

    Attributes:
        image: the encoded photo.
        options: validated, the operator's defaults filled in.
    """

    image: Encoded
    options: Options


@dataclass(frozen=True)
class Request:
    """What a row asks for.

    Attributes:
        envelope: how its reply is written.
        instances: its photos; one that cannot be read keeps its place. An error where none of the
            row can be read.
    """

    envelope: Envelope
    instances: tuple[Instance | RequestError, ...] | RequestError


def read(row: Row, settings: Settings) -> Request:
    """Find the photos and the options of one request.

    What is refused: no photo or several in one place, an unreadable part, an unknown or wrong
    option, one that is given twice, too many photos.
    """
    protocol = envelope(row)
    try:
        json_limits.check("the body", row.fields.get("body"), settings.limits)
        if isinstance(protocol, Plain):
            return Request(protocol, (_instance(_plain(row, settings.limits), row, settings),))
        return Request(protocol, _unpacked(protocol, row, settings))
    except RequestError as error:
        return Request(protocol, error)


def envelope(row: Row) -> Plain | kserve.V1 | kserve.V2:
    """How the reply to a request is written, whatever else is wrong with it."""
    return kserve.envelope(row.fields.get("body"), row.over_http, row.must_explain) or Plain()


#: A photo as it came, and the options that came with it.
_Part = tuple[Encoded, dict[str, Any]]


def _instance(part: _Part, row: Row, settings: Settings) -> Instance:
    image, given = part
    if row.must_explain:
        given.setdefault("explain", True)
    for name, value in given.items():
        if isinstance(value, str) and name in Options.model_fields:
            json_limits.check_text(name, value, settings.limits)
    options = settings.options(given)
    if row.must_explain and not options.explain:
        raise RequestError(
            "conflicting_options",
            "option 'explain' is false on a call for explanations; leave it out, or ask for "
            "predictions",
        )
    return Instance(image, options)


def _plain(row: Row, limits: Limits) -> _Part:
    """The one photo of a form, a raw body, a gRPC map, or a JSON object."""
    fields = {name: value for name, value in row.fields.items() if name not in _ROUTING}
    content_type = row.headers.get("content-type", "").lower()
    # The server parses what is declared as JSON; broken JSON it hands on as bytes.
    unparsed = (bytes, bytearray) if content_type.startswith("application/json") else Text
    if isinstance(fields.get("body", b""), unparsed):
        image, sources = _from_form(fields, content_type, limits)
    else:
        image, own = _from_json(fields.pop("body"))
        sources = [own, _texts(fields)]
    return image, _merge([*_beside(row, limits), *sources])


def _unpacked(
    protocol: kserve.V1 | kserve.V2, row: Row, settings: Settings
) -> tuple[Instance | RequestError, ...]:
    """The photos of a KServe body; an instance's own options go before those of all."""
    objects, common = protocol.unpack(row.fields["body"], settings.limits.instances)
    beside = {name: value for name, value in row.fields.items() if name not in ("body", *_ROUTING)}
    sources = [*_beside(row, settings.limits), _texts(beside), common]
    common = protocol.implied | _merge(sources)
    instances: list[Instance | RequestError] = []
    for one in objects:
        try:
            image, own = (_decoded(one), {}) if isinstance(one, str) else _from_json(one)
            instances.append(_instance((image, {**common, **own}), row, settings))
        except RequestError as error:
            instances.append(error)
    return tuple(instances)


def _beside(row: Row, limits: Limits) -> list[dict[str, Any]]:
    """The options that stand outside of the body."""
    return [_path_options(row.path), _header_options(row.headers, limits)]


def _from_json(body: Any) -> _Part:
    """A JSON object: the photo under one key, the options beside it."""
    if not isinstance(body, dict):
        raise RequestError(
            "invalid_request",
            f"a photo's JSON must be an object, not {json_limits.kind(body)}; {_HOW}",
        )
    key = _only_image(body, JSON_IMAGES)
    return _decoded(body[key]), {name: value for name, value in body.items() if name != key}


def _from_form(
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
    sources.append(_texts(fields))
    return _decoded(image), sources


def _only_image(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    found = [name for name in names if name in fields]
    if not found:
        # A photo sent as a form by mistake makes names of its bytes.
        has = f"only {ascii(shown(sorted(fields)))[1:-1]}" if fields else "nothing"
        raise RequestError("missing_image", f"the request carries {has}, but no photo; {_HOW}")
    if len(found) > 1:
        raise RequestError(
            "invalid_request", f"the request carries a photo as {' and as '.join(found)}; send one"
        )
    return found[0]


def _decoded(image: Any) -> Encoded:
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
            wrong = f"it holds {shown(stray[0])}" if stray else "it is cut short, or padded amiss"
            raise RequestError(
                "invalid_base64",
                f"the photo's base64 is broken: {wrong}; accepted: the standard alphabet with "
                "padding, without line breaks or a data: prefix; binary needs no base64 but an "
                "image content type",
            ) from None
    if not isinstance(image, bytes | bytearray):
        raise RequestError(
            "invalid_request", f"the photo must not be {json_limits.kind(image)}; {_HOW}"
        )
    if not image:
        raise RequestError("missing_image", f"the photo is empty; {_HOW}")
    return image


def _path_options(path: str) -> dict[str, str]:
    """``target=285,outputs=heatmap,overlay``: a piece without ``=`` goes on with the one before."""
    options: dict[str, str] = {}
    name = ""
    for piece in path.strip("/").split(","):
        left, equals, right = piece.partition("=")
        if equals:
            name = left.strip()
            if name in options:
                raise RequestError(
                    "conflicting_options", f"option {shown(name)} is twice in the URL"
                )
            options[name] = right
        elif name:
            options[name] += f",{piece}"
        elif piece:
            raise RequestError(
                "unknown_option",
                f"the URL path ends in {shown(piece)}; accepted after the model's version: options "
                "as name=value pairs, separated by commas",
            )
    return options


def _header_options(headers: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    value = headers.get("x-explain")
    if value is None:
        return {}
    # A header's bytes are read as Latin-1 (RFC 9110, 5.5); callers write UTF-8.
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    return json_limits.parse("X-Explain", value, limits)


def _texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(name, value) for name, value in fields.items()}


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError("invalid_option", f"field {shown(name)} is not UTF-8 text") from None


def _merge(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All sources in one; an option that stands in two of them has no right value."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            if name in merged and merged[name] != value:
                raise RequestError(
                    "conflicting_options",
                    f"option {shown(name)} is given twice, as {shown(merged[name])} and "
                    f"{shown(value)}",
                )
            merged[name] = value
    return merged
