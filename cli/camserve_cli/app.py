"""The table of sub-commands, and the one place where their errors are reported."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from camserve_cli.arguments import check_not_empty
from camserve_cli.errors import CommandError
from camserve_cli.terminal import printable

#: Panel -> command -> (what it does, in one line; the module whose ``app`` it is).
COMMANDS = {
    "Start here": {
        "quickstart": ("Package a model, serve it and explain two photos.", "quickstart"),
    },
    "Make a model archive": {
        "package": ("Build an archive: handler, weights and labels in one file.", "package"),
    },
    "Serve it": {
        "serve": ("TorchServe on this machine: start, stop, status, token.", "serve"),
        "ready": ("Whether models answer, by exit status, for a probe.", ""),
        "certificate": ("Make a certificate for TLS.", "certificate"),
        "edge": ("Run Envoy between the server and the public.", "edge"),
    },
    "Call it": {
        "explain": ("Explain photos: an overlay for each explanation.", "explain"),
        "verify": ("Make an explanation anew from its record, and compare.", "verify"),
    },
    "Look at it": {
        "report": ("What a model gets wrong on a folder, and what it looks at.", "report"),
    },
}


class LazyGroup(TyperGroup):
    """Lists every command without importing any, and imports the one that is called.

    ``camserve --help`` stays fast: packaging imports torch, serving gRPC and cryptography.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, commands in COMMANDS.items():
            for name, (summary, _) in commands.items():
                self.add_command(TyperCommand(name, help=summary, rich_help_panel=panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest


def _load(name: str) -> Any:
    """A command, from its own module."""
    modules = {name: module for part in COMMANDS.values() for name, (_, module) in part.items()}
    command = typer.main.get_command(
        importlib.import_module(f"camserve_cli.commands.{modules[name]}").app
    )
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"camserve {version('camserve')}")
        raise typer.Exit


@app.callback(
    help="Predictions with their Grad-CAM explanations, served by TorchServe.",
    epilog="camserve COMMAND --help has the options of a command, and examples.",
)
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and exit."
        ),
    ] = False,
) -> None: ...


def _exit_by_signal(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def run(arguments: Sequence[str]) -> NoReturn:
    """Run a command, and end this process with its exit status.

    What a command raises ends it with one line on stderr, never with a traceback.
    """
    status = 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C does, they end a command by an exception, so that it clears away what it began.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit_by_signal)
    try:
        check_not_empty(arguments)
        app(arguments, prog_name="camserve")
    except CommandError as error:
        message, status = str(error), error.exit_status
    except OSError as failure:
        # A folder that cannot be written, a full disk, a name that is too long.
        message = str(failure)[:300]
    except Exception as failure:
        from camserve.errors import SettingsError, describe_exception

        # What somebody else's code, file or value leads to and nobody foresaw.
        message = (
            str(failure) if isinstance(failure, SettingsError) else describe_exception(failure)
        )
    typer.echo(f"{arguments[0]}: {printable(message, keep_lines=True)}", err=True)
    sys.exit(status)
