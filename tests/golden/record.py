"""Record the requests of ``cases`` that have no record yet, with servers started for that.

    \b
    python -m tests.golden.record
    python -m tests.golden.record --replace NAME --replace NAME

An existing record stays as it is, unless it is named: then its request is sent again, byte for
byte, and its reply is replaced. A reply that depends on rounding is rejected, since another machine
would give another one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.golden.cases import CASES
from tests.golden.compare import ANY, differences, is_tensor, type_name
from tests.golden.records import FOLDER, Record, Reply, Request, load, load_all, save
from tests.golden.replay import ReplayClient
from tests.golden.server import golden_server

#: The keys of a model's description whose values depend on versions, machine or time, or are text
#: for people.
VOLATILE = (
    "workers", "jobQueueStatus", "versions", "threads", "compiled", "acceleration_notes",
    "not_faster_because", "description", "title",
)  # fmt: skip
#: Two scores, or the shares of two boxes, that are closer may swap places on another machine.
MIN_GAP = 1e-3
#: A map with a lower peak may be nothing but rounding.
MIN_PEAK = 1e-3


def requests_to_send(
    recorded: Sequence[Record], cases: Mapping[str, Request], replaced: Sequence[str]
) -> dict[str, Request]:
    """The requests to send, by name: those without a record, and those to be replaced."""
    known = {record.name: record.request for record in recorded}
    replayed = {name: request for name, request in known.items() if name in replaced}
    return replayed | {name: request for name, request in cases.items() if name not in known}


def merge(recorded: Sequence[Record], new: Mapping[str, Record]) -> list[Record]:
    """The records of a file in their order, replaced by new ones; further new ones at the end."""
    names = {record.name for record in recorded}
    return [new.get(record.name, record) for record in recorded] + [
        record for name, record in new.items() if name not in names
    ]


def rounding_dependencies(body: Any) -> Iterator[str]:
    """What in a reply depends on rounding: near-ties, and maps that may be nothing but rounding."""
    if isinstance(body, list):
        for entry in body:
            yield from rounding_dependencies(entry)
    if not isinstance(body, dict):
        return
    for key, value in body.items():
        yield from rounding_dependencies(value)
        if key == "predictions" and isinstance(value, list):
            yield from _near_ties("scores", [entry["score"] for entry in value if "score" in entry])
        if key == "boxes" and isinstance(value, list):
            yield from _near_ties("shares", [box["share"] for box in value])
    if body.get("evidence") and body["peak"] < MIN_PEAK:
        yield f"a map has evidence and a peak of {body['peak']}"
    if is_tensor(body) and body["name"] == "score":
        photos, classes = body["shape"]
        for n in range(photos):
            row = body["data"][n * classes : (n + 1) * classes]
            # The row of a photo with fewer classes is padded with zeros.
            yield from _near_ties("scores", [score for score in row if score])


def _near_ties(label: str, values: Sequence[float]) -> Iterator[str]:
    for first, second in pairwise(values):
        if abs(first - second) < MIN_GAP:
            yield f"two {label} are {first} and {second}"


def mask_volatile(description: Any) -> Any:
    """A model's description with a placeholder for each :data:`VOLATILE` value."""
    if isinstance(description, list):
        return [mask_volatile(entry) for entry in description]
    if not isinstance(description, dict):
        return description
    return {
        key: {ANY: type_name(value)} if key in VOLATILE else mask_volatile(value)
        for key, value in description.items()
    }


def record_request(
    name: str, request: Request, server: ReplayClient, reference: ReplayClient
) -> Record | str:
    """The record of a request, or the reason why its reply is rejected.

    Args:
        reference: a server of the same model, computed by other code.
    """
    reply = server.send(request)
    if "description" in name:
        reply = Reply(reply.status, reply.content_type, mask_volatile(reply.body))
    reasons = [*rounding_dependencies(reply.body), *differences(reply, reference.send(request))]
    return f"{name}: {'; '.join(reasons)}" if reasons else Record(name, request, reply)


def update_file(
    file: Path,
    cases: Mapping[str, Request],
    replaced: Sequence[str],
    server: ReplayClient,
    reference: ReplayClient,
) -> tuple[list[str], list[str]]:
    """Send a file's new and replaced requests, and write the file with those that are accepted.

    Returns:
        The names of the new records, and the reasons why the others are rejected.
    """
    recorded = load(file) if file.exists() else []
    requests = requests_to_send(recorded, cases, replaced)
    results = [
        record_request(name, request, server, reference) for name, request in requests.items()
    ]
    new = {result.name: result for result in results if isinstance(result, Record)}
    if new:
        save(file, merge(recorded, new))
    return list(new), [result for result in results if isinstance(result, str)]


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    replace: Annotated[
        list[str] | None, typer.Option(help="A record whose reply is replaced; again for more.")
    ] = None,
) -> None:
    replaced = replace or []
    if unknown := set(replaced) - load_all().keys():
        raise typer.BadParameter(f"no such record: {', '.join(sorted(unknown))}")
    rejected: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as reference_folder,
        golden_server(Path(folder)) as server,
        golden_server(Path(reference_folder), "handler.compile=off") as reference,
    ):
        for name, cases in CASES.items():
            new, reasons = update_file(
                FOLDER / f"{name}.jsonl", cases(), replaced, server, reference
            )
            rejected += reasons
            typer.echo(f"{name}: {', '.join(new) or 'nothing new'}")
    for reason in rejected:
        typer.echo(f"rejected: {reason}", err=True)
    raise typer.Exit(1 if rejected else 0)


if __name__ == "__main__":
    app()
