"""The processor cores that this process may use.

It imports no torch: ``scripts/server.py``, which starts the workers, has to know them as well.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Where Linux says how much of the processor a container may use.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """How many cores, as the scheduler and the container's quota have it; 1 at least."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        # No container, or "max": no quota.
        return cores
