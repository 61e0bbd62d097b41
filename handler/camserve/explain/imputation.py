"""Noisy linear imputation: hidden pixels filled in so smoothly that their shape says nothing.

Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ROAD),
arXiv 2202.00449, section 4.2. Each hidden pixel is the weighted mean of its eight neighbours, which
may be hidden themselves: a sparse linear system. A direct solver takes a second for each photo; a
conjugate gradient with a multigrid preconditioner takes some ten steps of a few additions a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

#: The standard deviation of the noise, in units of the network's normalised input.
NOISE: Final = 0.01
#: The greatest error of a pixel's equation: the pixels are then right to a tenth of the noise.
_TOLERANCE: Final = 2e-5
_MAX_STEPS: Final = 100
#: The side of the coarsest grid, and how often its values are smoothed, which solves it.
_COARSEST_SIDE: Final = 4
_COARSEST_STEPS: Final = 4
#: Of Jacobi's smoothing steps: what damps the error between neighbours best.
_DAMPING: Final = 0.8
#: The weights of a pixel's neighbours: those beside it, and those across its corners.
_NEIGHBOURS: Final = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
#: The transpose of bilinear interpolation to twice the side.
_RESTRICTION: Final = (0.25, 0.75, 0.75, 0.25)


def impute(photo: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Fill in the hidden pixels of a photo, several times over.

    Args:
        photo: (C, H, W) normalised input.
        hidden: (M, H, W) bool; of each at least one pixel is not hidden.
        generator: of the noise, on the CPU.

    Returns:
        (M, C, H, W).
    """
    # (1, M * C, H, W) in channels-last memory: a convolution by channel is then as fast as a sum.
    unknown = _planes(hidden.to(photo.dtype).repeat_interleave(len(photo), 0))
    known = _planes(photo.repeat(len(hidden), 1, 1)) * (1 - unknown)
    solution = _solve(_neighbour_sum(known) * unknown, _Grid.all_of(unknown))
    noise = torch.randn(hidden.numel() * len(photo), generator=generator).to(known)
    filled = known + solution + NOISE * noise.view(known.shape) * unknown
    return filled.reshape(len(hidden), *photo.shape)


@dataclass(frozen=True)
class _Grid:
    """One grid of the multigrid method.

    Attributes:
        unknown: (1, N, H, W), 1 where a value is sought.
        weight: of each cell, the sum of its neighbours' weights: 1 but at the edge.
        smoothing: what a smoothing step multiplies the error by.
    """

    unknown: Tensor
    weight: Tensor
    smoothing: Tensor

    @classmethod
    def of(cls, unknown: Tensor) -> _Grid:
        weight = _neighbour_sum(torch.ones_like(unknown))
        return cls(unknown, weight, _DAMPING * unknown / weight)

    @classmethod
    def all_of(cls, unknown: Tensor) -> list[_Grid]:
        """The grid of a mask and its coarser ones, each of half the side."""
        grids = [cls.of(unknown)]
        while min(unknown.shape[2:]) > _COARSEST_SIDE:
            # A coarse cell is sought only where all of its four are: else a correction would run
            # over the edge of what is hidden.
            unknown = (F.avg_pool2d(_even(unknown), 2) == 1).to(unknown.dtype)
            grids.append(cls.of(unknown))
        return grids

    def apply(self, values: Tensor) -> Tensor:
        """The system's matrix times values that are zero outside of ``unknown``."""
        return torch.addcmul(-_neighbour_sum(values), self.weight, values) * self.unknown

    def smooth(self, values: Tensor, right_side: Tensor) -> Tensor:
        """A step of Jacobi's method, damped."""
        return torch.addcmul(values, right_side - self.apply(values), self.smoothing)


def _solve(right_side: Tensor, grids: Sequence[_Grid]) -> Tensor:
    """The conjugate gradient method, preconditioned by a multigrid cycle.

    Args:
        right_side: (1, N, H, W), zero outside of what is unknown in the first grid.
        grids: the finest first.

    Returns:
        (1, N, H, W), zero where nothing is sought: each value times its weight, less the sum of its
        neighbours, is that of the right side.
    """
    residual = right_side
    solution = direction = torch.zeros_like(residual)
    before = residual.new_ones(())
    for _ in range(_MAX_STEPS):
        preconditioned = _cycle(residual, grids)
        now = _inner(residual, preconditioned)
        direction = torch.addcmul(preconditioned, direction, _ratio(now, before))
        product = grids[0].apply(direction)
        step = _ratio(now, _inner(direction, product))
        solution = torch.addcmul(solution, step, direction)
        residual = torch.addcmul(residual, step, product, value=-1)
        before = now
        if float(residual.abs().amax()) < _TOLERANCE:
            break
    return solution


def _cycle(residual: Tensor, grids: Sequence[_Grid]) -> Tensor:
    """One V-cycle: an approximation of the correction (1, N, H, W) that a residual asks for.

    Smoothing goes before and after the coarser grid's correction alike, so that the cycle is
    symmetric, as the conjugate gradient method needs it.
    """
    grid = grids[0]
    correction = residual * grid.smoothing
    if len(grids) == 1:
        for _ in range(_COARSEST_STEPS):
            correction = grid.smooth(correction, residual)
        return correction
    height, width = residual.shape[2:]
    coarse = _restrict(_even(residual - grid.apply(correction)))
    coarse = _cycle(coarse * grids[1].unknown, grids[1:])
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear")[:, :, :height, :width]
    return grid.smooth(torch.addcmul(correction, fine, grid.unknown), residual)


def _planes(values: Tensor) -> Tensor:
    """(N, H, W) -> (1, N, H, W) in channels-last memory."""
    return values.unsqueeze(0).contiguous(memory_format=torch.channels_last)


def _neighbour_sum(values: Tensor) -> Tensor:
    kernel = values.new_tensor(_NEIGHBOURS)
    return F.conv2d(values, _for_each(kernel, values), padding=1, groups=values.shape[1])


def _restrict(fine: Tensor) -> Tensor:
    """A grid of half the side, by the transpose of bilinear interpolation."""
    kernel = torch.outer(*[fine.new_tensor(_RESTRICTION)] * 2)
    return F.conv2d(fine, _for_each(kernel, fine), stride=2, padding=1, groups=fine.shape[1])


def _for_each(kernel: Tensor, planes: Tensor) -> Tensor:
    """A kernel repeated for each of the planes."""
    return kernel.expand(planes.shape[1], 1, *kernel.shape).contiguous()


def _even(grid: Tensor) -> Tensor:
    """The grid with a row and a column of zeros where its sides are odd."""
    height, width = grid.shape[2:]
    return F.pad(grid, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else grid


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(2, 3), keepdim=True)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Zero where both are, as of a system that is solved already."""
    return numerator / denominator.where(denominator != 0, 1)
