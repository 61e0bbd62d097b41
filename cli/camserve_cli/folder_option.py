"""An option that names a folder."""

from __future__ import annotations

from pathlib import Path

import typer


def given_folder(text: str | Path) -> Path:
    """The folder that an option names, or its default.

    Raises:
        BadParameter: the text is empty, as of a variable that is not set; ``Path`` would take it
            for the current folder.
    """
    if not str(text):
        raise typer.BadParameter("it is empty; accepted is a folder, as .tls")
    return Path(text)
