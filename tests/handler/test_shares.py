"""A batch in shares: the same numbers, in the same order, and no tape."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from camserve.shares import Shared


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """More than there are shares: the calling thread is to have its own number again."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Noted(nn.Module):
    """Doubles, and notes of each call how many samples it had, and the thread and its threads."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.calls: list[tuple[int, int, int]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls.append((len(inputs), threading.get_ident(), torch.get_num_threads()))
        if (inputs < 0).any():
            raise ArithmeticError("a negative sample")
        return inputs * self.scale


def batch(size: int) -> Tensor:
    values = torch.arange(size * 3 * 4 * 5.0).view(size, 3, 4, 5)
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("threads", "size", "sizes"),
    [
        (2, 8, [4, 4]),
        (2, 16, [8, 8]),
        (3, 12, [4, 4, 4]),
        # Too few for each, or one too many for some.
        (2, 1, [1]),
        (2, 6, [6]),
        (2, 9, [9]),
        (4, 8, [8]),
        (1, 8, [8]),
    ],
)
def test_a_batch_that_comes_out_even_is_shared(threads: int, size: int, sizes: list[int]) -> None:
    module = Noted()
    inputs = batch(size)
    outputs = Shared(module, threads)(inputs)
    assert torch.equal(outputs, inputs * 2)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert [samples for samples, _, _ in module.calls] == sizes


def test_each_share_has_a_thread_that_computes_alone() -> None:
    module = Noted()
    shared = Shared(module, 2)
    for _ in range(5):
        shared(batch(8))
    assert {alone for _, _, alone in module.calls} == {1}
    assert len({thread for _, thread, _ in module.calls}) == 2
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("size", [1, 8])
def test_it_leaves_no_tape(size: int) -> None:
    with torch.enable_grad():
        assert not Shared(Noted(), 2)(batch(size)).requires_grad


def test_a_share_that_fails_is_the_batchs_failure_and_the_next_batch_knows_nothing_of_it() -> None:
    shared = Shared(Noted(), 2)
    for place in (0, 6):
        damaged = batch(8)
        damaged[place, 0, 0, 0] = -1
        with pytest.raises(ArithmeticError, match="a negative sample"):
            shared(damaged)
        assert torch.get_num_threads() == 3
        assert torch.equal(shared(batch(8)), batch(8) * 2)
