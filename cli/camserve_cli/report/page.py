"""report.html: one file with its style, its script and its data, which loads nothing.

Names of files and labels are text of others: the template escapes them, and the data is JSON in
which no ``<`` is left. The page's policy allows its own style and script, by their digests, and
pictures that are part of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from camserve_cli.report.content import ReportContent
from camserve_cli.report.page_photos import (
    choose_photos,
    gather_photos,
    shown_of_comparison,
)
from camserve_cli.report.page_pictures import heat_picture, pack_map, reliability_diagram
from camserve_cli.report.store import write_file

_FILES = files("camserve_cli.report") / "page"
#: The kinds of findings, in words.
KINDS = {
    "corner": "Looks at a corner",
    "border": "Looks at the border",
    "cluster": "Looks at a mark",
    "outside_box": "Right for the wrong reason",
    "image_property": "Depends on a property of the picture",
    "no_evidence": "No evidence",
    "accuracy": "Often wrong",
    "calibration": "Wrongly sure",
    "confusion": "Confuses classes",
}
#: Rows of a table that are shown at once; the rest is behind a click.
_ROWS = 40
#: Classes whose mean maps, or clusters, are shown.
_CLASSES = 60
_FAILED = 200


def write_page(content: ReportContent, out: Path, path: Path) -> None:
    """Write the page.

    Args:
        content: of the report.
        out: its folder.
        path: of the page.
    """
    write_file(path, render(content, out))


def render(content: ReportContent, out: Path) -> str:
    """The page's HTML."""
    from jinja2 import Environment, StrictUndefined

    rows = choose_photos(content)
    photos = gather_photos(content, out, rows)
    style, script = (_read(name) for name in ("report.css", "report.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent, "figure": _figure, "heat": heat_picture, "packed": pack_map,
        "chance": _chance,
    }  # fmt: skip
    template = environment.from_string(_read("report.html.jinja"))
    index_of = {path: row for row, path in enumerate(content.columns.photos.paths)}
    return template.render(
        content=content,
        columns=content.columns,
        analysis=content.analysis,
        model=content.description,
        classes=content.columns.photos.classes,
        kinds=KINDS,
        reliability=reliability_diagram(content.analysis.calibration),
        page_index=photos.index,
        index_of_path=lambda path: photos.index(index_of[path]),
        shown_rows=shown_of_comparison,
        shown=len(rows),
        most_rows=_ROWS,
        most_classes=_CLASSES,
        most_failed=_FAILED,
        data=Markup(_json(photos.data)),  # noqa: S704  # no "<" is left in it
        thumbnails=Markup(photos.thumbnails),  # noqa: S704  # base64
        style=Markup(style),  # noqa: S704  # this package's own
        script=Markup(script),  # noqa: S704
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def _read(name: str) -> str:
    return (_FILES / name).read_text("utf-8")


def _json(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _digest(text: str) -> str:
    """What the page's policy names a style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _percent(share: float, digits: int = 0) -> str:
    return "–" if math.isnan(share) else f"{share:.{digits}%}"  # noqa: RUF001  # a dash


def _figure(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"  # noqa: RUF001


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
