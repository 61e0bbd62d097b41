"""Record requests of ``cases`` that have no record yet, by servers that it starts for that.

    \b
    python -m tests.golden.record
    python -m tests.golden.record --replace NAME --replace NAME

A record that exists stays as it is, unless it is named: then its request is sent again, byte for
byte, and its reply replaced. A reply that hangs on rounding is refused, since another machine would
not give it.
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
from tests.golden.replay import Wire
from tests.golden.server import serving

#: The keys of a model's description whose values depend on versions, machine or moment, or are text
#: for people.
VOLATILE = (
    "workers", "jobQueueStatus", "versions", "threads", "compiled", "not_faster_because",
    "description", "title",
)  # fmt: skip
#: Two scores, or the shares of two boxes, that are nearer may change places on another machine.
LEAST_GAP = 1e-3
#: Where a map's maximum is lower, it may be rounding and nothing else.
LEAST_PEAK = 1e-3


def pending(
    recorded: Sequence[Record], cases: Mapping[str, Request], replaced: Sequence[str]
) -> dict[str, Request]:
    """The requests to send, by name: those without a record, and those to be replaced."""
    known = {record.name: record.request for record in recorded}
    again = {name: request for name, request in known.items() if name in replaced}
    return again | {name: request for name, request in cases.items() if name not in known}


def merged(recorded: Sequence[Record], made: Mapping[str, Record]) -> list[Record]:
    """The records of a file in their order, with the new ones in their places or at the end."""
    names = {record.name for record in recorded}
    return [made.get(record.name, record) for record in recorded] + [
        record for name, record in made.items() if name not in names
    ]


def unstable(body: Any) -> Iterator[str]:
    """What in a reply hangs on rounding: near-ties, and maps that may be nothing but rounding."""
    if isinstance(body, list):
        for entry in body:
            yield from unstable(entry)
    if not isinstance(body, dict):
        return
    for key, value in body.items():
        yield from unstable(value)
        if key == "predictions" and isinstance(value, list):
            yield from _near_ties("scores", [one["score"] for one in value if "score" in one])
        if key == "boxes" and isinstance(value, list):
            yield from _near_ties("shares", [one["share"] for one in value])
    if body.get("evidence") and body["peak"] < LEAST_PEAK:
        yield f"a map has evidence and a peak of {body['peak']}"
    if is_tensor(body) and body["name"] == "score":
        photos, classes = body["shape"]
        for n in range(photos):
            row = body["data"][n * classes : (n + 1) * classes]
            # Zeros fill the row of a photo with fewer classes up.
            yield from _near_ties("scores", [score for score in row if score])


def _near_ties(what: str, values: Sequence[float]) -> Iterator[str]:
    for one, other in pairwise(values):
        if abs(one - other) < LEAST_GAP:
            yield f"two {what} are {one} and {other}"


def masked(description: Any) -> Any:
    """A model's description with a mark in the place of each :data:`VOLATILE` value."""
    if isinstance(description, list):
        return [masked(entry) for entry in description]
    if not isinstance(description, dict):
        return description
    return {
        key: {ANY: type_name(value)} if key in VOLATILE else masked(value)
        for key, value in description.items()
    }


def make(name: str, request: Request, wire: Wire, other: Wire) -> Record | str:
    """The record of a request, or the reason why its reply is refused.

    Args:
        other: serves the same model, computed by other code.
    """
    reply = wire.send(request)
    if "description" in name:
        reply = Reply(reply.status, reply.content_type, masked(reply.body))
    reasons = [*unstable(reply.body), *differences(reply, other.send(request))]
    return f"{name}: {'; '.join(reasons)}" if reasons else Record(name, request, reply)


def complete(
    file: Path, cases: Mapping[str, Request], replaced: Sequence[str], wire: Wire, other: Wire
) -> tuple[list[str], list[str]]:
    """Send what is pending for a file and write it anew, with the replies that are not refused.

    Returns:
        The names of the records made, and the reasons for those that are not.
    """
    recorded = load(file) if file.exists() else []
    requests = pending(recorded, cases, replaced)
    results = [make(name, request, wire, other) for name, request in requests.items()]
    made = {result.name: result for result in results if isinstance(result, Record)}
    if made:
        save(file, merged(recorded, made))
    return list(made), [result for result in results if isinstance(result, str)]


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
    refused: list[str] = []
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        serving(Path(one)) as wire,
        serving(Path(two), "handler.compile=off") as other,
    ):
        for name, cases in CASES.items():
            made, reasons = complete(FOLDER / f"{name}.jsonl", cases(), replaced, wire, other)
            refused += reasons
            typer.echo(f"{name}: {', '.join(made) or 'nothing new'}")
    for reason in refused:
        typer.echo(f"refused: {reason}", err=True)
    raise typer.Exit(1 if refused else 0)


if __name__ == "__main__":
    app()
