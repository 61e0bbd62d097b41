"""The CPU cores that this process may use, and a worker's share of them.

PyTorch is imported inside the function that needs it: the command line counts cores as well.
"""

from __future__ import annotations

import os
from pathlib import Path

#: The cgroup v2 file that holds a container's CPU quota.
CPU_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The number of cores by CPU affinity and the container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_QUOTA_FILE.read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        # There is no container, or the file says "max": no quota.
        return cores


def worker_threads(configured: int, workers: int) -> int:
    """The number of threads that a worker computes with, at least 1.

    Args:
        configured: the operator's setting. 0 means this worker's share of the cores, or
            ``OMP_NUM_THREADS`` if that is smaller.
        workers: the number of workers that share the machine.
    """
    import torch

    return configured or max(1, min(torch.get_num_threads(), usable_cores() // workers))
