"""Send a server what it must bear: broken requests, and good ones among them.

    \b
    python scripts/soak.py fuzz --requests 5000 --seed 1    broken requests of every kind
    python scripts/soak.py fuzz --seed 1 --only 1234        one of them again
    python scripts/soak.py fuzz --edge                      through deploy/envoy.yaml
    python scripts/soak.py soak --minutes 20                a mixed load, memory watched

It starts a server of its own with one archive (the first of model_store, or --archive), and stops
it. Every answer must be sound: no 5xx, a body that docs/reply.schema.json describes, and for a
good photo that photo's own pixels. No worker may end; under soak, memory may not grow.

Prints a table and writes fuzz.json, or soak.json and soak.png, to --out, and each request that was
answered wrong into a file of its own. It needs what scripts/setup.sh --dev installs.

Exit status: 0 where all of that holds, 1 where not, which it says.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmark import machine
from benchmark.networks import SetupError
from benchmark.servers import Side, ended, ours
from camserve_cli.paths import ROOT
from soaking import behind, photos
from soaking.calls import Call
from soaking.cases import call as case
from soaking.report import Report, plot
from soaking.target import Target
from soaking.traffic import Tally, drive
from soaking.vitals import Watch, growth, java_growth

app = typer.Typer(
    add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False
)
Archive = Annotated[Path | None, typer.Option(help="The archive; the first of model_store.")]
Out = Annotated[Path, typer.Option(help="Where table, JSON, plot and wrong answers go.")]
Seed = Annotated[int, typer.Option(min=0, help="Which requests.")]
Connections = Annotated[int, typer.Option(min=1, help="Requests under way at once.")]
Edge = Annotated[bool, typer.Option("--edge", help="Through deploy/envoy.yaml, as the public.")]


def _archive(given: Path | None) -> Path:
    """The archive to serve.

    Raises:
        SetupError: there is none.
    """
    found = [given] if given else sorted((ROOT / "model_store").glob("*.mar"))
    if not found or not found[0].is_file():
        raise SetupError(f"no archive {given or 'in model_store'}; build one with package.py")
    return found[0].resolve()


def _run(
    name: str,
    archive: Path | None,
    out: Path,
    seed: int,
    connections: int,
    *,
    indices: Iterable[int] | None = None,
    seconds: float | None = None,
    good: float = 0.25,
    edge: bool = False,
) -> None:
    """Start the server, send, judge, report, and exit with 1 where it failed."""
    chosen = _archive(archive)
    options: dict[str, Any] = {
        "archive": chosen.name, "seed": seed, "connections": connections, "good": good,
        "seconds": seconds, "edge": edge,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        scratch = Path(folder)
        photo = scratch / "photo.png"
        photo.write_bytes(photos.good(0)[0])
        with ExitStack() as open_ones:
            side = open_ones.enter_context(ours(chosen, photo, scratch / "server"))
            run_dir = scratch / "server" / "run"
            target = _target(side, run_dir / "server.json")
            if edge:
                target = open_ones.enter_context(behind.edge(target, run_dir, scratch))
            tally, watch = Tally(seed, out), Watch(side.pid)
            took = drive(
                target, tally, connections=connections, indices=indices, seconds=seconds,
                good=good, tick=watch,
            )  # fmt: skip
    about = machine.describe(ROOT)
    watched = watch.samples
    grown = growth(watched), java_growth(watched)
    report = Report(options, about, took, tally, watch.deaths, watched, *grown)
    out.mkdir(parents=True, exist_ok=True)
    report.show(Console(width=None if sys.stdout.isatty() else 160))
    written = [report.write(out / f"{name}.json")]
    if name == "soak" and watched:
        caption = f"{chosen.name} on {machine.caption(about)}"
        written.append(plot(watched, caption, out / "soak.png"))
    typer.echo(f"written: {', '.join(map(str, written))}")
    raise typer.Exit(1 if report.failures else 0)


def _target(side: Side, record: Path) -> Target:
    address = str(json.loads(record.read_text())["grpc"])
    token = side.headers["Authorization"].removeprefix("Bearer ")
    labels = side.described.get("classes", side.described.get("labels", []))
    colours = list(labels) == list(photos.COLOURS) if isinstance(labels, list) else False
    return Target(side.base, address, token, side.pid, side.model, colours)


@app.command()
def fuzz(
    requests: Annotated[int, typer.Option(min=1, help="How many.")] = 5000,
    seed: Seed = 1,
    only: Annotated[int | None, typer.Option(min=0, help="One of them, by its index.")] = None,
    archive: Archive = None,
    connections: Connections = 4,
    out: Out = Path("out/fuzz"),
    edge: Edge = False,
) -> None:
    """Broken requests of every kind by every way, a quarter of good ones among them."""
    if only is not None:
        call: Call = case(seed, only, "ours")
        typer.echo(f"index {only}: {call.family}, {call.method} {call.target[:200]}", err=True)
    indices = range(requests) if only is None else [only]
    # One that must be answered, so that one request alone tells, too, whether the server lives.
    good = next(n for n in range(requests, requests + 1000) if case(seed, n, "ours").digest)
    _run("fuzz", archive, out, seed, connections, indices=[*indices, good], edge=edge)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 20,
    seed: Seed = 1,
    archive: Archive = None,
    connections: Connections = 6,
    out: Out = Path("out/soak"),
    edge: Edge = False,
) -> None:
    """A mixed load: three of four photos are good."""
    _run("soak", archive, out, seed, connections, seconds=minutes * 60, good=0.75, edge=edge)


def main() -> None:
    signal.signal(signal.SIGTERM, ended)
    try:
        app()
    except SetupError as error:
        typer.echo(f"soak: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
