"""The HTTP interface as an OpenAPI 3.1 document, of the same types as the JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from camserve import __version__
from camserve.errors import HTTP_STATUS
from camserve.options import Options
from camserve.settings import Settings
from devtools.json_schemas import reply_schema, request_schema

#: TorchServe's port for inference, and that of the Open Inference front, as they are by default.
TORCHSERVE: Final = "http://127.0.0.1:8080"
FRONT: Final = "http://127.0.0.1:8000"
#: A PNG of 8 x 8: a red square on grey.
PHOTO: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAGElEQVR42mNowAEYCEj8Z2CAI1pJkOAqAGx2V/FlZllU"
    "AAAAAElFTkSuQmCC"
)
_DESCRIPTION: Final = """\
Predictions of an image classifier, each with maps of where the evidence for it lies: Grad-CAM and
its relatives.

A request that fails gets `{"error": {"code": "..", "status": 4xx, "message": ".."}}`, alone: its
neighbours in a batch are answered. On `/v2` paths, `error` is the message and `error_detail` the
object. What TorchServe answers by itself, as to a wrong token, is
`{"code": .., "type": "..", "message": ".."}`.

`OPTIONS /` of the server is TorchServe's own description. It knows the paths, and nothing of
bodies, options or replies.
"""
_DEFINITIONS: Final = "#/$defs/"
_COMPONENTS: Final = "#/components/schemas/"
_TEXT: Final = {"type": "string"}
#: The statuses of errors, as the document's keys.
_STATUSES: Final = [*map(str, sorted({*HTTP_STATUS.values()}))]

Json = dict[str, Any]


def openapi_document() -> Json:
    """All paths that answer photos, and those that tell health and metadata."""
    requests, replies = request_schema(), reply_schema()
    schemas = {
        **requests["$defs"],
        **replies["$defs"],
        "Request": {"anyOf": requests["anyOf"]},
        "Reply": {"anyOf": replies["anyOf"]},
        "HostError": {
            "description": "What TorchServe answers by itself.",
            **_object(code={"type": "integer"}, type=_TEXT, message=_TEXT),
            "additionalProperties": False,
        },
        "V2Error": {
            "description": "An error of KServe v2, where it has no tensors.",
            **_object(error=_TEXT, error_detail={"$ref": "#/$defs/ErrorFields"}),
            "required": ["error"],
        },
    }
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "camserve",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {"url": TORCHSERVE, "description": "TorchServe"},
            {"url": FRONT, "description": "The front for KServe's and Triton's clients"},
        ],
        "security": [{"token": []}],
        "tags": [
            {"name": "photos", "description": "A photo in any form, and its options"},
            {"name": "KServe v1", "description": "Several photos, each with options of its own"},
            {"name": "KServe v2", "description": "Open Inference: photos and options as tensors"},
            {"name": "health", "description": "Whether a server or a model answers"},
            {"name": "metadata", "description": "What a server and its models are"},
        ],
        "paths": {**_photo_paths(), **_v1_paths(), **_v2_paths(), **_health_and_metadata()},
        "components": {
            "schemas": {**schemas, "Form": _form()},
            "parameters": _parameters(),
            "requestBodies": _bodies(),
            "responses": _failures(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`camserve serve token` prints it. It ends after an hour.",
                }
            },
        },
    }
    return dict(_with_components(document))


def _photo_paths() -> Json:
    """TorchServe's paths for predictions and explanations."""
    paths: Json = {}
    for verb, does in (
        ("predictions", "Predict and explain"),
        ("explanations", "Explain, where the operator's default does not"),
    ):
        for version, more in (
            ("", []),
            ("/{version}", ["version"]),
            ("/{version}/{options}", ["version", "options"]),
        ):
            body = "Photo" if verb == "predictions" else "PhotoToExplain"
            operation = _photo_operation(f"{verb}{''.join(map(str.title, more))}", does, body)
            parameters = [_parameter(name) for name in ("model", *more, "X-Explain")]
            paths[f"/{verb}/{{model}}{version}"] = {
                "servers": [{"url": TORCHSERVE}],
                "parameters": parameters,
                "post": operation,
                "put": {**operation, "operationId": f"{operation['operationId']}ByPut"},
            }
    queries = [_parameter(f"query.{name}") for name in _option_schemas()]
    paths["/{model}/predict"] = {
        "servers": [{"url": TORCHSERVE}],
        "parameters": [_parameter("model"), _parameter("X-Explain"), *queries],
        "post": _photo_operation("predict", "Predict and explain, with options in the query"),
    }
    paths["/invocations"] = {
        "servers": [{"url": TORCHSERVE}],
        "parameters": [_parameter("model_name"), _parameter("X-Explain"), *queries],
        "post": _photo_operation("invocations", "The same, as SageMaker calls it"),
    }
    return paths


