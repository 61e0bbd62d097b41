"""The front's log: a JSON object a line, as the server's own log has it, and nothing of a request.

The text of an exception, or of another library's message, may repeat what a caller sent. So of an
exception the log has its class and where it was raised, and of a message by another logger where
that logs.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

_MAX_BYTES: Final = 10_000_000
_BACKUPS: Final = 2
_OWN: Final = "camserve_cli."


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        place = f"{record.filename} line {record.lineno}"
        message = record.getMessage() if record.name.startswith(_OWN) else place
        if record.exc_info and record.exc_info[1]:
            message += f" {_origin(record.exc_info[1])}"
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps(
            {
                "time": time.replace("+00:00", "Z"),
                "level": record.levelname.replace("WARNING", "WARN"),
                "logger": record.name.rpartition(".")[2],
                "thread": record.threadName,
                "message": message,
            }
        )


def _origin(failure: BaseException) -> str:
    """An exception's class, and the place that raised it."""
    frames = traceback.extract_tb(failure.__traceback__)
    where = f" at {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"{type(failure).__name__}{where}"


def set_up(file: Path | None) -> None:
    """Write what this process logs to a file, 30 MB at most, or to stderr.

    Args:
        file: None for stderr.
    """
    handler: logging.Handler = logging.StreamHandler()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=_MAX_BYTES, backupCount=_BACKUPS)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("camserve_cli").setLevel(logging.INFO)
    # It calls what is no HTTP an error, and whoever sends it could fill the log. A handler's own
    # errors never come so far.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
