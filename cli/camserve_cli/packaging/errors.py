"""What keeps an archive from being packaged; here, as the rest of this package imports torch."""

from __future__ import annotations

from camserve_cli.errors import CommandError


class PackageError(CommandError):
    """What keeps an archive from being built, in words for the person who builds it."""


class ArchiveError(CommandError):
    """An archive does not load, or does not answer."""


class WeightsError(CommandError):
    """The weights are not to be had, or are not what they should be."""


class UnreachableError(WeightsError):
    """The weights would have to be downloaded, and their server cannot be reached."""

    exit_status = 3


class PresetError(CommandError):
    """How a publisher prepares photos cannot be expressed by an archive's settings."""


def first_line(failure: Exception) -> str:
    """What another library's exception says, in one line: its class and its message's beginning."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0][:300]}" if lines else type(failure).__name__
