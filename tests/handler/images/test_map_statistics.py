"""Figures of a heatmap, against values by hand and against Quantus' formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve.images.geometry import Box, InputFrame
from camserve.images.heatmap import Heatmap
from camserve.images.map_statistics import MapStatistics
from camserve.preprocess_settings import InputSize

SIZE = InputSize(70, 70)
#: A photo of 100 x 80 of which the network saw 70 x 70 pixels.
FRAME = InputFrame(100, 80, 1, Box(15, 5, 85, 75))


def statistics(values: NDArray[np.floating], frame: InputFrame = FRAME) -> MapStatistics:
    found = MapStatistics.of(Heatmap([values.astype(np.float32)], SIZE), frame)
    assert found is not None
    return found


def one_cell(row: int, column: int, cells: int = 7) -> NDArray[np.float32]:
    values = np.zeros((cells, cells), np.float32)
    values[row, column] = 1
    return values


def test_all_heat_in_one_cell() -> None:
    found = statistics(one_cell(2, 3))
    assert found.entropy == 0
    assert found.gini == pytest.approx(1 - 1 / 49)
    assert found.centre == pytest.approx((15 + 35, 5 + 25))
    assert (found.spread, found.border, found.corners) == pytest.approx((0, 0, 0), abs=1e-9)


def test_the_same_heat_everywhere() -> None:
    found = statistics(np.full((7, 7), 0.5))
    assert found.entropy == pytest.approx(math.log(49))
    assert found.gini == pytest.approx(0, abs=1e-12)
    assert found.centre == pytest.approx((50, 40))
    # The variance of 7 places, 10 pixels apart, on two axes.
    assert found.spread == pytest.approx(math.sqrt(2 * 100 * (49 - 1) / 12))
    assert found.border == pytest.approx(24 / 49)
    assert found.corners == pytest.approx(4 / 49)


def test_two_cells() -> None:
    """A quarter of the heat in a corner, three quarters at the border."""
    values = one_cell(0, 0) + 3 * one_cell(6, 2)
    found = statistics(values / 3)
    assert found.entropy == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert found.centre == pytest.approx((15 + 0.25 * 5 + 0.75 * 25, 5 + 0.25 * 5 + 0.75 * 65))
    assert found.spread == pytest.approx(math.hypot(20, 60) * math.sqrt(0.25 * 0.75))
    assert (found.border, found.corners) == pytest.approx((1, 0.25))


def test_entropy_and_gini_are_those_of_complexity_and_sparseness() -> None:
    """Bhatt et al. 2020, and Chalasani et al. 2020 as Hurley and Rickard 2009 sum it up."""
    values = np.random.default_rng(0).random((5, 9)) ** 3
    flat = np.sort(values.ravel().astype(np.float32).astype(np.float64))
    shares, n = flat / flat.sum(), flat.size
    k = np.arange(1, n + 1)
    found = statistics(values)
    assert found.entropy == pytest.approx(-(shares * np.log(shares)).sum())
    assert found.gini == pytest.approx(1 - 2 * (shares * (n - k + 0.5) / n).sum())


def test_a_finer_grid_has_the_border_of_a_coarse_one() -> None:
    coarse = np.random.default_rng(1).random((7, 7)).astype(np.float32)
    fine = statistics(np.kron(coarse, np.ones((3, 3))))
    other = statistics(coarse)
    assert (fine.border, fine.corners) == pytest.approx((other.border, other.corners))
    assert fine.centre == pytest.approx(other.centre)


def test_a_cell_belongs_to_the_border_by_its_part() -> None:
    """Of the outer cells of a grid of 4 x 4, 4/7 lie in the border."""
    found = statistics(one_cell(0, 1, cells=4) + one_cell(3, 3, cells=4))
    corner = 1 - (3 / 7) ** 2
    assert found.border == pytest.approx((4 / 7 + corner) / 2)
    assert found.corners == pytest.approx((4 / 7) ** 2 / 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_centre_is_in_pixels_of_the_file(orientation: int) -> None:
    frame = InputFrame.from_upright_size(100, 80, orientation, Box(15, 5, 85, 75))
    found = statistics(one_cell(0, 6), frame)
    box = frame.to_file_box(Box(75, 5, 85, 15))
    assert found.centre == pytest.approx(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
    assert found.corners == pytest.approx(1)


def test_bars_beside_a_padded_photo_do_not_count() -> None:
    """A photo of 70 x 30 in the middle of the input: rows 2 to 4 of the grid."""
    frame = InputFrame(70, 30, 1, Box(0, -20, 70, 50))
    values = np.zeros((7, 7), np.float32)
    values[:2] = values[5:] = 1
    values[3, 2] = 0.5
    found = statistics(values, frame)
    assert found.entropy == 0
    assert found.centre == pytest.approx((25, 15))
    assert found.gini == pytest.approx(1 - 1 / 21)
    edge = np.zeros((7, 7), np.float32)
    edge[2, 3] = 1
    # The border is a seventh of what was seen: 30 / 7 of the 10 rows of a cell.
    assert statistics(edge, frame).border == pytest.approx(3 / 7)


def test_no_heat_has_no_figures() -> None:
    assert MapStatistics.of(Heatmap([np.zeros((7, 7), np.float32)], SIZE), FRAME) is None


def test_the_figures_of_several_layers_are_those_of_their_heatmap() -> None:
    heatmap = Heatmap([one_cell(1, 1), np.kron(one_cell(1, 1), np.ones((2, 2), np.float32))], SIZE)
    found = MapStatistics.of(heatmap, FRAME)
    assert found == MapStatistics.of(Heatmap([heatmap.map], SIZE), FRAME)
