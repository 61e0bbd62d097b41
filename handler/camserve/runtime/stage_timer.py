"""How long a batch spends in each stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

#: In the order of a batch. ``read``: parse requests and read photos' headers. ``decode``: decode
#: and crop photos. ``forward``: run the network. ``backward``: run backwards and compute maps,
#: until they are on the host. ``draw``: render and encode pictures. ``faithfulness``: run the
#: network on masked photos. ``write``: serialize replies.
STAGES: Final = ("read", "decode", "forward", "backward", "draw", "faithfulness", "write")


class StageTimer:
    """The seconds that one batch spends in each stage.

    Attributes:
        seconds: by the names in :data:`STAGES`.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to a stage, also if the block raises.

        Raises:
            KeyError: there is no such stage.
        """
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start
