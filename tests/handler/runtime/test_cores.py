"""A worker's share of the CPU cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from camserve.runtime import worker_threads


@pytest.mark.parametrize(
    ("configured", "workers", "cores", "quota", "omp", "expected"),
    [
        # A single worker has all cores.
        (0, 1, 1, None, 64, 1),
        (0, 1, 8, None, 64, 8),
        # Several workers share them; each has at least one thread.
        (0, 2, 8, None, 64, 4),
        (0, 3, 8, None, 64, 2),
        (0, 8, 8, None, 64, 1),
        (0, 9, 8, None, 64, 1),
        # A container's quota.
        (0, 1, 8, "max 100000", 64, 8),
        (0, 1, 8, "400000 100000", 64, 4),
        (0, 1, 8, "400000 100000\n", 64, 4),
        (0, 1, 8, "200000 50000", 64, 4),
        (0, 1, 8, "350000 100000", 64, 3),
        (0, 1, 8, "50000 100000", 64, 1),
        (0, 1, 8, "1600000 100000", 64, 8),
        (0, 2, 8, "400000 100000", 64, 2),
        (0, 4, 8, "200000 100000", 64, 1),
        # A quota that cannot be parsed.
        (0, 1, 8, "", 64, 8),
        (0, 1, 8, "400000", 64, 8),
        (0, 1, 8, "four 100000", 64, 8),
        # OMP_NUM_THREADS, as PyTorch reports it.
        (0, 1, 8, None, 3, 3),
        (0, 4, 8, None, 3, 2),
        (0, 1, 8, "200000 100000", 3, 2),
        (0, 1, 8, None, 1, 1),
        # The operator's setting overrides all.
        (1, 1, 8, None, 64, 1),
        (5, 4, 2, "100000 100000", 1, 5),
        (1024, 1, 2, None, 2, 1024),
    ],
)
def test_a_worker_has_as_many_threads_as_its_share_of_the_cores(
    configured: int,
    workers: int,
    cores: int,
    quota: str | None,
    omp: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quota_file = tmp_path / "cpu.max"
    if quota is not None:
        quota_file.write_text(quota)
    monkeypatch.setattr("camserve.runtime.cores.CPU_QUOTA_FILE", quota_file)
    # A worker may be pinned to any cores, not only to the first ones.
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: {7 + 2 * core for core in range(cores)}
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: omp)
    assert worker_threads(configured, workers) == expected


def test_the_affinity_of_this_process_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camserve.runtime.cores.CPU_QUOTA_FILE", Path("/no/such/file"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10**6)
    affinity = os.sched_getaffinity(0)
    assert worker_threads(0, 1) == len(affinity)
    os.sched_setaffinity(0, {max(affinity)})
    try:
        assert worker_threads(0, 1) == 1
    finally:
        os.sched_setaffinity(0, affinity)


def test_this_machines_threads_are_within_its_affinity() -> None:
    assert 1 <= worker_threads(0, 1) <= len(os.sched_getaffinity(0))
