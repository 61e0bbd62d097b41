"""A process that was started here, found again by its id and its start time."""

from __future__ import annotations

import psutil


def living_process(pid: int, started: float) -> psutil.Process | None:
    """The process, while it lives.

    Args:
        pid: its id.
        started: its start time, which tells it from a later process of that id.
    """
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return None if ended or process.create_time() != started else process
    except psutil.NoSuchProcess:
        return None
