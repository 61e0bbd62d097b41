"""A request of a batch, by whatever transport -> the photos and the options it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols import json_limits, option_sources, photo_fields
from camserve.protocols.kserve_v1 import KServeV1
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.photo_fields import Encoded
from camserve.protocols.plain import PlainProtocol
from camserve.protocols.replies import ReplyFormat
from camserve.settings import Limits, Settings

_TEXT: Final = (bytes, bytearray, str)
#: Fields by which /invocations picks the model; TorchServe hands them on.
_ROUTING: Final = ("model_name", "model_version")


@dataclass(frozen=True)
class IncomingRequest:
    """One request as the server hands it on.

    Attributes:
        fields: the body under ``body``, or form fields, gRPC inputs and query parameters under
            their own names; bytes, or what the server parsed from JSON.
        headers: HTTP headers, names in lower case; empty for gRPC.
        path: what follows the model's version in the URL path.
        force_explain: the call was one for explanations (``/explanations``, ``:explain``).
        is_describe_call: the call asks what the model can do.
        id: the server's own of the request, for the log.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = ""
    force_explain: bool = False
    is_describe_call: bool = False
    id: str = ""

    @property
    def over_http(self) -> bool:
        """Rather than over gRPC, which sends no headers."""
        return bool(self.headers)


@dataclass(frozen=True)
class ImageRequest:
    """One photo and what is asked of it.

    Attributes:
        image: the encoded photo.
        options: validated, the operator's defaults filled in.
    """

    image: Encoded
    options: Options


@dataclass(frozen=True)
class ParsedBody:
    """What a row asks for.

    Attributes:
        reply_format: how its reply is written.
        instances: its photos; one that cannot be read keeps its place. An error where none of the
            row can be read.
    """

    reply_format: ReplyFormat
    instances: tuple[ImageRequest | RequestError, ...] | RequestError


def parse_request(row: IncomingRequest, settings: Settings) -> ParsedBody:
    """Find the photos and the options of one request.

    What is refused: no photo or several in one place, an unreadable part, an unknown or wrong
    option, one that is given twice, too many photos.
    """
    protocol = detect_protocol(row)
    try:
        json_limits.check_structure("the body", row.fields.get("body"), settings.limits)
        if isinstance(protocol, PlainProtocol):
            return ParsedBody(protocol, (_instance(_plain(row, settings.limits), row, settings),))
        return ParsedBody(protocol, _unpacked(protocol, row, settings))
    except RequestError as error:
        return ParsedBody(protocol, error)


def detect_protocol(row: IncomingRequest) -> PlainProtocol | KServeV1 | KServeV2:
    """How the reply to a request is written, whatever else is wrong with it.

    Over gRPC, only Open Inference has a body that is parsed.
    """
    body = row.fields.get("body")
    if not isinstance(body, dict):
        return PlainProtocol()
    if not row.over_http or "inputs" in body:
        return KServeV2.of(body, base64_text=not row.over_http)
    if "instances" in body:
        return KServeV1("explanations" if row.force_explain else "predictions")
    return PlainProtocol()


#: A photo as it came, and the options that came with it.
_Part = tuple[Encoded, dict[str, Any]]


def _instance(part: _Part, row: IncomingRequest, settings: Settings) -> ImageRequest:
    image, given = part
    if row.force_explain:
        given.setdefault("explain", True)
    for name, value in given.items():
        if isinstance(value, str) and name in Options.model_fields:
            json_limits.check_text(name, value, settings.limits)
    options = settings.options(given)
    if row.force_explain and not options.explain:
        raise RequestError(
            "conflicting_options",
            "option 'explain' is false on a call for explanations; leave it out, or ask for "
            "predictions",
        )
    return ImageRequest(image, options)


def _plain(row: IncomingRequest, limits: Limits) -> _Part:
    """The one photo of a form, a raw body, a gRPC map, or a JSON object."""
    fields = {name: value for name, value in row.fields.items() if name not in _ROUTING}
    content_type = row.headers.get("content-type", "").lower()
    # The server parses what is declared as JSON; broken JSON it hands on as bytes.
    unparsed = (bytes, bytearray) if content_type.startswith("application/json") else _TEXT
    if isinstance(fields.get("body", b""), unparsed):
        image, sources = photo_fields.from_form(fields, content_type, limits)
    else:
        image, own = photo_fields.from_json(fields.pop("body"))
        sources = [own, option_sources.decode_texts(fields)]
    return image, option_sources.merge([*_beside(row, limits), *sources])


def _unpacked(
    protocol: KServeV1 | KServeV2, row: IncomingRequest, settings: Settings
) -> tuple[ImageRequest | RequestError, ...]:
    """The photos of a KServe body; an instance's own options go before those of all."""
    objects, common = protocol.parse(row.fields["body"], settings.limits.instances)
    beside = {name: value for name, value in row.fields.items() if name not in ("body", *_ROUTING)}
    sources = [*_beside(row, settings.limits), option_sources.decode_texts(beside), common]
    common = protocol.default_options | option_sources.merge(sources)
    instances: list[ImageRequest | RequestError] = []
    for one in objects:
        try:
            image, own = (
                (photo_fields.decode_photo(one), {})
                if isinstance(one, str)
                else photo_fields.from_json(one)
            )
            instances.append(_instance((image, {**common, **own}), row, settings))
        except RequestError as error:
            instances.append(error)
    return tuple(instances)


def _beside(row: IncomingRequest, limits: Limits) -> list[dict[str, Any]]:
    """The options that stand outside of the body."""
    return [option_sources.from_path(row.path), option_sources.from_header(row.headers, limits)]
