"""A trunk that OpenVINO has compiled: the same numbers, and nothing that was not asked for."""

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


def made(rounded: bool = False) -> OpenVINOModule:
    return OpenVINOModule(fused(), inputs_of(1), BATCH, 2, rounded)


def apart(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_computes_the_same_for_batches_of_any_size(
    layout: torch.memory_format, rounded: bool
) -> None:
    trunk, expected = made(rounded), network()
    # Larger ones than were said, too.
    for batch in (1, 2, BATCH, 1, BATCH + 3):
        inputs = inputs_of(batch, seed=batch)
        with torch.no_grad():
            found, wanted = trunk(inputs.contiguous(memory_format=layout)), expected(inputs)
        assert found.dtype is torch.float32
        difference = apart(found, wanted)
        assert difference < (0.02 if rounded else 1e-6)
        assert (difference > 1e-4) is rounded


def test_a_batch_keeps_what_it_got_when_the_next_comes() -> None:
    trunk = made()
    first = trunk(inputs_of(2, seed=1))
    before = first.clone()
    trunk(inputs_of(2, seed=2))
    assert torch.equal(first, before)
    # A leaf of the tape, as the hook makes one of it.
    assert first.requires_grad_().is_leaf


def test_its_input_stays_as_it_was() -> None:
    inputs = inputs_of(2)
    made()(inputs)
    assert torch.equal(inputs, inputs_of(2))


class Unknown(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.diag(inputs[0, 0, 0]).sum()


def test_what_it_does_not_know_it_names() -> None:
    trunk = fusion.fuse(fx.symbolic_trace(Unknown()), inputs_of(1), torch.float32)
    with pytest.raises(RuntimeError, match=r"^OpenVINO cannot compile it: .*aten::diag$"):
        OpenVINOModule(trunk, inputs_of(1), BATCH, 2, rounded=False)


@fx.wrap
def halved_where_dark(inputs: Tensor) -> Tensor:
    return inputs / 2 if inputs.mean() < 0 else inputs


class Deciding(nn.Module):
    """A step of Python that does to some photos what it does not to others."""

    def forward(self, inputs: Tensor) -> Tensor:
        return halved_where_dark(inputs)


def test_what_python_decides_for_each_photo_is_not_compiled() -> None:
    trunk = fusion.fuse(fx.symbolic_trace(Deciding()), inputs_of(1), torch.float32)
    with pytest.raises(RuntimeError, match=r"it calls .*\.halved_where_dark, whose Python"):
        OpenVINOModule(trunk, inputs_of(1), BATCH, 2, rounded=False)


# Its weights


def mapped(address: int) -> dict[str, int]:
    """What proc(5) says of the mapping at an address, in kB."""
    found: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            start, _, end = name.partition("-")
            inside = int(start, 16) <= address < int(end, 16)
        elif inside and rest.endswith("kB"):
            found[name.rstrip(":")] = int(rest.split()[0])
    return found


def test_weights_take_no_memory_when_they_are_put_back_and_are_there_again() -> None:
    weights = [torch.randn(64, 32, 3, 3), torch.randn(5, 1, 1, 1), torch.randn(300, 300, 1, 1)]
    shelf = openvino_backend._Shelf(weights)
    address = shelf.weights[0].data_ptr()
    for found, weight in zip(shelf.weights, weights, strict=True):
        assert torch.equal(found, weight)
        assert found.data_ptr() % 64 == 0
    assert mapped(address)["Rss"] > 400
    shelf.put_back()
    assert mapped(address)["Rss"] == 0
    for found, weight in zip(shelf.weights, weights, strict=True):
        assert torch.equal(found, weight)


def test_numbers_too_small_for_a_processor_are_zero() -> None:
    weight = torch.tensor([1e-39, -1e-45, 2e-38, 0.0, -1.0]).view(1, 5, 1, 1)
    (found,) = openvino_backend._Shelf([weight]).weights
    assert found.flatten().tolist() == [0, 0, weight[0, 2].item(), 0, -1]


def test_weights_lie_as_they_are_numbered_whatever_their_layout() -> None:
    weight = torch.randn(4, 8, 3, 3)
    (found,) = openvino_backend._Shelf(
        [weight.contiguous(memory_format=torch.channels_last)]
    ).weights
    assert torch.equal(found, weight)
    assert found.is_contiguous()


def test_without_room_for_a_file_they_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    trunk = made()
    with torch.no_grad():
        assert apart(trunk(inputs_of(2)), network()(inputs_of(2))) < 1e-6


# The package


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """Run code beside the handler's, in an interpreter of its own."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": f"{tmp_path}:{HANDLER}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_it_tells_its_makers_nothing(python: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("print('I tell')")
    assert python("import openvino_telemetry") == "I tell"
    code = (
        "from camserve.networks import openvino_backend; import openvino; "
        "print(openvino_backend.missing())"
    )
    assert python(code) == ""


def test_where_it_is_not_installed_it_says_so(python: Callable[[str], str]) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from camserve.networks import openvino_backend as o; print(o.missing())"
    )
    assert python(code).startswith("OpenVINO is not here: ")
