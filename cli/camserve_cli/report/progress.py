"""How far a report is, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def progress_bar(console: Console, title: str, *columns: ProgressColumn) -> Progress:
    """A bar with the time that is left; nothing where nobody looks.

    Args:
        console: to show it on.
        title: what is done.
        columns: to stand between the bar and the time.
    """
    return Progress(
        TextColumn(title),
        BarColumn(),
        *columns,
        TextColumn("time left:"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
