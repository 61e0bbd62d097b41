"""Write the JSON Schemas of requests and replies into docs/, generated from the code.

python scripts/schemas.py            write docs/request.schema.json and docs/reply.schema.json
python scripts/schemas.py --check    exit 1 where a file differs from what the code says
"""

from __future__ import annotations

import json
import sys

from devtools.json_schemas import reply_schema, request_schema
from devtools.paths import ROOT


def main() -> None:
    outdated = []
    for name, schema in (("request", request_schema()), ("reply", reply_schema())):
        file = ROOT / "docs" / f"{name}.schema.json"
        text = json.dumps(schema, indent=2) + "\n"
        if sys.argv[1:] != ["--check"]:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            outdated.append(file.name)
    if outdated:
        sys.exit(f"{', '.join(outdated)}: not what the code says; run python scripts/schemas.py")


if __name__ == "__main__":
    main()
