"""Which engine a call names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from camserve_cli.engines.archive_engine import ArchiveEngine, find_archive
from camserve_cli.engines.engine import Engine
from camserve_cli.engines.server_engine import ServerEngine
from camserve_cli.server_choice import ServerChoice


@contextmanager
def open_engine(server: ServerChoice | None, store: Path, model: str | None) -> Iterator[Engine]:
    """The engine of a model, for as long as a ``with`` block.

    Args:
        server: to ask; None for an archive that runs here.
        store: the folder of archives.
        model: the model's name.

    Raises:
        EngineCallError, ServerChoiceError: there is no such model, or it cannot be used.
    """
    engine: Engine = (
        ArchiveEngine(find_archive(store, model))
        if server is None
        else ServerEngine(replace(server, model=model))
    )
    try:
        yield engine
    finally:
        engine.close()
