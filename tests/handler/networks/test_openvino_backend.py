"""Trunks compiled by OpenVINO: outputs, weights in a mapped file, no telemetry."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from camserve.networks import fusion, openvino_backend
from camserve.networks.openvino_backend import OpenVINOModule
from tests.support.accelerated_networks import needs_compiled_bf16

HANDLER = Path(openvino_backend.__file__).parents[2]
SIDE, BATCH = 12, 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU()
    ).eval()


def inputs_of(batch: int, seed: int = 0) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, SIDE, SIDE + 1, generator=noise)


def fused() -> fx.GraphModule:
    trunk = fx.symbolic_trace(network().requires_grad_(False))
    return fusion.fuse(trunk, inputs_of(1), torch.float32)


def compile_trunk(bfloat16: bool = False) -> OpenVINOModule:
    return OpenVINOModule(fused(), inputs_of(1), BATCH, 2, bfloat16)


def relative_error(output: Tensor, expected: Tensor) -> float:
    assert output.shape == expected.shape
    return float((output - expected).norm() / expected.norm())


@pytest.mark.parametrize("bfloat16", [False, pytest.param(True, marks=needs_compiled_bf16)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_computes_the_same_for_batches_of_any_size(
    layout: torch.memory_format, bfloat16: bool
) -> None:
    trunk, original = compile_trunk(bfloat16), network()
    # A larger batch than it was compiled for works, too.
    for batch in (1, 2, BATCH, 1, BATCH + 3):
        inputs = inputs_of(batch, seed=batch)
        with torch.no_grad():
            output, expected = trunk(inputs.contiguous(memory_format=layout)), original(inputs)
        assert output.dtype is torch.float32
        error = relative_error(output, expected)
        assert error < (0.02 if bfloat16 else 1e-6)
        assert (error > 1e-4) is bfloat16


def test_an_output_is_not_overwritten_by_the_next_batch() -> None:
    trunk = compile_trunk()
    first = trunk(inputs_of(2, seed=1))
    before = first.clone()
    trunk(inputs_of(2, seed=2))
    assert torch.equal(first, before)
    # As the forward hook uses it.
    assert first.requires_grad_().is_leaf


def test_the_input_is_not_changed() -> None:
    inputs = inputs_of(2)
    compile_trunk()(inputs)
    assert torch.equal(inputs, inputs_of(2))


class Unknown(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.diag(inputs[0, 0, 0]).sum()


def test_an_unsupported_operation_is_named() -> None:
    trunk = fusion.fuse(fx.symbolic_trace(Unknown()), inputs_of(1), torch.float32)
    with pytest.raises(RuntimeError, match=r"^OpenVINO cannot compile the trunk: .*aten::diag$"):
        OpenVINOModule(trunk, inputs_of(1), BATCH, 2, bfloat16=False)


@fx.wrap
def halved_where_dark(inputs: Tensor) -> Tensor:
    return inputs / 2 if inputs.mean() < 0 else inputs


class Deciding(nn.Module):
    """A Python function with control flow that depends on the photo."""

    def forward(self, inputs: Tensor) -> Tensor:
        return halved_where_dark(inputs)


def test_a_python_function_that_may_branch_is_rejected() -> None:
    trunk = fusion.fuse(fx.symbolic_trace(Deciding()), inputs_of(1), torch.float32)
    with pytest.raises(
        RuntimeError, match=r"the trunk calls the Python function .*\.halved_where_dark"
    ):
        OpenVINOModule(trunk, inputs_of(1), BATCH, 2, bfloat16=False)


# Weights


def smaps(address: int) -> dict[str, int]:
    """The figures of the memory mapping at an address, in kB (proc_pid_smaps(5))."""
    figures: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            start, _, end = name.partition("-")
            inside = int(start, 16) <= address < int(end, 16)
        elif inside and rest.endswith("kB"):
            figures[name.rstrip(":")] = int(rest.split()[0])
    return figures


def test_evicted_weights_take_no_memory_and_are_read_again() -> None:
    weights = [torch.randn(64, 32, 3, 3), torch.randn(5, 1, 1, 1), torch.randn(300, 300, 1, 1)]
    mapped = openvino_backend._MemoryMappedWeights(weights)
    address = mapped.tensors[0].data_ptr()
    for tensor, weight in zip(mapped.tensors, weights, strict=True):
        assert torch.equal(tensor, weight)
        assert tensor.data_ptr() % 64 == 0
    assert smaps(address)["Rss"] > 400
    mapped.evict()
    assert smaps(address)["Rss"] == 0
    for tensor, weight in zip(mapped.tensors, weights, strict=True):
        assert torch.equal(tensor, weight)


def test_subnormal_weights_become_zero() -> None:
    weight = torch.tensor([1e-39, -1e-45, 2e-38, 0.0, -1.0]).view(1, 5, 1, 1)
    (tensor,) = openvino_backend._MemoryMappedWeights([weight]).tensors
    assert tensor.flatten().tolist() == [0, 0, weight[0, 2].item(), 0, -1]


def test_weights_are_contiguous_whatever_their_memory_format() -> None:
    weight = torch.randn(4, 8, 3, 3)
    channels_last = weight.contiguous(memory_format=torch.channels_last)
    (tensor,) = openvino_backend._MemoryMappedWeights([channels_last]).tensors
    assert torch.equal(tensor, weight)
    assert tensor.is_contiguous()


def test_without_disk_space_weights_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    trunk = compile_trunk()
    with torch.no_grad():
        assert relative_error(trunk(inputs_of(2)), network()(inputs_of(2))) < 1e-6


# The package


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """Run code that can import the handler, in a process of its own."""

    def run(code: str) -> str:
        process = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": f"{tmp_path}:{HANDLER}"},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    return run


@pytest.mark.slow
def test_telemetry_is_not_imported(python: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("print('telemetry')")
    assert python("import openvino_telemetry") == "telemetry"
    code = (
        "from camserve.networks import openvino_backend; import openvino; "
        "print(openvino_backend.unavailable_reason())"
    )
    assert python(code) == ""


@pytest.mark.slow
def test_a_missing_package_is_the_unavailable_reason(python: Callable[[str], str]) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from camserve.networks import openvino_backend as o; print(o.unavailable_reason())"
    )
    assert python(code).startswith("OpenVINO is not installed: ")
