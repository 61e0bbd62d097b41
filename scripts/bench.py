"""Measure how fast an explanation is, beside what else gives a prediction or an explanation.

    \b
    python scripts/bench.py                        everything, in about half an hour
    python scripts/bench.py --quick                a smoke run of a small network, in about a minute
    python scripts/bench.py --only T1,T5 --seconds 5 --repeat 2
    python scripts/bench.py --set handler.precision=bfloat16

Every peer runs the same seeded network on this machine, in turn with the others, and every target
is a ratio of two of them: T1 to T4 and T7 through two TorchServes (ours, and the stock
image_classifier), T5 and T6 in process (pytorch-grad-cam, Captum; Pillow and torchvision). Besides
T1 to T7, --only knows profile, where one request's time goes, connections and batches, the two
curves, and workers: one worker of as many threads as there are cores, beside a worker of one thread
for each of them.

Prints a table and writes bench.json, throughput.png and batch.png to --out. It needs what
scripts/setup.sh --dev installs, and a machine that does nothing else: what other processes used is
told with the results.

Exit status: 0 whether targets are met or not, 1 when a peer could not be set up.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmark import (
    inprocess,
    machine,
    networks,
    photos,
    plots,
    profile,
    scaling,
    servers,
    through,
)
from benchmark.load import LoadError
from benchmark.networks import SetupError, Weights
from benchmark.report import Report
from benchmark.rig import Journal, Plan, Rig
from camserve_cli.paths import ROOT

IN_PROCESS = ("T5", "T6", "batches")
THROUGH_SERVERS = ("T1", "T2", "T3", "T4", "T7", "profile", "connections")
WORKERS = ("workers",)
#: A window in process is so much shorter than one through a server: nothing queues there.
SHORTER = 5
#: What a table is wide where no terminal says it.
WIDTH = 170
QUICK = Plan(
    repeat=2, seconds=0.6, warmup=0.2, gradients=1, soak=30,
    connections=(1, 4), sizes=(1, 4), delays=(10,),
)  # fmt: skip
FULL = Plan(
    repeat=5, seconds=10, warmup=2, gradients=4, soak=10_000,
    connections=(1, 2, 4, 8, 16, 32), sizes=tuple(range(1, 9)), delays=(1, 10, 20, 50),
)  # fmt: skip

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class BenchError(Exception):
    """What keeps a measurement from beginning, in words for the person who starts it."""


def say(what: str) -> None:
    typer.echo(f"bench: {what}", err=True)


def in_process(
    report: Report, chosen: set[str], archive: Path, weights: Weights, plan: Plan
) -> None:
    """T5, T6 and the curve over the batch size."""
    meter, scratch, seconds = machine.Meter(), archive.parent, plan.seconds / SHORTER
    unpacked = networks.unpacked(archive, scratch / "unpacked")
    small = photos.small(scratch).read_bytes()
    peers = inprocess.Compared(unpacked, weights.build(), small)
    if "T5" in chosen:
        say("T5: predictions and maps of a batch, in process")
        report.results += inprocess.explanations(peers, plan.repeat, seconds)
    if "T6" in chosen:
        say("T6: a photo of 12 megapixels, in process")
        for kind, grain in photos.GRAINS.items():
            large = photos.large(scratch, grain).read_bytes()
            report.results.append(inprocess.decoding(peers.ours, kind, large, plan.repeat, seconds))
    if "batches" in chosen:
        say("time against batch size, in process")
        report.batches += inprocess.batches(peers, plan.sizes, plan.repeat, seconds)
    report.journal.others.append(meter.cores()["others"])


def through_servers(
    report: Report, chosen: set[str], archive: Path, weights: Weights, plan: Plan, workers: str
) -> None:
    """T1 to T4, T7 and the curve over the connections."""
    scratch = archive.parent
    photo = photos.small(scratch)
    peer = networks.stock(weights, scratch / "stock", scratch)

    def rig(*sides: servers.Side) -> Rig:
        return Rig(sides, photo, plan, report.journal, say)

    chosen_archives = []
    for name, start, given, delays in (
        ("ours", partial(servers.ours, workers=workers), archive, plan.our_delays),
        ("stock", servers.stock, peer, plan.delays),
    ):
        best, delay, tried = through.best_delay(
            start, given, delays, rig, scratch / "trials", photo
        )
        report.delays[name], report.tried[name] = delay, tried
        chosen_archives.append((start, best, scratch / "servers" / name))
    if "T3" in chosen:
        # Alone, a request is best served by whoever waits least for others.
        with ExitStack() as running:
            start, best, folder = chosen_archives[0]
            first = running.enter_context(start(best, photo, folder / "alone"))
            quick = networks.delayed(peer, min(plan.delays))
            other = servers.stock(quick, photo, scratch / "servers" / "stock" / "alone")
            alone = rig(first, running.enter_context(other))
            report.results += through.compare(alone, {"T3"})
    with ExitStack() as running:
        sides = []
        for start, best, folder in chosen_archives:
            say(f"starting the {folder.name} server")
            sides.append(running.enter_context(start(best, photo, folder / "loaded")))
        both = rig(*sides)
        report.served = both.sides["ours"].described
        report.results += through.compare(both, chosen - {"T3"})
        if "connections" in chosen:
            report.points += through.curves(both)
        if "profile" in chosen:
            report.profile = profile.profile(both)
        if "T7" in chosen:
            report.growth = through.soak(both)
            report.results.append(through.flatness(report.growth))
        if "T2" in chosen:
            report.results.append(through.gradients(both))


@app.command(help=__doc__)
def bench(
    out: Annotated[Path, typer.Option(help="Where table, JSON and plots go.")] = Path("out/bench"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run, whose figures mean nothing.")
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option(help="A torchvision classifier; by default resnet50, or a small one."),
    ] = None,
    only: Annotated[
        str, typer.Option(help=f"Some of {','.join((*THROUGH_SERVERS, *IN_PROCESS, *WORKERS))}.")
    ] = "",
    repeat: Annotated[int | None, typer.Option(min=1, help="Repetitions.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help=f"Of each window; in process, a {SHORTER}th of it."),
    ] = None,
    soak_requests: Annotated[
        int | None, typer.Option(min=1, help="Over which the worker's memory is watched.")
    ] = None,
    delays: Annotated[
        str | None,
        typer.Option(help="maxBatchDelay in ms that the stock server is tried with, as 1,10,50."),
    ] = None,
    our_delays: Annotated[
        str | None, typer.Option(help="The same for ours; by default it keeps its own.")
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="auto|N", help="Our workers, as serve.sh start has it.")
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of our model-config.yaml, as for package.py."),
    ] = None,
) -> None:
    changes = {
        "repeat": repeat,
        "seconds": seconds,
        "soak": soak_requests,
        "delays": _numbers("--delays", delays),
        "our_delays": _numbers("--our-delays", our_delays),
    }
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    plan = replace(QUICK if quick else FULL, **given)
    arch = arch or ("mobilenet_v3_small" if quick else "resnet50")
    chosen = _parts(only)
    settings = settings or []
    report = Report(
        machine.describe(ROOT),
        {
            "quick": quick, "arch": arch, "only": sorted(chosen), "set": settings,
            "workers": workers, **asdict(plan),
        },
        Journal(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        say(f"packaging {arch} with seeded weights")
        weights = networks.seeded(arch, scratch)
        archive = networks.ours(weights, settings, scratch)
        if chosen & {*IN_PROCESS}:
            in_process(report, chosen, archive, weights, plan)
        if chosen & {*THROUGH_SERVERS}:
            through_servers(report, chosen, archive, weights, plan, workers)
        if chosen & {*WORKERS}:
            report.results += scaling.compare(archive, plan, report.journal, say)
    out.mkdir(parents=True, exist_ok=True)
    written = [report.write(out)]
    caption = f"{arch} on {machine.caption(report.machine)}"
    if report.points:
        written.append(plots.throughput(report.points, caption, out / "throughput.png"))
    if report.batches:
        written.append(plots.batch(report.batches, caption, out / "batch.png"))
    report.show(Console(width=None if sys.stdout.isatty() else WIDTH))
    typer.echo(f"written: {', '.join(map(str, written))}")


def _parts(only: str) -> set[str]:
    """What is to be measured; everything by default."""
    known = {*THROUGH_SERVERS, *IN_PROCESS, *WORKERS}
    named = {part.strip() for part in only.split(",") if part.strip()}
    if wrong := named - known:
        raise BenchError(
            f"--only {','.join(sorted(wrong))}: accepted are {', '.join(sorted(known))}"
        )
    return named or known


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise BenchError(f"{option} {text!r}: accepted are whole numbers and commas") from None


def main() -> None:
    signal.signal(signal.SIGTERM, servers.ended)
    try:
        app()
    except (BenchError, SetupError, LoadError) as error:
        typer.echo(f"bench: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
