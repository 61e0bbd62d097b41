"""Explain photos: an overlay of where the network saw each class, and the replies as JSON lines.

PHOTOS are files, folders (searched to the bottom, without hidden files) and
globs. What is passed over in a folder is counted and named. --out gets an
overlay for each explanation, in folders like those that the photos lie in,
and explanations.jsonl: one line for each photo, in the order of the photos,
with its error or its reply, in which pictures are names of files in --out.
Files of an earlier run are written over. An error that many photos have is
shown for the first three.

The server is the one that `camserve serve` started, unless --url or --grpc
names another.

Exit status: 0 when every photo is explained, 1 when one failed, 2 when none
was tried.

Examples:

  camserve explain cat.jpg
  camserve explain photos --target tabby --target predicted
  camserve explain 'photos/**/*.jpg' --option size=original
  camserve explain photos --url https://cam.example --model resnet50
  camserve explain photos --grpc cam.example:8443 --ca ca.pem --model resnet50
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from camserve_cli.arguments import (
    ArgumentError,
    Authorities,
    RequestTimeout,
    ServerToken,
    key_values,
)
from camserve_cli.errors import CommandError
from camserve_cli.explain_files import LINES, SUFFIXES, find_photos
from camserve_cli.explain_results import Results
from camserve_cli.explain_run import explain_all
from camserve_cli.server_choice import ServerChoice, open_client
from camserve_cli.terminal import printable

#: Only what is kept is asked for. The size is sent, so that it is known how an overlay lies.
DEFAULTS = {"outputs": "overlay", "size": "model"}
INTERRUPTED = 130

app = typer.Typer(add_completion=False)


class ExplainError(CommandError):
    """What keeps a run from beginning, in words for the person who starts it."""

    exit_status = 2


class OutputError(CommandError):
    """What a run leaves cannot be written, as on a full disk; the run ends."""


def _options(targets: Sequence[str], named: Sequence[str]) -> dict[str, Any]:
    """The options to send: the server reads numbers and lists from their text."""
    try:
        options: dict[str, Any] = {**DEFAULTS, **key_values("--option", named, "top_k=3")}
    except ArgumentError as error:
        raise ExplainError(str(error)) from None
    if not_sent := {"self", "photo"} & options.keys():
        raise ExplainError(f"--option {not_sent.pop()}: the server has no such option")
    if targets:
        if "target" in options:
            raise ExplainError("--target and --option target=.. are the same; use one")
        options["target"] = targets[0] if len(targets) == 1 else list(targets)
    return options


@app.command(help=__doc__)
def explain(
    photos: Annotated[
        list[str], typer.Argument(help="Files, folders and globs.", metavar="PHOTOS")
    ],
    out: Annotated[Path, typer.Option(help="Where overlays and replies go.")] = Path(
        "out/explained"
    ),
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="A class to explain: its index or label, 'predicted', 'top:3'; repeatable.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another of the server's options, as alpha=0.5; repeatable.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model's name; the first of the server started here.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The server, as http://host:8080.")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--grpc",
            metavar="HOST:PORT",
            help="The server's gRPC address; with TLS where there is a --ca.",
        ),
    ] = None,
    ca: Authorities = None,
    token: ServerToken = None,
    in_flight: Annotated[
        int, typer.Option(min=1, max=100, help="Requests at once, so that batches fill.")
    ] = 32,
    timeout: RequestTimeout = 60,
) -> None:
    options = _options(target or [], option or [])
    search = find_photos(photos, out)
    found, passed_over = search.photos, search.describe_passed_over()
    if search.unmatched:
        raise ExplainError(
            f"no photo at {', '.join(map(repr, search.unmatched))}; looked for a file, a folder "
            f"with {', '.join(sorted(SUFFIXES))} files, and a glob"
            + (f"; {passed_over}" if passed_over else "")
        )
    if passed_over:
        typer.echo(passed_over, err=True)
    client = open_client(ServerChoice(url, address, model, token, ca, timeout))
    lines = out / LINES
    try:
        out.mkdir(parents=True, exist_ok=True)
        results = Results(out, lines.open("w", encoding="utf-8"), found)
    except OSError as failure:
        where = printable(str(failure.filename))
        raise ExplainError(f"--out {where}: {failure.strerror}") from None
    console = Console(stderr=True)
    progress = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    begin = time.perf_counter()
    interrupted, unwritable = False, None
    try:
        with progress:
            asyncio.run(explain_all(client, found, options, in_flight, results, progress))
    except KeyboardInterrupt:
        interrupted = True
    except OSError as failure:
        unwritable = failure
    finally:
        try:
            results.close()
        except OSError as failure:
            unwritable = unwritable or failure
    seconds = time.perf_counter() - begin
    summary = (
        f"{results.explained} of {len(found)} photos explained, {results.failed} "
        f"failed, in {seconds:.1f} s ({results.done / seconds:.1f} photos/s); "
        + printable(str(lines))
        + (
            f"; the condition did not hold for {results.not_explained}"
            if results.not_explained
            else ""
        )
        + (f"; {results.warned} with warnings of their file" if results.warned else "")
    )
    if unwritable:
        where = printable(str(unwritable.filename or lines))
        raise OutputError(f"--out {where}: {unwritable.strerror or unwritable}; {summary}")
    typer.echo(f"{'stopped: ' if interrupted else ''}{summary}")
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if results.failed else 0)
