"""A report from beginning to end."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from camserve import __version__
from camserve.settings import Preprocess
from camserve_cli.engines.engine import Engine, EngineCallError, EngineError, ModelDescription
from camserve_cli.engines.opening import open_engine
from camserve_cli.errors import CommandError
from camserve_cli.report.analysis import Analysis, analyse
from camserve_cli.report.columns import ReportColumns, read_columns
from camserve_cli.report.content import ReportContent
from camserve_cli.report.contrasts import contrast_pairs
from camserve_cli.report.model_calls import predictor, seen_reader
from camserve_cli.report.output.fiftyone_export import export_fiftyone
from camserve_cli.report.output.page import write_page
from camserve_cli.report.output.table import write_parquet
from camserve_cli.report.photos.dataset import Dataset, describe_photos, digest, list_photos
from camserve_cli.report.photos.label_names import LabelNames
from camserve_cli.report.progress import progress_bar
from camserve_cli.report.requests import AnswerReader, PhotoRequests, keeps_probabilities
from camserve_cli.report.run import explain_photos, is_current, sample_of
from camserve_cli.report.shortcuts.search import ShortcutSearch, find_shortcuts
from camserve_cli.report.store import LINES, ReportStore, write_file
from camserve_cli.report.verdict import exit_status
from camserve_cli.server_choice import ServerChoice
from camserve_cli.terminal import printable

FINDINGS, PAGE, TABLE = "findings.json", "report.html", "report.parquet"


class NothingExplainedError(CommandError):
    """No photo could be explained."""


@dataclass(frozen=True)
class ReportCall:
    """What the command was called with; see ``camserve report --help``.

    Attributes:
        server: to ask; None where an archive of ``store`` runs here.
        faithfulness: how many photos' faithfulness is measured.
        shortcuts: whether shortcuts are searched for.
        export: ``fiftyone``, or None.
    """

    folder: Path
    out: Path
    model: str | None
    store: Path
    labels: Path | None
    boxes: Path | None
    compare: str | None
    server: ServerChoice | None
    faithfulness: int
    shortcuts: bool
    fresh: bool
    export: str | None


def make_report(call: ReportCall, *, strict: bool) -> int:
    """Explain the photos and write the report.

    Returns:
        The exit status: 0 or 3.

    Raises:
        CommandError: the call is wrong, or nothing could be explained.
        KeyboardInterrupt: what was explained is kept.
    """
    console = Console(stderr=True)
    search = list_photos(call.folder, call.out, call.labels, call.boxes)
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(call.server, call.store, call.model))
        other = (
            stack.enter_context(open_engine(call.server, call.store, call.compare))
            if call.compare
            else None
        )
        description = engine.description
        if other is not None and list(other.description.classes) != list(description.classes):
            raise EngineCallError(
                f"--compare {call.compare}: its labels are not those of {description.name}; "
                "accepted: a model of the same classes"
            )
        dataset = describe_photos(
            call.folder, search, LabelNames(description), call.labels, call.boxes
        )
        for note in dataset.notes:
            console.print(printable(note), highlight=False, markup=False, soft_wrap=True)
        preprocess = (
            Preprocess.model_validate(description.preprocess)
            if description.preprocess is not None
            else None
        )
        sample = (
            sample_of(dataset.photos.paths, call.faithfulness)
            if "faithfulness" in description.options
            else frozenset[str]()
        )
        settings = _settings(call, description, dataset, other)
        # Its lock holds until everything is written: another run would change what is read here.
        store = stack.enter_context(
            ReportStore(
                call.out,
                settings,
                call.fresh,
                lambda line: is_current(line, call.folder, sample),
            )
        )
        explain_photos(
            dataset.photos,
            PhotoRequests(description, sample),
            engine,
            other,
            AnswerReader(description.classes, preprocess, keeps_probabilities(description)),
            store,
            console,
        )
        store.flush()
        columns = read_columns(
            call.out / LINES,
            frozenset(dataset.photos.paths),
            description.classes,
            sample,
            description.task,
            description.threshold,
        )
        _check_explained(columns)
        shortcuts = (
            _search_shortcuts(columns, call.folder, engine, preprocess, console)
            if call.shortcuts
            else None
        )
        analysis = analyse(columns, other.description.name if other is not None else "", shortcuts)
        contrasts = contrast_pairs(columns, analysis.pairs, call.folder, engine)
        content = ReportContent(dataset, description, columns, analysis, contrasts)
        _write(call, content)
    return _tell(call, dataset, columns, analysis, strict)


def _search_shortcuts(
    columns: ReportColumns,
    folder: Path,
    engine: Engine,
    preprocess: Preprocess | None,
    console: Console,
) -> ShortcutSearch | None:
    """What the search finds, which asks the model many times; how far it is, is shown.

    Returns:
        None where the model does not answer what the search asks: the report goes on without it.
    """
    try:
        with progress_bar(console, "searching for shortcuts") as progress:
            bar = progress.add_task("", total=None)
            return find_shortcuts(
                columns.photos,
                seen_reader(columns, folder),
                predictor(engine, preprocess),
                lambda done, of: progress.update(bar, completed=done, total=of),
            )
    except EngineError as failure:
        note = f"the search for shortcuts was left out: {failure}"
        console.print(printable(note), highlight=False, markup=False, soft_wrap=True)
        return None


def _identity(description: ModelDescription) -> list[str]:
    """What tells a model from another one, as far as it is told."""
    classes = hashlib.sha256("\0".join(description.classes).encode()).hexdigest()
    return [
        description.name,
        description.version,
        description.weights_sha256,
        description.digest or classes,
    ]


def _settings(
    call: ReportCall, description: ModelDescription, dataset: Dataset, other: Engine | None
) -> dict[str, Any]:
    """What a run that goes on must have in common with the one before."""
    return {
        "camserve": __version__,
        # A digest: the file lies beside what is passed on, and its path may tell a name.
        "folder": hashlib.sha256(bytes(call.folder.resolve())).hexdigest(),
        "model": _identity(description),
        "second model": _identity(other.description) if other is not None else [],
        "source of labels": digest(call.labels) or dataset.labels.source,
        "file of boxes": digest(call.boxes),
    }


def _check_explained(columns: ReportColumns) -> None:
    if len(columns.photos):
        return
    first = columns.failed[0]
    raise NothingExplainedError(
        f"none of {len(columns.failed)} photos could be explained; the first, {first.path}: "
        f"{first.message} ({first.code})"
    )


def _write(call: ReportCall, content: ReportContent) -> None:
    findings = [finding.to_json() for finding in content.analysis.findings]
    write_file(call.out / FINDINGS, f"{json.dumps(findings, indent=2)}\n")
    write_parquet(call.out / LINES, call.out / TABLE, content.columns)
    write_page(content, call.out, call.out / PAGE)
    if call.export == "fiftyone":
        photos = content.dataset.photos
        export_fiftyone(content.columns, content.description.name, photos, call.out)


def _tell(
    call: ReportCall, dataset: Dataset, columns: ReportColumns, analysis: Analysis, strict: bool
) -> int:
    for finding in analysis.findings:
        typer.echo(f"{finding.kind}: {printable(finding.text)}")
    count = len(analysis.findings)
    failed = f", {len(columns.failed)} failed" if columns.failed else ""
    typer.echo(
        f"{len(columns.photos)} of {len(dataset.photos.paths)} photos explained{failed}; "
        f"{count} finding{'' if count == 1 else 's'}; {printable(str(call.out / PAGE))}"
    )
    return exit_status(analysis.findings, strict)
