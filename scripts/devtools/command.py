"""What the command lines of the scripts share: signals, errors, the width of tables."""

from __future__ import annotations

import signal
import sys

import typer
from rich.console import Console

from devtools.errors import DevtoolsError


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line; an error is printed as ``name: message`` and ends it with status 1."""
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        app()
    except DevtoolsError as error:
        typer.echo(f"{name}: {error}", err=True)
        sys.exit(1)


def exit_on_signal(number: int, frame: object) -> None:
    """A signal handler that unwinds the stack as an error would, so that servers are stopped."""
    sys.exit(128 + number)


def table_console(width: int) -> Console:
    """A console for standard output, ``width`` columns wide where that is no terminal."""
    return Console(width=None if sys.stdout.isatty() else width)
