"""Measure how fast explanations are, compared with other libraries and with stock TorchServe.

    \b
    python scripts/bench.py                        everything, in about half an hour
    python scripts/bench.py --quick                a smoke run of a small network, in about a minute
    python scripts/bench.py --only T1,T5 --seconds 5 --repeat 2
    python scripts/bench.py --set handler.precision=bfloat16

Every peer runs the same network of random weights on this machine, in turn with the others: a
ResNet50, and for T5 a ViT-B/16 and a Swin-T as well. Every target is a ratio of two peers: T1 to T4
and T7 through two TorchServes (ours, and the stock image_classifier), T5, T6 and T8 in process
(pytorch-grad-cam, Captum; Pillow and torchvision; Quantus, in an environment of its own). --only
also accepts profile (the time of each stage of a request), connections and batches (the two
curves), workers (one worker with a thread for each core, compared with one worker of one thread for
each core), and open_inference (what the Open Inference front costs a request).

Prints a table and writes bench.json, throughput.png and batch.png to --out. It needs what
scripts/setup.sh --dev installs, and a machine that does nothing else. The results say how much
processor time other processes used.

Exit status: 0 whether targets are met or not, 1 when a peer could not be set up.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from devtools.benchmark.archives import camserve_archive, seeded_weights
from devtools.benchmark.load_rig import RunNotes
from devtools.benchmark.plan import FULL, QUICK
from devtools.benchmark.plots import plot_batches, plot_load
from devtools.benchmark.report import BenchReport
from devtools.benchmark.suite import IN_PROCESS_FACTOR, PARTS, Suite
from devtools.command import run_app, table_console
from devtools.errors import OptionError
from devtools.machine import describe_machine, machine_caption

#: Columns of the table where standard output is no terminal.
WIDTH = 170

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def bench(
    out: Annotated[Path, typer.Option(help="Folder for JSON and plots.")] = Path("out/bench"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run; its figures mean nothing.")
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option(help="A torchvision classifier; by default resnet50, or a small one."),
    ] = None,
    only: Annotated[str, typer.Option(help=f"Some of {','.join(PARTS)}.")] = "",
    repeat: Annotated[int | None, typer.Option(min=1, help="Repetitions.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help=f"Of each window; in process, 1/{IN_PROCESS_FACTOR} of it."),
    ] = None,
    soak_requests: Annotated[
        int | None, typer.Option(min=1, help="Number of requests over which memory is sampled.")
    ] = None,
    transformers: Annotated[
        str | None, typer.Option(help="Further networks of T5; by default vit_b_16,swin_t.")
    ] = None,
    delays: Annotated[
        str | None,
        typer.Option(help="maxBatchDelay in ms to try with the stock server, as 1,10,50."),
    ] = None,
    our_delays: Annotated[
        str | None, typer.Option(help="The same for ours; by default its own.")
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="auto|N", help="Workers of our server, as for serve.sh start.")
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, as of `camserve package`, for our archive."),
    ] = None,
) -> None:
    changes = {
        "repeat": repeat,
        "seconds": seconds,
        "soak": soak_requests,
        "delays": _numbers("--delays", delays),
        "transformers": None if transformers is None else _names(transformers),
        "our_delays": _numbers("--our-delays", our_delays),
    }
    chosen: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    plan = replace(QUICK if quick else FULL, **chosen)
    arch = arch or ("mobilenet_v3_small" if quick else "resnet50")
    parts = _parts(only)
    settings = settings or []
    report = BenchReport(
        describe_machine(),
        {
            "quick": quick, "arch": arch, "only": sorted(parts), "set": settings,
            "workers": workers, **asdict(plan),
        },
        RunNotes(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        _log(f"packaging {arch} with seeded weights")
        weights = seeded_weights(arch, scratch)
        archive = camserve_archive(weights, settings, scratch)
        Suite(report, archive, weights, settings, plan, workers, _log).run(parts)
    out.mkdir(parents=True, exist_ok=True)
    written = [report.write(out)]
    caption = f"{arch} on {machine_caption(report.machine)}"
    if report.points:
        written.append(plot_load(report.points, caption, out / "throughput.png"))
    if report.batches:
        written.append(plot_batches(report.batches, caption, out / "batch.png"))
    report.show(table_console(WIDTH))
    typer.echo(f"written: {', '.join(map(str, written))}")


def _log(line: str) -> None:
    typer.echo(f"bench: {line}", err=True)


def _parts(only: str) -> set[str]:
    """The parts to measure; all of them by default."""
    parts = {*_names(only)}
    if unknown := parts - {*PARTS}:
        raise OptionError(
            f"--only {','.join(sorted(unknown))}: accepted are {', '.join(sorted(PARTS))}"
        )
    return parts or {*PARTS}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise OptionError(f"{option} {text!r}: accepted are whole numbers and commas") from None


def main() -> None:
    run_app(app, "bench")


if __name__ == "__main__":
    main()
