"""A request of any protocol and transport -> its photos, each with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols import json_limits, option_sources, photo_fields
from camserve.protocols.binary_tensors import HEADER_LENGTH, attach_binary
from camserve.protocols.body_structure import check_body
from camserve.protocols.content_encoding import with_body_decompressed
from camserve.protocols.json_body import is_parsed_string, with_json_parsed
from camserve.protocols.kserve_v1 import KServeV1
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.photo_fields import EncodedPhoto
from camserve.protocols.photo_tensors import INPUT_KIND, PhotoTensor
from camserve.protocols.plain import PlainProtocol
from camserve.protocols.replies import ReplyFormat
from camserve.settings import Limits, Settings

#: Fields that select the model on /invocations; TorchServe passes them on.
_ROUTING_FIELDS: Final = ("model_name", "model_version")


@dataclass(frozen=True)
class IncomingRequest:
    """A request as the server passes it to the handler.

    Attributes:
        fields: the body under ``body``, or form fields, gRPC inputs and query parameters under
            their own names; bytes, or what the server parsed from JSON.
        headers: HTTP headers, names in lower case; empty for gRPC.
        path: the URL path after the model's version.
        force_explain: the caller used an endpoint for explanations (``/explanations``,
            ``:explain``).
        is_describe_call: the caller asks for the model's self-description.
        id: the server's id of the request, for the log.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = ""
    force_explain: bool = False
    is_describe_call: bool = False
    id: str = ""

    @property
    def over_http(self) -> bool:
        """Whether the request came over HTTP; gRPC sends no headers."""
        return bool(self.headers)


@dataclass(frozen=True)
class ImageRequest:
    """A photo and its options.

    Attributes:
        image: the bytes of the photo's file, or the photo as numbers.
        options: validated, with the operator's defaults.
    """

    image: EncodedPhoto | PhotoTensor
    options: Options


@dataclass(frozen=True)
class ParsedBody:
    """A request's photos, and the format of its reply.

    Attributes:
        reply_format: of the request's protocol.
        instances: the photos in order, or the error of one that cannot be read; a single error if
            the request as a whole cannot be read.
    """

    reply_format: ReplyFormat
    instances: tuple[ImageRequest | RequestError, ...] | RequestError


def parse_request(request: IncomingRequest, settings: Settings) -> ParsedBody:
    """Parse the photos and the options of a request.

    An error is part of the result: no photo, two photos where one is expected, a part that cannot
    be parsed, an unknown or invalid option, an option with two values, too many photos.
    """
    protocol: ReplyFormat = detect_protocol(request)
    try:
        if request.over_http:
            request = _as_declared(request, settings.limits)
        protocol = detect_protocol(request)
        check_body(request.fields.get("body"), settings.limits)
        if isinstance(protocol, PlainProtocol):
            return ParsedBody(protocol, (_parse_plain(request, settings),))
        return ParsedBody(protocol, _parse_kserve(protocol, request, settings))
    except RequestError as error:
        return ParsedBody(protocol, error)


def _as_declared(request: IncomingRequest, limits: Limits) -> IncomingRequest:
    """An HTTP request with its body decompressed, and parsed where it is JSON.

    Raises:
        RequestError: ``unsupported_format``, ``invalid_request``, ``image_too_large``,
            ``invalid_json``.
    """
    encoding = request.headers.get("content-encoding", "")
    fields = with_body_decompressed(request.fields, encoding, limits)
    header_length, body = request.headers.get(HEADER_LENGTH), fields.get("body")
    if header_length is not None and not isinstance(body, dict):
        parsed = attach_binary(body, header_length, limits)
        return replace(request, fields={**fields, "body": parsed})
    content_type = request.headers.get("content-type", "").lower()
    return replace(request, fields=with_json_parsed(fields, content_type, limits))


def detect_protocol(request: IncomingRequest) -> PlainProtocol | KServeV1 | KServeV2:
    """The protocol of a request, which the reply follows even if the request is invalid.

    Over gRPC, only Open Inference has a body that the server has parsed. Only KServe v2 has binary
    tensors.
    """
    body = request.fields.get("body")
    if not isinstance(body, dict):
        return KServeV2("") if HEADER_LENGTH in request.headers else PlainProtocol()
    if not request.over_http or "inputs" in body:
        return KServeV2.from_body(body, from_grpc=not request.over_http)
    if "instances" in body:
        return KServeV1("explanations" if request.force_explain else "predictions")
    return PlainProtocol()


