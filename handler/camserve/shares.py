"""A batch computed in equal shares, each by a thread of its own.

Threads that work on one operator after the other together wait for the slowest at the end of each,
and on a busy machine one of them is always interrupted. Threads that each take some of the samples
through the whole network meet once, at its end.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

import torch
from torch import Tensor, nn

# Each thread reads all weights for its share; for fewer samples than this, that takes longer than
# the waiting that is saved.
_WORTHWHILE: Final = 4


class Shared(nn.Module):
    """A module without a tape, run on shares of a batch at once.

    A small batch, or one that does not come out even, goes through it whole, in all threads
    together: the others would wait for the thread with one sample more.

    Args:
        module: (N, ...) -> (N, ...), each sample by itself.
        threads: one for each share.
    """

    def __init__(self, module: nn.Module, threads: int) -> None:
        super().__init__()
        self.module = module
        self._threads = threads
        # This thread takes a share, too.
        self._helpers = ThreadPoolExecutor(
            max(1, threads - 1), "share", torch.set_num_threads, (1,)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        share, rest = divmod(len(inputs), self._threads)
        if self._threads == 1 or rest or share < _WORTHWHILE:
            return self._of(inputs)
        own, *others = inputs.chunk(self._threads)
        helping = [self._helpers.submit(self._of, other) for other in others]
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outputs = self._of(own)
        finally:
            torch.set_num_threads(before)
            wait(helping)
        return torch.cat([outputs, *(one.result() for one in helping)])

    def _of(self, inputs: Tensor) -> Tensor:
        # Each thread has a switch of its own for the tape.
        with torch.no_grad():
            outputs: Tensor = self.module(inputs)
        return outputs
