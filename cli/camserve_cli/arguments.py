"""Arguments that several commands have, and what they check of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from camserve_cli.errors import CommandError

# The options of a command that calls a server.
Authorities = Annotated[
    Path | None,
    typer.Option(help="The authorities to trust, in PEM; for HTTPS the system's by default."),
]
ServerToken = Annotated[
    str | None,
    typer.Option(envvar="CAMSERVE_TOKEN", help="By default that of the server started here."),
]
RequestTimeout = Annotated[float, typer.Option(help="Seconds that a request may take.")]

#: Of a model or a version: they stand in URLs and in file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ArgumentError(CommandError):
    """An argument is not accepted."""


class EmptyArgumentError(ArgumentError):
    """An argument is empty."""

    # As typer's own errors of the command line.
    exit_status = 2


def is_name(value: str) -> bool:
    """Whether it can be the name of a model or a version."""
    return _NAME.fullmatch(value) is not None


def check_name(option: str, value: str) -> None:
    """Refuse what cannot be the name of a model or a version.

    Raises:
        ArgumentError: it cannot.
    """
    if not is_name(value):
        # Not at the top: ``camserve --help`` imports nothing of the handler.
        from camserve.errors import short_repr

        raise ArgumentError(
            f"{option} {short_repr(value)}: accepted are up to 100 letters, digits, '.', '_' and "
            "'-', a letter or a digit first"
        )


def key_values(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    """The values of a repeatable option KEY=VALUE, by key.

    Args:
        option: its name.
        given: in the order of the command line.
        example: what an error shows as accepted.

    Raises:
        ArgumentError: one is not KEY=VALUE, or a key has two values.
    """
    values: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ArgumentError(f"{option} {pair[:100]}: accepted is KEY=VALUE, as {example}")
        if values.setdefault(name, value) != value:
            raise ArgumentError(
                f"{option} {name} is given twice, as {values[name]!r} and {value!r}; accepted: once"
            )
    return values


def check_not_empty(arguments: Sequence[str]) -> None:
    """Refuse empty arguments, which a shell makes of variables that are not set.

    An empty path would be the current folder, an empty address the server that runs here.

    Raises:
        EmptyArgumentError: there is one; the message names its option.
    """
    for before, argument in pairwise(["", *arguments]):
        if not argument:
            owner = before if before.startswith("-") else ""
        elif re.fullmatch(r"--[\w-]+=", argument):
            owner = argument.removesuffix("=")
        else:
            continue
        place = f"{owner}: its value" if owner else "an argument"
        raise EmptyArgumentError(
            f"{place} is empty; accepted: a value (perhaps a variable of the shell is not set)"
        )
