"""The rounding errors of activations, so that a map of nothing else is told from evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: The size of an activation's error as a share of its channel's magnitude, when the network
#: computes in float32 (24 bits, of which seven are lost on the way) and in bfloat16 (8 bits). In
#: seeded CNNs that are shown a plain picture, the maps' errors are those of 2**-20, in deep ones of
#: 2**-17; the maps of pictures with detail are hundreds of times as large.
_FP32_ERROR: Final = 2.0**-17
_BF16_ERROR: Final = 2.0**-8


@dataclass(frozen=True)
class RoundingErrors:
    """Errors as rounding makes them in a layer's grid.

    An error has the size of what was rounded: of the value itself, and of the values that its
    channel usually has, of which it may be a small difference.

    Attributes:
        factors, offsets: (1, K, h, w); a value with an error is factor * value + offset.
    """

    factors: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, grid: Tensor, bfloat16: bool) -> RoundingErrors:
        """The errors of a layer.

        Args:
            grid: (1, K, h, w), its output for a typical picture.
            bfloat16: whether it is computed in bfloat16.
        """
        magnitudes = grid.float().square().mean((2, 3), keepdim=True).sqrt()
        signs = torch.randint(2, grid.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        # In the order in which the grids lie in memory: in another, applying them takes ten times
        # as long.
        errors = torch.empty_like(grid, dtype=torch.float32).copy_(signs)
        errors *= _BF16_ERROR if bfloat16 else _FP32_ERROR
        return cls(1 + errors, errors * magnitudes)

    def apply(self, activations: Tensor) -> Tensor:
        """(M, K, h, w) -> the same with errors."""
        return torch.addcmul(self.offsets, activations, self.factors)