def _photo_operation(name: str, summary: str, body: str = "Photo") -> Json:
    return {
        "operationId": name,
        "tags": ["photos"],
        "summary": summary,
        "requestBody": {"$ref": f"#/components/requestBodies/{body}"},
        "responses": _responses("Reply"),
    }


def _form() -> Json:
    photo = {"contentMediaType": "application/octet-stream"}
    properties = {"data": photo, **_option_schemas()}
    return {
        "type": "object",
        "properties": properties,
        "required": ["data"],
        "additionalProperties": False,
    }


def _bodies() -> Json:
    """What requests hold, with examples that the tests send."""
    photo = {
        "photo": _example("the best class", {"image": {"b64": PHOTO}}),
        "options": _example(
            "three predictions, the second class explained, the map as numbers",
            {"image": PHOTO, "top_k": 3, "target": 1, "method": "layercam", "outputs": ["map"]},
        ),
    }
    predictions = _example("predictions alone", {"image": PHOTO, "explain": False})
    v1 = {
        "photo": _example("one photo", {"instances": [{"image": {"b64": PHOTO}}]}),
        "photos": _example(
            "two photos, one with a target of its own",
            {
                "instances": [{"image": {"b64": PHOTO}, "target": "top:2"}, PHOTO],
                "parameters": {"outputs": ["map"]},
            },
        ),
    }
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [PHOTO]}
    target = {"name": "target", "datatype": "INT64", "shape": [1], "data": [1]}
    v2 = {
        "photo": _example("one photo", {"inputs": [image]}),
        "target": _example(
            "a class, and the tensors that are wanted",
            {
                "id": "seven",
                "inputs": [image, target],
                "outputs": [{"name": "probability"}, {"name": "map"}],
            },
        ),
    }
    files: Json = {
        f"image/{one}": {"schema": {}} for one in Settings.model_fields["formats"].default
    }
    others = {
        "multipart/form-data": {"schema": _reference("Form")},
        **files,
        "application/octet-stream": {"schema": {}},
        "text/plain": {"schema": {"type": "string", "contentEncoding": "base64"}},
    }
    return {
        "Photo": _body("Request", {**photo, "predictions": predictions}, others),
        "PhotoToExplain": _body("Request", photo, others),
        "KServeV1": _body("KServeV1", v1),
        "KServeV2": _body("KServeV2", v2),
    }


def _body(schema: str, examples: Json, others: Mapping[str, Json] = MappingProxyType({})) -> Json:
    content = {"schema": _reference(schema), "examples": examples}
    return {"required": True, "content": {"application/json": content, **others}}


def _example(summary: str, value: Json) -> Json:
    return {"summary": summary, "value": value}


def _v1_paths() -> Json:
    return {
        f"/v1/models/{{model}}:{verb}": {
            "parameters": [_parameter("model"), _parameter("X-Explain")],
            "post": {
                "operationId": f"v1{verb.title()}",
                "tags": ["KServe v1"],
                "summary": summary,
                "requestBody": {"$ref": "#/components/requestBodies/KServeV1"},
                "responses": _responses(reply),
            },
        }
        for verb, reply, summary in (
            ("predict", "V1Predictions", "Predict and explain each instance"),
            ("explain", "V1Explanations", "The same, where the operator's default does not"),
        )
    }


def _v2_paths() -> Json:
    return {
        f"/v2/models/{{model}}{version}/{verb}": {
            # TorchServe has no versions here.
            **({"servers": [{"url": FRONT}]} if version else {}),
            "parameters": [_parameter(name) for name in ("model", *more, "X-Explain")],
            "post": {
                "operationId": f"v2{verb.title()}{''.join(map(str.title, more))}",
                "tags": ["KServe v2"],
                "summary": summary,
                "requestBody": {"$ref": "#/components/requestBodies/KServeV2"},
                "responses": _responses("V2Body", "V2Failed"),
            },
        }
        for verb, summary in (
            ("infer", "Predict and explain"),
            ("explain", "The same, where the operator's default does not"),
        )
        for version, more in (("", ()), ("/versions/{version}", ("version",)))
    }


