"""Plant shortcuts in networks that are trained here, and count how many the report finds.

    \b
    python scripts/shortcuts.py                     30 planted and 20 clean sets, in about an hour
    python scripts/shortcuts.py --sets 1 --clean 0 --only corner
    python scripts/shortcuts.py --further --sets 1 --clean 0    marks of other kinds

A set is some thousand pictures of shapes, a small network that is trained on them, and a folder
of 300 further pictures. In a planted set, one class carries a mark on 100%, 90% or 50% of its
pictures.
The network is packaged into an archive, and `camserve report` explains the folder. A mark is found
where a finding names its class and a kind that fits it (scripts/devtools/shortcuts/marks.py says
which); a clean set is accused where there is any finding of a shortcut. Method, limits and results:
docs/shortcuts.md.

Prints a table and writes it to --out, and beside it sets.jsonl, a line for each set. A run that was
stopped goes on with the sets that are not in that file.

Exit status: 0 whatever is found, 1 when a set could not be made.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from devtools.command import run_app
from devtools.errors import OptionError
from devtools.machine import describe_machine, machine_caption
from devtools.shortcuts.benchmark import Scale, run_set
from devtools.shortcuts.judging import SHARES, SetResult, plan_sets, table
from devtools.shortcuts.marks import FURTHER_MARKS, MARKS
from devtools.shortcuts.pictures import CLASSES

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def shortcuts(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/shortcuts"),
    sets: Annotated[int, typer.Option(min=0, help="Sets of each mark and share.")] = 2,
    clean: Annotated[int, typer.Option(min=0, help="Sets without a mark.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="From which the sets' seeds are drawn.")] = 0,
    only: Annotated[str, typer.Option(help="Some marks, with commas between them.")] = "",
    further: Annotated[
        bool, typer.Option("--further", help="The marks that the report was not made for.")
    ] = False,
    share: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, help="Of marked pictures; repeatable. By default 1, 0.9, 0.5."),
    ] = None,
    classes: Annotated[int, typer.Option(min=2, max=len(CLASSES), help="Of each set.")] = 5,
    size: Annotated[int, typer.Option(min=32, help="The side of a picture.")] = 64,
    photos: Annotated[int, typer.Option(min=10, help="In the reported folder.")] = 300,
    workers: Annotated[int, typer.Option(min=1, help="Sets at a time, one core each.")] = 2,
) -> None:
    began = time.monotonic()
    marks = _marks(only, further)
    plans = plan_sets(seed, marks, sets, clean, share or SHARES)
    scale = Scale(classes=classes, size=size, photos=photos)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "sets.jsonl"
    before = log.read_text().splitlines() if log.exists() else []
    results = [one for one in map(SetResult.from_json, before) if one.plan in plans]
    made = [one.plan for one in results]
    pool = ProcessPoolExecutor(workers)
    try:
        for done in as_completed(
            [pool.submit(partial(run_set, plan, scale)) for plan in plans if plan not in made]
        ):
            results.append(done.result())
            with log.open("a") as file:
                file.write(json.dumps(asdict(results[-1])) + "\n")
            typer.echo(f"shortcuts: {len(results)} of {len(plans)}: {results[-1].line()}", err=True)
    finally:
        # Where this ends early, the sets that were begun are the last.
        pool.shutdown(cancel_futures=True)
    minutes = (time.monotonic() - began) / 60
    lines = [
        *table(results),
        "",
        f"Seed {seed}; {machine_caption(describe_machine())}; {minutes:.0f} minutes.",
    ]
    typer.echo("\n".join(lines))
    (out / "table.md").write_text("\n".join(lines) + "\n")


def _marks(only: str, further: bool) -> list[str]:
    """The marks to plant.

    Raises:
        OptionError: there is no such mark.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [*MARKS, *FURTHER_MARKS]
    if unknown := [name for name in names if name not in known]:
        raise OptionError(f"--only {', '.join(unknown)}: accepted are {', '.join(known)}")
    return names or [*(FURTHER_MARKS if further else MARKS)]


def main() -> None:
    run_app(app, "shortcuts")


if __name__ == "__main__":
    main()
