"""Write the JSON Schemas of requests and replies into docs/, from what validates and writes them.

python scripts/schemas.py            write docs/request.schema.json and docs/reply.schema.json
python scripts/schemas.py --check    exit 1 where a file is not what the code says
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from camserve_cli.paths import ROOT

sys.path.insert(0, str(ROOT / "handler"))

from camserve.options import Options
from camserve.protocols.photo_fields import JSON_IMAGES
from camserve.protocols.schema import Body

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = "#/$defs/{model}"
_BASE64 = {"type": "string", "contentEncoding": "base64", "minLength": 4}


def request() -> dict[str, Any]:
    """The schema of a request's JSON body, of whichever protocol."""
    options = Options.model_json_schema()
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
            **{name: {"$ref": "#/$defs/Image"} for name in JSON_IMAGES},
            **options["properties"],
        },
        "oneOf": [{"required": [name]} for name in JSON_IMAGES],
        "additionalProperties": False,
    }
    v1 = {
        "type": "object",
        "description": "KServe v1: the parameters are options of every instance without its own.",
        "properties": {
            "instances": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [{"$ref": "#/$defs/Photo"}, _BASE64]},
            },
            "parameters": {"$ref": "#/$defs/Options"},
        },
        "required": ["instances"],
        "additionalProperties": False,
    }
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": ["image", *options["properties"]]},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {"type": "array"},
            "parameters": {"$ref": "#/$defs/Options"},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    v2 = {
        "type": "object",
        "description": "KServe v2: 'image' has n photos in base64, an input named as an option 1 "
        "or n elements; 'outputs' names the tensors to send.",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "contains": {
                "properties": {"name": {"const": "image"}}
            }},
            "parameters": {"$ref": "#/$defs/Options"},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
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
            "Image": {"anyOf": [_BASE64, wrapped]},
            "Options": options,
            "Photo": photo,
            "KServeV1": v1,
            "KServeV2": v2,
        },
    }


def reply() -> dict[str, Any]:
    """The schema of a reply's JSON body, of whichever protocol."""
    schema = TypeAdapter(Body).json_schema(ref_template=_REFERENCE)
    return {"$schema": _DIALECT, "title": "Reply", **schema}


def main() -> None:
    wrong = []
    for name, schema in (("request", request()), ("reply", reply())):
        file = ROOT / "docs" / f"{name}.schema.json"
        text = json.dumps(schema, indent=2) + "\n"
        if sys.argv[1:] != ["--check"]:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            wrong.append(file.name)
    if wrong:
        sys.exit(f"{', '.join(wrong)}: not what the code says; run python scripts/schemas.py")


if __name__ == "__main__":
    main()
