"""Explain a folder of photos, and report what the model gets wrong and what it looks at.

FOLDER is searched to the bottom, without hidden files. What the photos show is
known by the names of their folders, where these are the model's labels, or by
--labels. --out gets report.html, a page that needs no network; report.jsonl,
a line for each photo; report.parquet, the same as a table; and findings.json.

A run that was stopped goes on where it stopped when it is started again.

Exit status: 0 when nothing is found, 3 when there are findings, 1 when no
photo could be explained, 2 when the call is wrong. Findings about accuracy,
calibration and confusion alone count with --strict only.

Examples:

  camserve report photos --out report
  camserve report photos --out report --model pets --labels labels.csv
  camserve report photos --out report --boxes instances_val2017.json
  camserve report photos --out report --model pets --compare pets-v2
  camserve report photos --out report --url https://cam.example --model pets
"""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from camserve_cli.arguments import Authorities, RequestTimeout, ServerToken
from camserve_cli.errors import CommandError
from camserve_cli.paths import STORE, STORE_SHOWN

INTERRUPTED = 130
#: What the extra "report" installs, by the name under which it is imported.
_NEEDED = {"jinja2": "jinja2", "pyarrow": "pyarrow", "scipy": "scipy", "sklearn": "scikit-learn"}

app = typer.Typer(add_completion=False)


class ReportError(CommandError):
    """The call cannot be done."""

    exit_status = 2


class EngineName(StrEnum):
    """Where the model runs."""

    LOCAL = "local"
    RAY = "ray"


class ExportFormat(StrEnum):
    """What else the photos and maps are written as."""

    FIFTYONE = "fiftyone"


@app.command(help=__doc__)
def report(
    folder: Annotated[Path, typer.Argument(help="The photos.", metavar="FOLDER")],
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("out/report"),
    model: Annotated[
        str | None,
        typer.Option(
            help="The archive's name, or with --url the model's; the only one of the store by "
            "default, else resnet50."
        ),
    ] = None,
    store: Annotated[
        Path, typer.Option(help="The folder of archives.", show_default=STORE_SHOWN)
    ] = STORE,
    labels: Annotated[
        Path | None,
        typer.Option(help="What the photos show: CSV with photo,label, or COCO JSON."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Where the objects are: COCO JSON, CSV with photo,x0,y0,x1,y1[,label], or a "
            "folder of Pascal VOC."
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another archive, or model of the server.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="A server to ask, as http://host:8080; by default the archive runs here."
        ),
    ] = None,
    ca: Authorities = None,
    token: ServerToken = None,
    timeout: RequestTimeout = 60,
    engine: Annotated[
        EngineName, typer.Option(help="Where the model runs: in a process of this machine.")
    ] = EngineName.LOCAL,
    faithfulness: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="How many photos' faithfulness is measured, drawn by chance."
        ),
    ] = 64,
    shortcuts: Annotated[
        bool,
        typer.Option(
            "--shortcuts/--no-shortcuts",
            help="Whether to search for shortcuts, which asks the model some 2,000 times for each "
            "class, of up to 16.",
        ),
    ] = True,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 3 for findings about accuracy and calibration too."
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, whatever --out holds of an earlier run.")
    ] = False,
    export: Annotated[
        ExportFormat | None, typer.Option(help="Also write the photos' maps as a dataset.")
    ] = None,
) -> None:
    if engine is EngineName.RAY:
        raise ReportError("--engine ray is not in this version; accepted: local")
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder; accepted: a folder of photos")
    if url and store != STORE:
        raise ReportError("--store and --url are two places of a model; use one")
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise ReportError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            "accepted: pip install 'camserve[report]'"
        )
    # They import what only this command needs.
    from camserve_cli.engines.archive_engine import find_archive
    from camserve_cli.report.making import ReportCall, make_report
    from camserve_cli.server_choice import ServerChoice

    if compare and not url:
        # One that is missing is told before the first is loaded.
        find_archive(store, compare)
    call = ReportCall(
        folder=folder,
        out=out,
        model=model,
        store=store,
        labels=labels,
        boxes=boxes,
        compare=compare,
        server=ServerChoice(url, None, model, token, ca, timeout) if url else None,
        faithfulness=faithfulness,
        shortcuts=shortcuts,
        fresh=fresh,
        export=export.value if export else None,
    )
    try:
        status = make_report(call, strict=strict)
    except KeyboardInterrupt:
        typer.echo(
            f"stopped: what was explained is kept in {out}; the same command goes on", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(status)
