"""What the machine offers: a worker's share of it, and what its processor is fast at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from camserve.networks import hardware
from camserve.runtime import cores

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wanted", "workers", "cores", "quota", "omp", "expected"),
    [
        # Alone: all cores.
        (0, 1, 1, None, 64, 1),
        (0, 1, 8, None, 64, 8),
        # Workers share them, and each has one at least.
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
        # What says nothing.
        (0, 1, 8, "", 64, 8),
        (0, 1, 8, "400000", 64, 8),
        (0, 1, 8, "four 100000", 64, 8),
        # OMP_NUM_THREADS, or what PyTorch made of it.
        (0, 1, 8, None, 3, 3),
        (0, 4, 8, None, 3, 2),
        (0, 1, 8, "200000 100000", 3, 2),
        (0, 1, 8, None, 1, 1),
        # The operator's word goes before all.
        (1, 1, 8, None, 64, 1),
        (5, 4, 2, "100000 100000", 1, 5),
        (1024, 1, 2, None, 2, 1024),
    ],
)
def test_a_worker_computes_in_its_share_of_the_cores(
    wanted: int,
    workers: int,
    cores: int,
    quota: str | None,
    omp: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    monkeypatch.setattr("camserve.runtime.cores.QUOTA", file)
    # Not the first ones: a worker may be pinned to any.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7 + 2 * n for n in range(cores)})
    monkeypatch.setattr(torch, "get_num_threads", lambda: omp)
    assert cores.worker_threads(wanted, workers) == expected


def test_the_affinity_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camserve.runtime.cores.QUOTA", Path("/no/such/file"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10**6)
    before = os.sched_getaffinity(0)
    assert cores.worker_threads(0, 1) == len(before)
    os.sched_setaffinity(0, {max(before)})
    try:
        assert cores.worker_threads(0, 1) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("onednn", "avx512", "amx", "expected"),
    [
        (True, False, False, False),
        (True, True, False, True),
        (True, False, True, True),
        (True, True, True, True),
        # Without its kernels, PyTorch's own would have to imitate them.
        (False, True, True, False),
    ],
)
def test_a_processor_multiplies_bfloat16_by_instructions_and_kernels_for_it(
    onednn: bool, avx512: bool, amx: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_onednn", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert hardware.has_fast_bfloat16(CPU) is expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), False), ((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), True)],
)
def test_a_gpu_multiplies_bfloat16_from_ampere_on(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_onednn", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.has_fast_bfloat16(torch.device("cuda", 1)) is expected


@pytest.mark.parametrize("available", [True, False])
def test_onednn_is_there_where_pytorch_was_built_with_it(
    available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    assert hardware.has_onednn() is available


def test_of_this_machine_something_is_known() -> None:
    assert isinstance(hardware.has_fast_bfloat16(CPU), bool)
    assert 1 <= cores.worker_threads(0, 1) <= len(os.sched_getaffinity(0))