def _parse_plain(request: IncomingRequest, settings: Settings) -> ImageRequest:
    """The photo of a form, a raw body, a gRPC map or a JSON object."""
    fields = {name: value for name, value in request.fields.items() if name not in _ROUTING_FIELDS}
    content_type = request.headers.get("content-type", "").lower()
    body = fields.get("body", b"")
    if isinstance(body, bytes | bytearray | str) and not is_parsed_string(body, content_type):
        image, sources = photo_fields.from_form(fields, content_type, settings.limits)
    else:
        image, json_options = photo_fields.from_json(fields.pop("body"))
        sources = [json_options, option_sources.decode_text_fields(fields)]
    outside_body = _options_outside_body(request, settings.limits)
    return _build_image_request(
        image, option_sources.merge([*outside_body, *sources], settings.limits), request, settings
    )


def _parse_kserve(
    protocol: KServeV1 | KServeV2, request: IncomingRequest, settings: Settings
) -> tuple[ImageRequest | RequestError, ...]:
    """The photos of a KServe body; an instance's own options override those of all instances."""
    instances, parameters = protocol.parse(request.fields["body"], settings.limits)
    text_fields = {
        name: value
        for name, value in request.fields.items()
        if name not in ("body", *_ROUTING_FIELDS)
    }
    sources = [
        *_options_outside_body(request, settings.limits),
        option_sources.decode_text_fields(text_fields),
        parameters,
    ]
    common = protocol.default_options | option_sources.merge(sources, settings.limits)
    parsed: list[ImageRequest | RequestError] = []
    for instance in instances:
        try:
            image, options = (
                (photo_fields.decode_image(instance), {})
                if isinstance(instance, str | list)
                else photo_fields.from_json(instance)
            )
            parsed.append(_build_image_request(image, {**common, **options}, request, settings))
        except RequestError as error:
            parsed.append(error)
    return tuple(parsed)


def _options_outside_body(request: IncomingRequest, limits: Limits) -> list[dict[str, Any]]:
    return [
        option_sources.from_path(request.path, limits),
        option_sources.from_header(request.headers, limits),
    ]


def _build_image_request(
    image: EncodedPhoto | PhotoTensor,
    values: Mapping[str, Any],
    request: IncomingRequest,
    settings: Settings,
) -> ImageRequest:
    """A photo with its options validated.

    Raises:
        RequestError: ``json_too_large``, ``unknown_option``, ``invalid_option``,
            ``invalid_request``, or ``conflicting_options`` for a call for explanations that turns
            them off, and for a file that is said to be numbers.
    """
    values = dict(values)
    image = _with_kind(image, values.pop(INPUT_KIND, None))
    if request.force_explain:
        values = {"explain": True, **values}
    for name, value in values.items():
        if isinstance(value, str) and name in Options.model_fields:
            json_limits.check_text(name, value, settings.limits)
    options = settings.options(values)
    if options.explain_when is not None:
        options = _with_condition(options, values, request.force_explain)
    if request.force_explain and not options.explain:
        raise RequestError(
            "conflicting_options",
            "option 'explain' is false on a call for explanations; leave it out, or ask for "
            "predictions",
        )
    return ImageRequest(image, options)


def _with_condition(options: Options, values: Mapping[str, Any], always_explains: bool) -> Options:
    """The options with a condition, which a call that always explains has none of.

    A request's own condition asks for an explanation, whatever the operator's default is.

    Raises:
        RequestError: ``conflicting_options``.
    """
    if values.get("explain_when") is None:
        return options.model_copy(update={"explain_when": None}) if always_explains else options
    if always_explains:
        raise RequestError(
            "conflicting_options",
            "option 'explain_when' is given on a call for explanations, which always explains; "
            "leave it out, or ask for predictions",
        )
    if "explain" in values and not options.explain:
        raise RequestError(
            "conflicting_options",
            "option 'explain_when' is given with 'explain' false; leave one of them out",
        )
    return options.model_copy(update={"explain": True})


def _with_kind(image: EncodedPhoto | PhotoTensor, kind: Any) -> EncodedPhoto | PhotoTensor:
    """The photo as what the parameter ``input_kind`` says that it is."""
    if isinstance(image, PhotoTensor):
        return image.with_kind(kind)
    if kind is not None:
        raise RequestError(
            "conflicting_options",
            f"parameter {INPUT_KIND!r} is given with a photo's file; accepted: it is a parameter "
            "of photos that are tensors of numbers",
        )
    return image
