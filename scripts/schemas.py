"""Write what is generated from the code: what describes the wire in docs/, and protobuf's modules.

python scripts/schemas.py            write docs/request.schema.json, docs/reply.schema.json,
                                     docs/openapi.json, and open_inference_pb2.py and .pyi beside
                                     open_inference.proto
python scripts/schemas.py --check    exit 1 where a file differs from what the code says
"""

from __future__ import annotations

import json
import sys

from devtools.json_schemas import reply_schema, request_schema
from devtools.openapi import openapi_document
from devtools.paths import ROOT
from devtools.protobuf import generated_modules


def main() -> None:
    texts = generated_modules()
    documents = {
        "request.schema.json": request_schema(),
        "reply.schema.json": reply_schema(),
        "openapi.json": openapi_document(),
    }
    for name, document in documents.items():
        texts[ROOT / "docs" / name] = json.dumps(document, indent=2) + "\n"
    outdated = []
    for file, text in texts.items():
        if sys.argv[1:] != ["--check"]:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            outdated.append(file.name)
    if outdated:
        sys.exit(f"{', '.join(outdated)}: not what the code says; run python scripts/schemas.py")


if __name__ == "__main__":
    main()
