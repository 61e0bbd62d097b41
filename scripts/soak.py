"""Fuzz a server: send it broken requests, and valid ones among them.

    \b
    python scripts/soak.py fuzz --requests 5000 --seed 1    broken requests of all kinds
    python scripts/soak.py fuzz --seed 1 --only 1234        one of them again
    python scripts/soak.py fuzz --edge                      through deploy/envoy.yaml
    python scripts/soak.py fuzz --front                     to the Open Inference front
    python scripts/soak.py soak --minutes 20                a mixed load, memory sampled

It starts a server of its own with one archive (the first of model_store, or --archive), and stops
it at the end. Every answer must be correct: no 5xx, a body that is valid by docs/reply.schema.json,
and for a valid photo that photo's own pixels. No worker may end; under soak, memory may not grow.

Prints a table and writes fuzz.json, or soak.json and soak.png, to --out. Each request that was
answered wrong is written to a file of its own. It needs what scripts/setup.sh --dev installs.

Exit status: 0 where all of that holds, 1 where it does not; the last line says what failed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from devtools.command import run_app, table_console
from devtools.errors import OptionError, SetupError
from devtools.fuzzing.behind_edge import behind_edge
from devtools.fuzzing.front_calls import generate_front_call
from devtools.fuzzing.generators import generate_call
from devtools.fuzzing.photos import CLASS_COLORS, valid_photo
from devtools.fuzzing.process_memory import MemorySampler, java_growth, worker_growth
from devtools.fuzzing.report import FuzzReport, plot_memory
from devtools.fuzzing.results import FuzzResults
from devtools.fuzzing.server_target import ServerTarget
from devtools.fuzzing.traffic import send_calls
from devtools.machine import describe_machine, machine_caption
from devtools.paths import ROOT
from devtools.servers import ServerUnderTest, camserve_server

#: Columns of the table where standard output is no terminal.
WIDTH = 160

app = typer.Typer(
    add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False
)
Archive = Annotated[Path | None, typer.Option(help="The archive; the first of model_store.")]
Out = Annotated[Path, typer.Option(help="Folder for JSON, plot and requests answered wrong.")]
Seed = Annotated[int, typer.Option(min=0, help="Selects the requests.")]
Connections = Annotated[int, typer.Option(min=1, help="Number of requests in flight.")]
Edge = Annotated[bool, typer.Option("--edge", help="Send through deploy/envoy.yaml.")]
Front = Annotated[
    bool,
    typer.Option("--front", help="Send to the server's Open Inference front; not with --edge."),
]


def _archive(given: Path | None) -> Path:
    """The archive to serve.

    Raises:
        SetupError: there is none.
    """
    archives = [given] if given else sorted((ROOT / "model_store").glob("*.mar"))
    if not archives or not archives[0].is_file():
        raise SetupError(f"no archive {given or 'in model_store'}; `camserve package` builds one")
    return archives[0].resolve()


def _run(
    name: str,
    archive: Path | None,
    out: Path,
    seed: int,
    connections: int,
    *,
    indices: Iterable[int] | None = None,
    seconds: float | None = None,
    valid_share: float = 0.25,
    edge: bool = False,
    front: bool = False,
) -> None:
    """Start the server, send calls, judge the answers, report, and exit with 1 on a failure."""
    if edge and front:
        raise OptionError("--edge and --front: accepted is one of them")
    archive = _archive(archive)
    options: dict[str, Any] = {
        "archive": archive.name, "seed": seed, "connections": connections, "good": valid_share,
        "seconds": seconds, "edge": edge, "front": front,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        scratch = Path(folder)
        photo = scratch / "photo.png"
        photo.write_bytes(valid_photo(0)[0])
        with ExitStack() as running:
            server = running.enter_context(
                camserve_server(archive, photo, scratch / "server", open_inference=front)
            )
            run_dir = scratch / "server" / "run"
            target = _target(server, run_dir)
            options["predicts_color"] = target.predicts_color
            if front:
                target = target.front(run_dir)
            elif edge:
                target = running.enter_context(behind_edge(target, run_dir, scratch))
            results, sampler = FuzzResults(seed, out), MemorySampler(server.pid)
            took = send_calls(
                target, results, connections=connections, indices=indices, seconds=seconds,
                valid_share=valid_share, on_interval=sampler.sample,
            )  # fmt: skip
    machine = describe_machine()
    samples = sampler.samples
    report = FuzzReport(
        options, machine, took, results, sampler.worker_deaths, samples,
        worker_growth(samples), java_growth(samples),
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    report.show(table_console(WIDTH))
    written = [report.write(out / f"{name}.json")]
    if name == "soak" and samples:
        caption = f"{archive.name} on {machine_caption(machine)}"
        written.append(plot_memory(samples, caption, out / "soak.png"))
    typer.echo(f"written: {', '.join(map(str, written))}")
    raise typer.Exit(1 if report.failures else 0)


def _target(server: ServerUnderTest, run_dir: Path) -> ServerTarget:
    token = server.headers["Authorization"].removeprefix("Bearer ")
    predicts_color = list(server.classes) == list(CLASS_COLORS)
    return ServerTarget.from_run_dir(run_dir, token, server.model, predicts_color=predicts_color)


@app.command()
def fuzz(
    requests: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 5000,
    seed: Seed = 1,
    only: Annotated[
        int | None, typer.Option(min=0, help="Index of the one request to send.")
    ] = None,
    archive: Archive = None,
    connections: Connections = 4,
    out: Out = Path("out/fuzz"),
    edge: Edge = False,
    front: Front = False,
) -> None:
    """Broken requests of all kinds over all protocols; a quarter of them are valid."""
    generate = generate_front_call if front else generate_call
    if only is not None:
        call = generate(seed, only, "ours")
        typer.echo(f"index {only}: {call.kind}, {call.method} {call.target[:200]}", err=True)
    indices = range(requests) if only is None else [only]
    # One that must succeed shows, even after a single broken request, that the server is alive.
    valid = next(
        n for n in range(requests, requests + 1000) if generate(seed, n, "ours").must_succeed
    )
    _run("fuzz", archive, out, seed, connections, indices=[*indices, valid], edge=edge, front=front)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="Duration.")] = 20,
    seed: Seed = 1,
    archive: Archive = None,
    connections: Connections = 6,
    out: Out = Path("out/soak"),
    edge: Edge = False,
    front: Front = False,
) -> None:
    """A mixed load: three quarters of the photos are valid."""
    _run(
        "soak", archive, out, seed, connections, seconds=minutes * 60, valid_share=0.75, edge=edge,
        front=front,
    )  # fmt: skip


def main() -> None:
    run_app(app, "soak")


if __name__ == "__main__":
    main()
