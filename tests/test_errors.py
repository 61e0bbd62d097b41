"""docs/errors.md says what the code does."""

from __future__ import annotations

import re

from camserve.errors import HTTP_STATUS
from camserve_cli.open_inference import errors as front_errors
from tests.support.scripts import ROOT

DOCUMENT = (ROOT / "docs" / "errors.md").read_text()
#: The part about the handler; tests/deploy/test_edge_answers.py has that about the edge.
HANDLER = DOCUMENT.split("## What the handler refuses")[1].split("\n## ")[0]


def test_every_code_is_in_the_table_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \| (.+) \|$", HANDLER, re.MULTILINE)
    assert [(code, int(status)) for code, status, *_ in rows] == list(HTTP_STATUS.items())


def test_every_code_of_the_table_is_raised_somewhere() -> None:
    sources = "".join(
        path.read_text()
        for path in (ROOT / "handler" / "camserve").rglob("*.py")
        if path.name != "errors.py"
    )
    assert [code for code in HTTP_STATUS if f'"{code}"' not in sources] == []


def test_every_code_of_the_front_is_documented_with_its_statuses() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    table = text.split("## What the Open Inference front answers by itself")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| `([a-z_]+)` \| (\d+) \| `?([A-Z_]*)`? ?\|", table)
    assert [(code, int(status)) for code, status, _ in rows] == [*front_errors.HTTP_STATUS.items()]
    over_grpc = {code: name for code, _, name in rows if name}
    told = {code: front_errors.FrontError(code, "").grpc_status.name for code in over_grpc}
    assert told == over_grpc
