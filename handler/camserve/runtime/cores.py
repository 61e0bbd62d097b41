"""The processor cores that this process may use, and a worker's share of them.

PyTorch is imported where it is used: what starts the workers asks for the cores as well.
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


def worker_threads(wanted: int, workers: int) -> int:
    """How many threads a worker is to compute in.

    Args:
        wanted: by the operator; 0 for this worker's share of the cores, or fewer where
            ``OMP_NUM_THREADS`` says so.
        workers: that share the machine.
    """
    import torch

    return wanted or max(1, min(torch.get_num_threads(), usable_cores() // workers))
