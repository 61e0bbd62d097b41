"""The base of the errors that a command reports to the person who runs it."""

from __future__ import annotations

from typing import ClassVar


class CommandError(Exception):
    """A command cannot go on; the message says why, in one line for the person who runs it.

    Attributes:
        exit_status: that the command ends with.
    """

    exit_status: ClassVar[int] = 1
