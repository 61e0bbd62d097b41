"""What a TorchServe that is starting says and does, until all its models answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

from camserve_cli.paths import RUN_DIR
from camserve_cli.serving.local_server import LocalServer, ServerError

#: One JSON object a line, of the server and its workers; and what they say before that is set up.
LOG = RUN_DIR / "logs" / "server.log"
CONSOLE = RUN_DIR / "console.log"
#: Seconds between two lines that say what is waited for.
_REPORT_EVERY = 15
#: Is told how far a start is, in lines.
Report = Callable[[str], None]


def _failures() -> Iterator[str]:
    """What the workers say of a load that cannot succeed."""
    if LOG.exists():
        # What follows the last line break is half a line.
        for line in LOG.read_text("utf-8", "replace").split("\n")[:-1]:
            entry = json.loads(line)
            if entry["logger"] == "MODEL_LOG" and (
                match := re.match(r"(?:[\w.]+\.)?(\w*Error: .*)", entry["message"])
            ):
                yield match[1]


def wait_until_ready(
    server: LocalServer, scale: dict[str, int], seconds: float, report: Report
) -> None:
    """Have models scaled as soon as TorchServe listens, and wait until all their workers answer.

    Args:
        scale: by model, how many workers it is to have, where its archive says otherwise.
        seconds: to wait at most.
        report: is told what is waited for.

    Raises:
        ServerError: it did not start, a model cannot be loaded, or the time is up.
    """
    begun = time.monotonic()
    deadline, next_report = begun + seconds, begun
    waiting, unscaled = list(server.models), dict(scale)
    while waiting:
        if time.monotonic() >= next_report:
            report(
                f"waiting until {', '.join(waiting)} {'answers' if len(waiting) == 1 else 'answer'}"
                f" ({time.monotonic() - begun:.0f} of at most {seconds:g} s)"
            )
            next_report = time.monotonic() + _REPORT_EVERY
        if not server.process():
            raise ServerError(f"TorchServe ended; see {CONSOLE} and {LOG}")
        if failure := next(_failures(), None):
            raise ServerError(f"a model cannot be loaded: {failure}")
        if time.monotonic() > deadline:
            raise ServerError(f"{', '.join(waiting)} not ready after {seconds:g} s; see {LOG}")
        try:
            for name in list(unscaled):
                server.scale(name, unscaled[name])
                del unscaled[name]
            if server.is_loaded(waiting[0]) and server.is_ready(waiting[0]):
                report(f"{waiting.pop(0)} answers")
                continue
        except ServerError:
            pass  # Java is still starting.
        time.sleep(0.2)
