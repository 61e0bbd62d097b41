"""Which processors multiply bfloat16 fast."""

from __future__ import annotations

import pytest
import torch

from camserve.networks import hardware

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("onednn", "avx512", "amx", "expected"),
    [
        (True, False, False, False),
        (True, True, False, True),
        (True, False, True, True),
        (True, True, True, True),
        # Without oneDNN's kernels, PyTorch's own emulate the instructions.
        (False, True, True, False),
    ],
)
def test_a_cpu_needs_both_instructions_and_kernels_for_fast_bfloat16(
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
def test_a_gpu_has_fast_bfloat16_from_ampere_on(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_onednn", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.has_fast_bfloat16(torch.device("cuda", 1)) is expected


@pytest.mark.parametrize("available", [True, False])
def test_onednn_is_present_if_pytorch_was_built_with_it(
    available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    assert hardware.has_onednn() is available


def test_this_machines_cpu_can_be_queried() -> None:
    assert isinstance(hardware.has_fast_bfloat16(CPU), bool)
