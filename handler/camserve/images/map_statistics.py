"""Figures of a heatmap: how focused it is, and where in the photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from camserve.images.geometry import Box, InputFrame
from camserve.images.heatmap import Heatmap

Vector = NDArray[np.float64]

#: The width of the border, as a share of a side: the outermost cells of a grid of 7 x 7, as a
#: ResNet has it.
BORDER: Final = 1 / 7


@dataclass(frozen=True)
class MapStatistics:
    """Figures of a map, whose cells are taken as shares p of all heat in the photo.

    Cells that lie partly outside of the photo, where it was padded, count by the part inside.

    Attributes:
        entropy: -sum p ln p, in nats: 0 where one cell has all heat, ln(cells) where all have the
            same. Bhatt et al. 2020, arXiv 2005.00631, equation 9.
        gini: the Gini index of the cells: 0 where all have the same, 1 - 1/cells where one has all.
            Chalasani et al. 2020, arXiv 1810.06583.
        centre: x, y of the mean of the cells' centres, in pixels of the photo's file.
        spread: the root of the mean squared distance from the centre, in pixels.
        border: the share of heat in the border of what the network saw, a seventh of each side.
        corners: the share of heat where two sides of that border meet.
    """

    entropy: float
    gini: float
    centre: tuple[float, float]
    spread: float
    border: float
    corners: float

    @classmethod
    def of(cls, heatmap: Heatmap, frame: InputFrame) -> MapStatistics | None:
        """The figures of a heatmap; None where there is no heat.

        Args:
            heatmap: of the explanation.
            frame: of the photo.
        """
        values = heatmap.map.astype(np.float64)
        rows, columns = values.shape
        upright_width, upright_height = frame.upright_size
        x0, y0, x1, y1 = frame.input_box
        across = _Axis.of(x0, x1, columns, upright_width)
        down = _Axis.of(y0, y1, rows, upright_height)
        heat = values * down.visible[:, None] * across.visible
        total = heat.sum()
        # A map that is not finite has been refused before.
        if not total > 0:
            return None
        shares = heat / total
        by_column, by_row = shares.sum(0), shares.sum(1)
        x, y = float(by_column @ across.centres), float(by_row @ down.centres)
        square = by_column @ (across.centres - x) ** 2 + by_row @ (down.centres - y) ** 2
        point = frame.to_file_box(Box(x, y, x, y))
        inside = float((1 - down.border) @ shares @ (1 - across.border))
        return cls(
            entropy=_entropy(shares),
            gini=_gini(shares[np.ix_(down.visible > 0, across.visible > 0)].ravel()),
            centre=(point.x0, point.y0),
            spread=float(np.sqrt(square)),
            border=max(0.0, 1 - inside),
            corners=float(down.border @ shares @ across.border),
        )


@dataclass(frozen=True)
class _Axis:
    """The n cells of a grid along one side of the upright photo.

    Attributes:
        visible: (n,) which part of each lies in the photo.
        centres: (n,) of that part, in pixels.
        border: (n,) how much of that part lies in the border.
    """

    visible: Vector
    centres: Vector
    border: Vector

    @classmethod
    def of(cls, begin: float, end: float, cells: int, side: int) -> _Axis:
        """The cells from ``begin`` to ``end``, in pixels of a side that is ``side`` long."""
        edges = np.linspace(begin, end, cells + 1)
        low, high = np.clip(edges[:-1], 0, side), np.clip(edges[1:], 0, side)
        seen_begin, seen_end = max(begin, 0.0), min(end, float(side))
        width = BORDER * (seen_end - seen_begin)
        before = np.clip(seen_begin + width - low, 0, high - low)
        behind = np.clip(high - (seen_end - width), 0, high - low)
        lengths = np.maximum(high - low, 1e-12)
        return cls(
            (high - low) / (edges[1:] - edges[:-1]),
            (low + high) / 2,
            (before + behind) / lengths,
        )


def _entropy(shares: Vector) -> float:
    positive = shares[shares > 0]
    # Adding zero turns -0.0 into 0.0.
    return float(-(positive * np.log(positive)).sum()) + 0.0


def _gini(shares: Vector) -> float:
    ascending, n = np.sort(shares), len(shares)
    ranks = np.arange(1, n + 1)
    return float(((2 * ranks - n - 1) @ ascending) / n)
