"""The requests of ``camserve explain``, so many at once, and the errors that it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Final, cast

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from camserve_cli.explain_files import Photo
from camserve_cli.explain_results import OF_THE_DISK, Results
from camserve_cli.serving.local_server import ServerError
from camserve_cli.terminal import printable
from camserve_client import (
    AsyncClient,
    AsyncGrpcClient,
    CamserveError,
    ExplainOptions,
    StatusError,
)

#: How many photos with the same error are shown with it; more are counted.
_SHOWN: Final = 3


async def explain_all(
    client: AsyncClient | AsyncGrpcClient,
    photos: Sequence[Photo],
    options: dict[str, Any],
    in_flight: int,
    results: Results,
    progress: Progress,
) -> None:
    """Explain the photos, ``in_flight`` of them at once, none read before its turn.

    Raises:
        OSError: a line cannot be written, or the disk takes no picture of any photo.
    """
    bar = progress.add_task("", total=len(photos), failed=0)
    queue = iter(enumerate(photos))
    as_stored = options["size"] != "model"
    failures = _ShownFailures(progress.console)

    async def explain(photo: Photo) -> dict[str, Any]:
        """A photo's line, without its name."""
        try:
            source = await _read_pipe(photo.path) if photo.path.is_fifo() else photo.path
            reply = await client.explain(source, **cast(ExplainOptions, options))
        except (CamserveError, ServerError, OSError) as failure:
            # An OSError's text ends with the photo's name, by which each would differ.
            kind = failure.strerror if isinstance(failure, OSError) else None
            return failed(photo, _error(failure), str(failure), kind or str(failure))
        try:
            body = await results.save_pictures(photo, reply, as_stored)
        except CamserveError as failure:
            return failed(photo, _error(failure), str(failure), str(failure))
        except OSError as failure:
            if failure.errno in OF_THE_DISK:
                raise
            reason = f"cannot be written: {failure.strerror or failure}"
            message = f"{failure.filename} {reason}"
            return failed(photo, {"code": "local_error", "message": message}, message, reason)
        results.warned += bool(reply.image.warnings)
        results.not_explained += reply.not_explained is not None
        return {"reply": body}

    def failed(photo: Photo, error: dict[str, Any], message: str, kind: str) -> dict[str, Any]:
        results.failed += 1
        failures.add(photo.path, message, kind)
        return {"error": error}

    async def work() -> None:
        for number, photo in queue:
            results.write(number, {"photo": str(photo.path), **await explain(photo)})
            progress.update(bar, advance=1, failed=results.failed)

    try:
        async with client, asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(photos))):
                group.create_task(work())
    except ExceptionGroup as raised:
        # What one task raised; the others were cancelled.
        raise raised.exceptions[0] from None
    finally:
        failures.show_counts()


async def _read_pipe(path: Path) -> bytes:
    """The bytes of a pipe, whose writer may never come.

    asyncio's own threads would keep the process from ending until then.

    Raises:
        OSError: it cannot be read.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(data: bytes, failure: OSError | None) -> None:
        if done.cancelled():
            return
        if failure:
            done.set_exception(failure)
        else:
            done.set_result(data)

    def read() -> None:
        data, failure = b"", None
        try:
            data = path.read_bytes()
        except OSError as raised:
            failure = raised
        # The loop is closed where the run was interrupted.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, data, failure)

    Thread(target=read, daemon=True, name=f"read {path.name}").start()
    return await done


def _error(failure: Exception) -> dict[str, Any]:
    if isinstance(failure, StatusError):
        return {"code": failure.code, "status": failure.status, "message": failure.message}
    code = failure.code if isinstance(failure, CamserveError) else "local_error"
    return {"code": code, "message": str(failure)}


@dataclass
class _ShownFailures:
    """Shows a line for each photo that failed, but not the same error time and again."""

    console: Console
    _first: dict[str, Path] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=dict)

    def add(self, photo: Path, message: str, kind: str) -> None:
        """Show a photo's error, unless so many of its kind were."""
        self._first.setdefault(kind, photo)
        self._count[kind] = self._count.get(kind, 0) + 1
        if self._count[kind] <= _SHOWN:
            self._print(f"{photo}: {message}")

    def show_counts(self) -> None:
        """Show how many more photos had each error."""
        for kind, count in self._count.items():
            if count > _SHOWN:
                more = f"{count - _SHOWN} photo{'s' if count > _SHOWN + 1 else ''} more"
                self._print(f"and {more} with the same error as {self._first[kind]}")

    def _print(self, line: str) -> None:
        # As Text, of which rich takes nothing for markup or the code of an emoji.
        self.console.print(Text(printable(line), style="red"), soft_wrap=True)
