"""Where a batch's time goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

#: In the order in which a batch walks through them: requests and headers of photos read; photos
#: decoded and cut; the network; backwards and maps, until they are on the host; pictures drawn and
#: encoded; replies written.
STAGES: Final = ("read", "decode", "forward", "backward", "draw", "write")


class StageTimer:
    """The seconds that a batch spends in each of :data:`STAGES`."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start
