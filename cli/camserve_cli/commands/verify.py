"""Make an explanation anew from its record, and say whether it is the same.

RECORD is a file with the record, or with an explanation, a reply or JSON lines
that hold some; those of another photo are passed over. PHOTO is the photo. The
server that --url names explains it; else the one that camserve serve started,
if it serves the record's model; else that archive of the model store does, in
a process of its own.

Exit status: 0 when it is the same, 3 when it is different, 1 when it could not
be made anew, 2 when the call is wrong.

Examples:

  camserve explain cat.jpg --option record=true
  camserve verify out/explained/explanations.jsonl cat.jpg
  camserve verify record.json cat.jpg --url https://cam.example
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from camserve_cli.arguments import Authorities, RequestTimeout, ServerToken
from camserve_cli.errors import CommandError
from camserve_cli.paths import STORE, STORE_SHOWN
from camserve_cli.records import (
    Record,
    differences,
    largest_map_gap,
    prediction_difference,
    read_records,
    request_options,
)
from camserve_cli.server_choice import ServerChoice
from camserve_cli.serving.local_server import LocalServer
from camserve_cli.terminal import printable

DIFFERENT = 3
#: The errors of a model that does not have the record's class, layer or other options.
_NOT_SERVED = frozenset({"invalid_option", "unknown_class", "unknown_option"})

app = typer.Typer(add_completion=False)


class VerifyError(CommandError):
    """The explanation cannot be made anew."""


class VerifyCallError(CommandError):
    """The call is wrong."""

    exit_status = 2


@app.command(help=__doc__)
def verify(
    record: Annotated[Path, typer.Argument(help="The file with the record.", metavar="RECORD")],
    photo: Annotated[Path, typer.Argument(help="The photo.", metavar="PHOTO")],
    model: Annotated[
        str | None, typer.Option(help="The archive's name; the model's of the record by default.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="A folder of archives, to use one of it.", show_default=STORE_SHOWN),
    ] = None,
    url: Annotated[str | None, typer.Option(help="A server to ask, as http://host:8080.")] = None,
    ca: Authorities = None,
    token: ServerToken = None,
    timeout: RequestTimeout = 60,
) -> None:
    if url and store:
        raise VerifyCallError("--store and --url are two places of a model; use one")
    # They import the client, and what runs an archive.
    from camserve_cli.engines.engine import Question
    from camserve_cli.engines.opening import open_engine

    records = read_records(record)
    try:
        data = photo.read_bytes()
    except OSError as failure:
        raise VerifyError(f"{photo}: {failure.strerror or failure}") from None
    of_photo = _records_of(records, data)
    if not of_photo:
        typer.echo(
            printable(
                f"different: {photo} is not the photo of the record; its SHA-256 is "
                f"{hashlib.sha256(data).hexdigest()}, and the record has "
                f"{records[0]['photo']['sha256']}"
            )
        )
        raise typer.Exit(DIFFERENT)
    name = model or of_photo[0]["model"]["name"]
    server = ServerChoice(url, None, name, token, ca, timeout)
    asks_server = url is not None or (store is None and _is_served_here(name))
    with open_engine(server if asks_server else None, store or STORE, name) as engine:
        answers = engine.ask([Question(data, request_options(one)) for one in of_photo])
    for answer in answers:
        if "error" not in answer:
            continue
        message = answer["error"]["message"]
        if answer["error"]["code"] in _NOT_SERVED:
            typer.echo(
                printable(f"different: the model refuses what the record asks for: {message}")
            )
            raise typer.Exit(DIFFERENT)
        raise VerifyError(f"the photo is not explained: {message}")
    anew = [answer["explanations"][0]["record"] for answer in answers]
    same = True
    for old, new, answer in zip(of_photo, anew, answers, strict=True):
        found = differences(old, new) + prediction_difference(old, answer["predictions"][0])
        same = same and not found
        what = old["prediction"]["label"]
        if "against" in old:
            what += f" rather than {old['against']['label']}"
        typer.echo(
            printable(f"different: {what}: {'; '.join(found)}")
            if found
            else printable(
                f"same: {what}, the map within {largest_map_gap(old, new):.2g} of the record's"
            )
        )
    raise typer.Exit(0 if same else DIFFERENT)


def _is_served_here(model: str) -> bool:
    """Whether the server that was started here, if it runs, serves a model."""
    here = LocalServer.running()
    return here is not None and model in here.models


def _records_of(records: list[Record], photo: bytes) -> list[Record]:
    """The records of a photo."""
    digest = hashlib.sha256(photo).hexdigest()
    return [record for record in records if record["photo"]["sha256"] == digest]
