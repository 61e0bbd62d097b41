"""The JSON Schemas of requests and replies, generated from the types that read and write them."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import TypeAdapter

from camserve.options import Options
from camserve.protocols.photo_fields import IMAGE_KEYS
from camserve.protocols.photo_tensors import INPUT_KIND, InputKind
from camserve.protocols.schema import Body

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = "#/$defs/{model}"
_BASE64 = {"type": "string", "contentEncoding": "base64", "minLength": 4}
_NUMBERS = {
    "type": "array",
    "description": "height lists of width lists of 3 numbers, or the network's own input",
    "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
}


def request_schema() -> dict[str, Any]:
    """The schema of a request's JSON body, of all protocols."""
    options = Options.model_json_schema()
    kind = {
        "enum": list(get_args(InputKind)),
        "description": "what the numbers of photos that are tensors are",
    }
    parameters = {**options["properties"], INPUT_KIND: kind}
    wrapped = {
        "type": "object",
        "properties": {"b64": _BASE64},
        "required": ["b64"],
        "additionalProperties": False,
    }
    photo = {
        "type": "object",
        "description": "One photo, under one of several names, and the options beside it.",
        "properties": {
            **{name: {"$ref": "#/$defs/Image"} for name in IMAGE_KEYS},
            **parameters,
        },
        "oneOf": [{"required": [name]} for name in IMAGE_KEYS],
        "additionalProperties": False,
    }
    v1 = {
        "type": "object",
        "description": "KServe v1: the parameters, and options beside the instances, are of every "
        "instance without its own; 'signature_name' is ignored.",
        "properties": {
            "instances": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [{"$ref": "#/$defs/Photo"}, _BASE64, _NUMBERS]},
            },
            "parameters": {**options, "properties": parameters},
            "signature_name": {},
            **parameters,
        },
        "required": ["instances"],
        "additionalProperties": False,
    }
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
        "required": ["name"],
    }
    v2 = {
        "type": "object",
        "description": "KServe v2: 'image', or the only input that is not named as an option, has "
        "n photos; an option has 1 or n elements; 'outputs' names the tensors to send.",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "contains": {
                "properties": {"name": {"not": {"enum": [*parameters]}}}
            }},
            "parameters": {"type": "object"},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                    "required": ["name"],
                },
            },
        },
        "required": ["inputs"],
    }  # fmt: skip
    return {
        "$schema": _DIALECT,
        "title": "Request",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("Photo", "KServeV1", "KServeV2")],
        "$defs": {
            "Image": {"anyOf": [_BASE64, wrapped, _NUMBERS]},
            "Options": options,
            "Photo": photo,
            "KServeV1": v1,
            "KServeV2": v2,
        },
    }


def reply_schema() -> dict[str, Any]:
    """The schema of a reply's JSON body, of all protocols."""
    schema = TypeAdapter(Body).json_schema(ref_template=_REFERENCE)
    return {"$schema": _DIALECT, "title": "Reply", **schema}
