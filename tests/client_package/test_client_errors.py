"""The tree of the client's errors: in the code, in the module's docstring and in docs/errors.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import camserve_client
from camserve_client import CamserveError, errors
from tests.support.scripts import ROOT

DOCUMENT = (ROOT / "docs" / "errors.md").read_text()
SECTION = DOCUMENT.partition("\n## What the client raises\n")[2].partition("\n## ")[0]


def tree(error: type[Exception], indent: str = "") -> Iterator[str]:
    """The lines of an error and of its subclasses, as ``tree`` prints folders."""
    yield error.__name__
    children = error.__subclasses__()
    for child in children:
        last = child is children[-1]
        first_line, *lines = tree(child)
        yield f"{'└── ' if last else '├── '}{first_line}"
        yield from (f"{'    ' if last else '│   '}{line}" for line in lines)


TREE = list(tree(CamserveError))
NAMES = re.findall(r"\w+", "\n".join(TREE))


def test_the_tree_has_all_errors_of_the_package() -> None:
    defined = [name for name, value in vars(errors).items() if inspect.isclass(value)]
    assert sorted(NAMES) == sorted(defined)
    assert {name for name in camserve_client.__all__ if name.endswith("Error")} == set(NAMES)


def test_the_tree_is_the_modules_docstring() -> None:
    assert "\n\n" + "\n".join(f"    {line}" for line in TREE) + "\n\n" in (errors.__doc__ or "")


def test_the_tree_is_in_the_document() -> None:
    assert "\n```text\n" + "\n".join(TREE) + "\n```\n" in SECTION


def test_the_documents_table_has_every_error_with_its_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.+) \| (.+) \|$", SECTION, re.MULTILINE)
    codes = {name: getattr(getattr(errors, name), "code", None) for name in NAMES}
    assert [name for name, *_ in rows] == NAMES
    assert {name: code for name, code, *_ in rows if code.startswith("`")} == {
        name: f"`{code}`" for name, code in codes.items() if code
    }
