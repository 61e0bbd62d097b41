"""Photos and options of plain requests by every transport, and the errors of invalid ones."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols.parsing import ImageRequest, IncomingRequest, ParsedBody, parse_request
from camserve.protocols.photo_fields import IMAGE_FIELDS, IMAGE_KEYS
from camserve.protocols.plain import PlainProtocol
from camserve.settings import Settings

SETTINGS = Settings()
PHOTO = b"\xff\xd8\xff photo"
B64 = base64.b64encode(PHOTO).decode()
JSON = {"content-type": "application/json"}
URLENCODED = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}


def options_header(text: str) -> dict[str, str]:
    return {"x-explain": text}


def parse_single(
    request: IncomingRequest, settings: Settings = SETTINGS
) -> ImageRequest | RequestError:
    """The photo of a plain request, or the error that rejects it."""
    parsed = parse_request(request, settings)
    assert isinstance(parsed.reply_format, PlainProtocol)
    if isinstance(parsed.instances, RequestError):
        return parsed.instances
    (instance,) = parsed.instances
    return instance


def photo_of(request: IncomingRequest, settings: Settings = SETTINGS) -> ImageRequest:
    photo = parse_single(request, settings)
    assert isinstance(photo, ImageRequest)
    return photo


def rejection(request: IncomingRequest) -> RequestError:
    error = parse_single(request)
    assert isinstance(error, RequestError)
    return error


# Valid requests


@pytest.mark.parametrize(
    ("incoming", "options"),
    [
        pytest.param(
            IncomingRequest({"body": bytearray(PHOTO)}, {"content-type": "image/jpeg"}),
            {},
            id="raw",
        ),
        pytest.param(IncomingRequest({"body": PHOTO}, {}), {}, id="raw-untyped"),
        pytest.param(IncomingRequest({"data": PHOTO}, {}), {}, id="form-data"),
        pytest.param(
            IncomingRequest({"body": PHOTO, "top_k": b"3"}, {}), {"top_k": 3}, id="form-body"
        ),
        pytest.param(IncomingRequest({"image": PHOTO}, {}), {}, id="form-image"),
        pytest.param(
            IncomingRequest(
                {"data": PHOTO, "target": b"285", "outputs": b"overlay", "explain": b"false"}, {}
            ),
            {"target": 285, "outputs": ("overlay",), "explain": False},
            id="form-fields",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "target": "Häher".encode()}, {}),
            {"target": "Häher"},
            id="form-label",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": b'{"target": 285, "alpha": 0.5}'}, {}),
            {"target": 285, "alpha": 0.5},
            id="form-options",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": {"alpha": 0.5}}, {}),
            {"alpha": 0.5},
            id="form-options-parsed-by-the-server",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": b'{"target": 285}', "alpha": b"0.5"}, {}),
            {"target": 285, "alpha": 0.5},
            id="form-options-and-field",
        ),
        pytest.param(
            IncomingRequest({"data": B64.encode(), "target": b"285"}, URLENCODED),
            {"target": 285},
            id="urlencoded",
        ),
        pytest.param(
            IncomingRequest({"body": {"image": {"b64": B64}, "target": 285}}, JSON),
            {"target": 285},
            id="json-image-object",
        ),
        pytest.param(IncomingRequest({"body": {"image": B64}}, JSON), {}, id="json-image"),
        pytest.param(IncomingRequest({"body": {"data": B64}}, JSON), {}, id="json-data"),
        pytest.param(
            IncomingRequest({"body": {"data": {"b64": B64}}}, JSON), {}, id="json-data-object"
        ),
        pytest.param(IncomingRequest({"body": {"b64": B64}}, JSON), {}, id="json-b64"),
        pytest.param(
            IncomingRequest({"body": {"b64": B64, "outputs": ["overlay"], "explain": False}}, JSON),
            {"outputs": ("overlay",), "explain": False},
            id="json-typed-options",
        ),
        pytest.param(
            IncomingRequest(
                {"body": {"b64": B64, "target": ["red", 1, "top:2"], "size": 512}}, JSON
            ),
            {"target": ("red", 1, "top:2"), "size": 512},
            id="json-list-of-targets",
        ),
        pytest.param(
            IncomingRequest(
                {"data": PHOTO, "target": b'["red", 1]', "size": b"512", "threshold": b"0"}, {}
            ),
            {"target": ("red", 1), "size": 512, "threshold": 0},
            id="form-list-of-targets",
        ),
        pytest.param(
            IncomingRequest(
                {"data": PHOTO, "method": b"gradcam  ", "layer": b"layer4.2,layer4.2"}, {}
            ),
            {"method": "gradcam++", "layer": ("layer4.2",)},
            id="form-with-unescaped-pluses",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "target": b"Egyptian cat", "top_k": b"1"}, {}),
            {"target": "Egyptian cat", "top_k": 1},
            id="grpc",
        ),
        pytest.param(
            IncomingRequest(
                {"body": PHOTO, "model_name": b"m", "model_version": b"1.0", "top_k": b"2"}, {}
            ),
            {"top_k": 2},
            id="invocations",
        ),
        pytest.param(
            IncomingRequest(
                {"body": {"image": B64, "alpha": 0.5}, "model_name": b"m", "top_k": b"2"}, JSON
            ),
            {"top_k": 2, "alpha": 0.5},
            id="invocations-json",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {}, "target=285,outputs=heatmap,overlay"),
            {"target": 285, "outputs": ("heatmap", "overlay")},
            id="path-list",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {}, "target=red,blue-red,top:2,size=original"),
            {"target": "red,blue-red,top:2", "size": "original"},
            id="path-list-of-targets",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {}, "/target=tiger, tabby, alpha=0.5/"),
            {"target": "tiger, tabby", "alpha": 0.5},
            id="path-label-with-a-comma",
        ),
        pytest.param(
            IncomingRequest(
                {"body": PHOTO}, options_header('{"target": 285, "outputs": ["overlay"]}')
            ),
            {"target": 285, "outputs": ("overlay",)},
            id="header",
        ),
        pytest.param(
            IncomingRequest(
                {"data": PHOTO, "top_k": b"2"}, options_header('{"alpha": 0.5}'), "target=285"
            ),
            {"top_k": 2, "alpha": 0.5, "target": 285},
            id="several-sources",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "target": b"285"}, {}, "target=285"),
            {"target": 285},
            id="two-sources-agree",
        ),
    ],
)
def test_the_photo_and_the_options_of_a_request(
    incoming: IncomingRequest, options: dict[str, Any]
) -> None:
    assert parse_single(incoming) == ImageRequest(
        PHOTO, Options(**{"layer": (SETTINGS.layer,), **options})
    )


@pytest.mark.parametrize(
    ("path", "force_explain", "expected"),
    [
        pytest.param("", False, False, id="operators-default"),
        pytest.param("explain=true", False, True, id="requested"),
        pytest.param("", True, True, id="call-for-explanations"),
        pytest.param("explain=true", True, True, id="call-for-explanations-that-requests-them"),
    ],
)
def test_explain_where_the_operators_default_is_false(
    path: str, force_explain: bool, expected: bool
) -> None:
    settings = Settings(defaults=Options(explain=False))
    request = IncomingRequest({"body": PHOTO}, {}, path, force_explain)
    assert photo_of(request, settings).options.explain is expected


UTF_8_AS_LATIN_1 = '{"target": "grün"}'.encode().decode("latin-1")


@pytest.mark.parametrize("text", [UTF_8_AS_LATIN_1, '{"target": "grün"}'], ids=["utf-8", "latin-1"])
def test_a_header_may_be_utf_8_or_latin_1(text: str) -> None:
    """The server decodes any header as Latin-1."""
    request = IncomingRequest({"body": PHOTO}, {"content-type": "image/png", "x-explain": text})
    assert photo_of(request).options.target == "grün"


def test_base64_in_a_form_need_not_escape_its_plus() -> None:
    photo = b"\xfb\xef\xbe photo"
    encoded = base64.b64encode(photo)
    assert b"+" in encoded
    request = IncomingRequest({"data": encoded.replace(b"+", b" ")}, URLENCODED)
    assert photo_of(request).image == photo


PARTS = b'--b1\r\nContent-Disposition: form-data; name="data"\r\n\r\n' + PHOTO + b"\r\n--b1--\r\n"


@pytest.mark.parametrize(
    ("fields", "content_type", "problem"),
    [
        ({"body": PARTS}, "multipart/form-data", "whose boundary is 'b1'"),
        ({"body": PARTS}, "Multipart/Form-Data; Boundary=b1", "whose boundary is 'b1'"),
        ({"body": PARTS}, "multipart/mixed; boundary=b1", "whose boundary is 'b1'"),
        ({"body": b"\r\n" + PARTS}, "", "whose boundary is 'b1'"),
        ({}, "multipart/form-data; boundary=b2", "has no complete part"),
        ({}, "multipart/form-data; boundary=b1", "has no complete part"),
    ],
)
def test_a_multipart_form_that_was_not_parted_is_told_of_its_boundary(
    fields: dict[str, bytes], content_type: str, problem: str
) -> None:
    error = rejection(IncomingRequest(fields, {"host": "x", "content-type": content_type}))
    assert error.code == "invalid_request"
    assert problem in error.message
    assert "'multipart/form-data; boundary=..'" in error.message
    assert f"'{content_type.lower()}'" in error.message


FORMS = ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded")


@pytest.mark.parametrize("content_type", FORMS)
@pytest.mark.parametrize(
    "extra",
    [
        {"target": b""},
        {"target": b"", "options": b"", "layer": b"", "anything": b""},
        {"_charset_": b"utf-8", "submit": b"Explain"},
        # Of two file inputs, one was left empty.
        {"image": b""},
    ],
)
def test_fields_that_a_browser_sends_empty_or_by_itself_are_as_if_absent(
    content_type: str, extra: dict[str, bytes]
) -> None:
    fields = {"data": base64.b64encode(PHOTO), "top_k": b"2", **extra}
    request = IncomingRequest(fields, {"content-type": content_type})
    assert photo_of(request) == ImageRequest(PHOTO, SETTINGS.options({"top_k": 2}))


@pytest.mark.parametrize("content_type", FORMS)
def test_an_empty_photo_is_told_though_empty_fields_are_not(content_type: str) -> None:
    headers = {"content-type": content_type}
    error = rejection(IncomingRequest({"data": b"", "target": b""}, headers))
    assert (error.code, "the photo is empty" in error.message) == ("missing_image", True)


def test_an_empty_option_that_is_no_field_of_a_form_is_an_error() -> None:
    assert rejection(IncomingRequest({"body": {"b64": B64, "target": ""}}, JSON)).status == 400
    assert rejection(IncomingRequest({"data": PHOTO, "top_k": b""}, {})).status == 400


def test_a_call_for_explanations_that_turns_them_off_is_rejected() -> None:
    error = rejection(IncomingRequest({"body": PHOTO}, {}, "explain=false", force_explain=True))
    assert error.code == "conflicting_options"
    assert "explain" in error.message


# Invalid requests


@pytest.mark.parametrize(
    ("incoming", "code"),
    [
        pytest.param(IncomingRequest({}, {}), "missing_image", id="nothing"),
        pytest.param(IncomingRequest({"target": b"285"}, {}), "missing_image", id="options-only"),
        pytest.param(
            IncomingRequest({"body": {"target": 285}}, JSON),
            "missing_image",
            id="json-options-only",
        ),
        pytest.param(IncomingRequest({"body": {}}, JSON), "missing_image", id="json-nothing"),
        pytest.param(IncomingRequest({"body": b""}, {}), "missing_image", id="empty"),
        pytest.param(
            IncomingRequest({"body": {"b64": ""}}, JSON), "missing_image", id="json-empty"
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "image": PHOTO}, {}), "invalid_request", id="two-photos"
        ),
        pytest.param(
            IncomingRequest({"body": {"image": B64, "b64": B64}}, JSON),
            "invalid_request",
            id="json-two-photos",
        ),
        pytest.param(
            IncomingRequest({"body": {"image": 1}}, JSON), "invalid_request", id="photo-number"
        ),
        pytest.param(
            IncomingRequest({"body": {"image": None}}, JSON), "invalid_request", id="photo-null"
        ),
        pytest.param(
            IncomingRequest({"body": {"image": [B64]}}, JSON), "invalid_request", id="photo-list"
        ),
        pytest.param(
            IncomingRequest({"body": {"image": {"b64": None}}}, JSON),
            "invalid_request",
            id="photo-b64-null",
        ),
        pytest.param(
            IncomingRequest({"body": {"image": {"b64": B64, "url": "x"}}}, JSON),
            "invalid_request",
            id="photo-with-more-keys",
        ),
        pytest.param(
            IncomingRequest({"body": {"b64": "a"}}, JSON), "invalid_base64", id="base64-cut"
        ),
        pytest.param(
            IncomingRequest({"body": {"b64": "é" + B64}}, JSON),
            "invalid_base64",
            id="base64-accent",
        ),
        pytest.param(
            IncomingRequest({"body": {"b64": B64[:-3]}}, JSON),
            "invalid_base64",
            id="base64-cut-off",
        ),
        pytest.param(
            IncomingRequest({"data": b"not base64!"}, URLENCODED),
            "invalid_base64",
            id="urlencoded-no-base64",
        ),
        # TorchServe passes on as bytes a body that it could not parse.
        pytest.param(
            IncomingRequest({"body": b'{"b64": '}, JSON), "invalid_json", id="json-broken"
        ),
        pytest.param(IncomingRequest({"body": None}, JSON), "invalid_request", id="json-null"),
        pytest.param(IncomingRequest({"body": True}, JSON), "invalid_request", id="json-boolean"),
        pytest.param(IncomingRequest({"body": 7}, JSON), "invalid_request", id="json-number"),
        pytest.param(
            IncomingRequest({"body": float("nan")}, JSON), "invalid_request", id="json-nan"
        ),
        pytest.param(IncomingRequest({"body": B64}, JSON), "invalid_request", id="json-string"),
        pytest.param(
            IncomingRequest({"body": [{"b64": B64}]}, JSON), "invalid_request", id="json-list"
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "traget": b"1"}, {}), "unknown_option", id="field"
        ),
        pytest.param(
            IncomingRequest({"body": {"b64": B64, "traget": 1}}, JSON),
            "unknown_option",
            id="json-key",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {}, "285"), "unknown_option", id="path-no-pair"
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {}, "=285"), "unknown_option", id="path-no-name"
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "target": b"\xff"}, {}),
            "invalid_option",
            id="not-utf-8",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "alpha": b"2"}, {}), "invalid_option", id="out-of-range"
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": b"{"}, {}), "invalid_json", id="options"
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": b"\xff"}, {}),
            "invalid_json",
            id="options-not-utf-8",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": b"[285]"}, {}),
            "invalid_json",
            id="options-list",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, options_header("")), "invalid_json", id="header-empty"
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, options_header("target=285")),
            "invalid_json",
            id="header-text",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, options_header("null")),
            "invalid_json",
            id="header-null",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, options_header('{"target":' + "[" * 60_000)),
            "invalid_json",
            id="header-nested-too-deep",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, {}, "target=285,target=286"),
            "conflicting_options",
            id="path-twice",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "target": b"285"}, {}, "target=286"),
            "conflicting_options",
            id="path-and-field",
        ),
        pytest.param(
            IncomingRequest({"body": PHOTO}, options_header('{"alpha": 0.5}'), "alpha=0.4"),
            "conflicting_options",
            id="path-and-header",
        ),
        pytest.param(
            IncomingRequest({"data": PHOTO, "options": b'{"top_k": 1}', "top_k": b"2"}, {}),
            "conflicting_options",
            id="options-and-field",
        ),
        pytest.param(
            IncomingRequest({"body": {"b64": B64, "top_k": 1}, "top_k": b"2"}, JSON),
            "conflicting_options",
            id="json-and-query",
        ),
    ],
)
def test_an_invalid_request_is_rejected_with_its_code(incoming: IncomingRequest, code: str) -> None:
    assert rejection(incoming).code == code


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (B64[:-3], "cut short"),
        (B64[:8] + "==" + B64[8:], "has padding inside"),
        ("é" + B64, "holds 'é'"),
    ],
)
def test_the_message_of_broken_base64_says_what_is_wrong_with_it(text: str, reason: str) -> None:
    assert reason in rejection(IncomingRequest({"body": {"b64": text}}, JSON)).message


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    "incoming",
    [
        pytest.param(IncomingRequest({LONG: b"1"}, {}), id="field-without-photo"),
        pytest.param(IncomingRequest({"data": PHOTO, LONG: b"\xff"}, {}), id="field-not-utf-8"),
        pytest.param(
            IncomingRequest({"body": {"b64": B64, LONG: 1}, LONG: b"2"}, JSON), id="option-twice"
        ),
        pytest.param(IncomingRequest({"data": PHOTO, "alpha": LONG.encode()}, {}), id="value"),
        pytest.param(
            IncomingRequest({"body": {"b64": B64, "alpha": LONG}, "alpha": b"1"}, JSON), id="values"
        ),
    ],
)
def test_the_message_stays_short_for_a_huge_request(incoming: IncomingRequest) -> None:
    assert len(rejection(incoming).message) < 500


def test_a_message_can_be_encoded_even_if_it_quotes_half_a_surrogate_pair() -> None:
    """A reply that cannot be encoded would fail the whole batch."""
    request = IncomingRequest({"body": json.loads(r'{"\ud800": 1}')}, JSON)
    assert rejection(request).message.encode()


# Any request


texts = st.text(st.characters(), max_size=12)
options = st.sampled_from([*Options.model_fields, "options", "model_name"])
photos = st.sampled_from([PHOTO, B64.encode(), B64, b"", {"b64": B64}, {"b64": None}])
values = st.sampled_from(["285", "heatmap,overlay", "true", "0.5", "jet", "png", "{}"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | values
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(options | texts, inner), max_leaves=6
)
json_objects = st.builds(
    lambda photo, options: photo | options,
    st.dictionaries(st.sampled_from(IMAGE_KEYS), st.just(B64) | json_values, max_size=1),
    st.dictionaries(options | texts, json_values, max_size=2),
)
elements = st.lists(json_objects | json_values | st.just(B64), max_size=3)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("image") | options | json_values,
        "datatype": st.sampled_from(["BYTES", "FP32"]) | json_values,
        "shape": st.just([1]) | json_values,
        "data": st.just([B64]) | json_values,
        "parameters": json_objects | json_values,
    },
)
optional_keys = {"parameters": json_objects | json_values, "id": texts | json_values, "x": leaves}
kserve_bodies = st.fixed_dictionaries(
    {"instances": elements | json_values}, optional=optional_keys
) | st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | json_values},
    optional={**optional_keys, "outputs": st.lists(tensors, max_size=2) | json_values},
)
form_fields = st.builds(
    lambda photo, options: photo | options,
    st.dictionaries(st.sampled_from(IMAGE_FIELDS), photos, max_size=1),
    st.dictionaries(options | texts, values.map(str.encode) | st.binary() | leaves, max_size=2),
)
field_dicts = form_fields | st.fixed_dictionaries(
    {"body": json_objects | json_values | kserve_bodies},
    optional={"top_k": st.just(b"2"), "alpha": st.binary()},
)
header_dicts = st.fixed_dictionaries(
    {},
    optional={
        "x-explain": texts | json_objects.map(json.dumps),
        "content-type": st.sampled_from(["image/png", *JSON.values(), *URLENCODED.values()]),
        "inference-header-content-length": texts | st.integers(0, 200).map(str),
    },
)
paths = st.just("") | texts | st.lists(st.tuples(options, values).map("=".join)).map(",".join)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.builds(IncomingRequest, field_dicts, header_dicts, paths, st.booleans()))
def test_any_request_has_photos_or_an_error(request: IncomingRequest) -> None:
    parsed = parse_request(request, SETTINGS)
    assert isinstance(parsed, ParsedBody)
    instances = parsed.instances
    outcomes = [instances] if isinstance(instances, RequestError) else list(instances)
    assert outcomes
    assert all(isinstance(outcome, ImageRequest | RequestError) for outcome in outcomes)
