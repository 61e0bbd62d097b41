"""The two plots: throughput and latency against connections, and time against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from devtools.benchmark import in_process, load_rig
from devtools.benchmark.in_process import BatchPoint
from devtools.benchmark.served import LoadPoint

# Okabe and Ito's palette, which is safe for colour blindness; marker and line differ as well.
_LINE_STYLES = {
    load_rig.EXPLAINED: ("#0072B2", "o", "-", "ours, with explanation"),
    load_rig.PLAIN: ("#56B4E9", "s", "--", "ours, without"),
    load_rig.STOCK: ("#D55E00", "^", "-", "stock image_classifier, without"),
    in_process.OURS: ("#0072B2", "o", "-", "ours"),
    in_process.FLOAT32: ("#009E73", "s", "-", "ours, float32 eager"),
    in_process.FORWARD: ("#666666", "D", "--", "forward alone, float32 eager"),
    in_process.PEER: ("#D55E00", "^", "-", "pytorch-grad-cam"),
}
_STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_DPI = 110


def plot_load(points: Sequence[LoadPoint], caption: str, file: Path) -> Path:
    """Throughput, p50 and p99 against the number of connections."""
    panels = (
        ("throughput", "requests/s"),
        ("p50", "median latency, ms"),
        ("p99", "p99 latency, ms"),
    )
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(10.5, 4.2))
        for axis, (attribute, label) in zip(axes, panels, strict=True):
            for peer in dict.fromkeys(point.peer for point in points):
                series = [point for point in points if point.peer == peer]
                x = [point.connections for point in series]
                _line(axis, peer, x, [getattr(point, attribute) for point in series])
            axis.set_xscale("log", base=2)
            _ticks(axis, sorted({point.connections for point in points}))
            axis.set_xlabel("connections")
            axis.set_title(label, loc="left", fontsize=11)
            if attribute == "throughput":
                axis.set_ylim(bottom=0)
            else:
                _logarithmic(axis)
        return _finish(figure, axes[0], caption, file)


def plot_batches(points: Sequence[BatchPoint], caption: str, file: Path) -> Path:
    """The time of predictions and maps against the batch size: median, minimum and maximum."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(8, 4.8))
        for peer in dict.fromkeys(point.peer for point in points):
            series = [point for point in points if point.peer == peer]
            x = [point.size for point in series]
            _line(axis, peer, x, [point.time.median for point in series])
            low, high = ([getattr(p.time, end) for p in series] for end in ("low", "high"))
            axis.fill_between(x, low, high, color=_LINE_STYLES[peer][0], alpha=0.15, linewidth=0)
        _logarithmic(axis)
        _ticks(axis, sorted({point.size for point in points}))
        axis.set_xlabel("photos in a batch")
        axis.set_title("predictions and maps, ms a batch", loc="left", fontsize=11)
        return _finish(figure, axis, caption, file)


def _line(axis: Axes, peer: str, x: Sequence[float], y: Sequence[float]) -> None:
    colour, marker, line, label = _LINE_STYLES[peer]
    axis.plot(x, y, color=colour, marker=marker, linestyle=line, label=label, markersize=5)


def _ticks(axis: Axes, values: Sequence[int]) -> None:
    axis.xaxis.set_major_locator(FixedLocator(values))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _logarithmic(axis: Axes) -> None:
    """A logarithmic vertical axis with its numbers written out."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _finish(figure: Figure, axis: Axes, caption: str, file: Path) -> Path:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=min(len(labels), 4), fontsize=10)
    figure.text(0.01, 0.012, caption, fontsize=8.5, color="#444444")
    figure.tight_layout(rect=(0, 0.04, 1, 0.92))
    figure.savefig(file, dpi=_DPI)
    plt.close(figure)
    return file