def _health_and_metadata() -> Json:
    model = [_parameter("model")]
    version = [*model, _parameter("version")]
    names = _object(models={"type": "array", "items": _TEXT})
    tensors = {
        "type": "array",
        "items": _object(
            name=_TEXT, datatype=_TEXT, shape={"type": "array", "items": {"type": "integer"}}
        ),
    }
    metadata = _object(
        name=_TEXT,
        versions={"type": "array", "items": _TEXT},
        platform=_TEXT,
        inputs=tensors,
        outputs=tensors,
    )
    ready = _object(name=_TEXT, ready={"type": "boolean"})
    server = _object(name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT})
    return {
        "/ping": _get(
            "ping", "Whether TorchServe answers", _object(status=_TEXT), server=TORCHSERVE
        ),
        "/v2/health/live": _get(
            "v2Live", "Whether the server lives", _object(live={"type": "boolean"}), secured=False
        ),
        "/v2/health/ready": _get(
            "v2Ready", "Whether every model answers", _object(ready={"type": "boolean"}),
            secured=False,
        ),
        "/v2/models/{model}/ready": _get(
            "v2ModelReady", "Whether a model answers", ready, model, secured=False
        ),
        "/v2/models/{model}/versions/{version}/ready": _get(
            "v2VersionReady", "Whether a version of a model answers", ready, version, secured=False
        ),
        "/v1/models/{model}": _get(
            "v1ModelReady", "Whether a model answers", ready, model, secured=False
        ),
        "/v2": _get("v2Server", "The server", server, tag="metadata"),
        "/v2/models": _get("v2Models", "The models", names, tag="metadata"),
        "/v1/models": _get("v1Models", "The models", names, tag="metadata"),
        "/v2/models/{model}": _get(
            "v2Model", "A model's inputs and outputs", metadata, model, tag="metadata"
        ),
        "/v2/models/{model}/versions/{version}": _get(
            "v2Version", "Those of a version", metadata, version, tag="metadata"
        ),
    }  # fmt: skip


def _get(
    name: str,
    summary: str,
    reply: Json,
    parameters: Iterable[Json] = (),
    *,
    server: str = FRONT,
    tag: str = "health",
    secured: bool = True,
) -> Json:
    errors = {"anyOf": [_reference(one) for one in ("V2Error", "ErrorBody", "HostError")]}
    if tag == "health":
        # Not ready is an answer.
        errors["anyOf"].append(reply)
    operation = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {"description": "yes" if tag == "health" else "as asked", **_json(reply)},
            "default": {"description": "an error, or no", **_json(errors)},
        },
    }
    if not secured:
        operation["security"] = []
    return {"servers": [{"url": server}], "parameters": [*parameters], "get": operation}


def _responses(reply: str, failed: str = "Failed") -> Json:
    """200, and each status that the handler, TorchServe or the front gives."""
    answered = {"description": "what the model sees, and where", **_json(_reference(reply))}
    statuses = [*_STATUSES, "default"]
    return {
        "200": answered,
        **{one: {"$ref": f"#/components/responses/{failed}{one.title()}"} for one in statuses},
    }


def _failures() -> Json:
    """By a name that ends with the status, its codes and its body."""
    codes = {
        status: ", ".join(code for code, its in HTTP_STATUS.items() if str(its) == status)
        for status in _STATUSES
    }
    codes["Default"] = "an error of TorchServe or of the front"
    kinds = {
        # A KServe v1 reply of which no photo is answered has an error for each.
        "Failed": ("ErrorBody", "V1Predictions", "V1Explanations", "V2Body"),
        # A body that is none of KServe v2 is answered as what it is.
        "V2Failed": ("V2Error", "V2Body", "ErrorBody"),
    }
    return {
        f"{name}{status}": {
            "description": causes,
            **_json({"anyOf": [_reference(one) for one in (*bodies, "HostError")]}),
        }
        for name, bodies in kinds.items()
        for status, causes in codes.items()
    }


def _parameters() -> Json:
    text = {"type": "string", "minLength": 1}
    found: Json = {
        "model": _named("model", "path", text, "The model's name."),
        "version": _named("version", "path", text, "The model's version.", example="1.0"),
        "options": _named(
            "options", "path", text, "Options as `name=value,..`, escaped where they are no words.",
            example="target=1,method=layercam",
        ),
        "model_name": _named("model_name", "query", text, "The model's name.", required=True),
        "X-Explain": {
            "name": "X-Explain",
            "in": "header",
            "description": "The options as a JSON object.",
            "content": {"application/json": {"schema": _reference("Options")}},
        },
    }  # fmt: skip
    for name, schema in _option_schemas().items():
        about = schema.get("description", "")
        found[f"query.{name}"] = {
            **_named(name, "query", schema, about, required=False),
            "style": "form",
            "explode": False,
        }
    return found


def _named(
    name: str, place: str, schema: Json, about: str, *, required: bool = True, example: str = ""
) -> Json:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": about,
        "schema": schema,
        **({"example": example} if example else {}),
    }


def _option_schemas() -> Json:
    properties: Json = Options.model_json_schema()["properties"]
    return properties


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _json(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _reference(name: str) -> Json:
    return {"$ref": f"{_COMPONENTS}{name}"}


def _with_components(value: Any) -> Any:
    """The same, with what refers to definitions of a JSON Schema referring to components."""
    if isinstance(value, Mapping):
        return {
            key: one.replace(_DEFINITIONS, _COMPONENTS) if key == "$ref" else _with_components(one)
            for key, one in value.items()
        }
    return [_with_components(one) for one in value] if isinstance(value, list) else value
