"""Boxes around hot regions: by hand, and for any map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camserve.images import Box, Heatmap, HotRegion, InputFrame, Map
from camserve.images.geometry import undo_orientation
from camserve.images.regions import find_hot_regions
from camserve.preprocess_settings import InputSize

SIDE = 224
SQUARE = InputSize(SIDE, SIDE)


def grid(**values: float) -> Map:
    """8 x 8 zeros, with values at cells ``pYX``, or ``pYX_YX`` for a rectangle of cells."""
    map = np.zeros((8, 8), np.float32)
    for cells, value in values.items():
        (top, left), *last = (parse_cell(cell) for cell in cells[1:].split("_"))
        bottom, right = last[0] if last else (top, left)
        map[top : bottom + 1, left : right + 1] = value
    return map


def parse_cell(cell: str) -> tuple[int, int]:
    return int(cell[0]), int(cell[1])


FULL = InputFrame.full(8, 8)
EIGHT = InputSize(8, 8)


def regions_of(map: Map, frame: InputFrame = FULL, threshold: float = 0.5) -> tuple[HotRegion, ...]:
    return find_hot_regions(Heatmap([map], EIGHT), frame, EIGHT, threshold)


#: A box and its share.
Rounded = tuple[tuple[float, ...], float]


def rounded(regions: Sequence[HotRegion]) -> list[Rounded]:
    return [
        (tuple(round(edge, 6) for edge in region.box), round(region.share, 6)) for region in regions
    ]


@pytest.mark.parametrize(
    ("map", "expected"),
    [
        pytest.param(grid(p11_22=1.0), [((1, 1, 3, 3), 1)], id="one"),
        pytest.param(
            grid(p11_22=1.0, p55_66=0.75),
            [((1, 1, 3, 3), 4 / 7), ((5, 5, 7, 7), 3 / 7)],
            id="two",
        ),
        pytest.param(
            grid(p00=1.0, p07=0.9, p70_77=0.8),
            [((0, 7, 8, 8), 6.4 / 8.3), ((0, 0, 1, 1), 1 / 8.3), ((7, 0, 8, 1), 0.9 / 8.3)],
            id="three-at-the-edges",
        ),
        pytest.param(grid(p11=1.0, p22=1.0, p33=1.0), [((1, 1, 4, 4), 1)], id="corner-to-corner"),
        pytest.param(
            grid(p11=1.0, p31=1.0),
            [((1, 1, 2, 2), 0.5), ((1, 3, 2, 4), 0.5)],
            id="a-gap-between",
        ),
        pytest.param(
            # What is not above the threshold joins nothing, but has its share of the heat.
            grid(p11=1.0, p12=0.5, p13=0.75),
            [((1, 1, 2, 2), 1 / 2.25), ((3, 1, 4, 2), 0.75 / 2.25)],
            id="threshold-exclusive",
        ),
        pytest.param(
            grid(p11=1.0, p44_47=0.6),
            [((4, 4, 8, 5), 2.4 / 3.4), ((1, 1, 2, 2), 1 / 3.4)],
            id="much-before-hot",
        ),
        pytest.param(
            grid(p11_12=1.0, p44_46=0.6),
            [((1, 1, 3, 2), 2 / 3.8), ((4, 4, 7, 5), 1.8 / 3.8)],
            id="much-before-large",
        ),
        pytest.param(
            grid(p11_12=1.0, p51_57=0.25),
            [((1, 1, 3, 2), 2 / 3.75)],
            id="all-heat-counts-not-only-the-hot",
        ),
        pytest.param(
            # A ring and what lies in it, touching nothing.
            grid(p11_55=0.6, p22_44=0, p33=1.0),
            [((1, 1, 6, 6), 9.6 / 10.6), ((3, 3, 4, 4), 1 / 10.6)],
            id="one-within-the-other",
        ),
        pytest.param(np.ones((8, 8), np.float32), [((0, 0, 8, 8), 1)], id="all"),
        pytest.param(np.full((8, 8), 0.5, np.float32), [], id="all-at-the-threshold"),
        pytest.param(np.zeros((8, 8), np.float32), [], id="none"),
    ],
)
def test_boxes_by_hand(map: Map, expected: list[Rounded]) -> None:
    assert rounded(regions_of(map)) == [(box, round(share, 6)) for box, share in expected]


@pytest.mark.parametrize(
    ("threshold", "edges"), [(0.0, (0, 1, 5, 2)), (0.3, (1, 1, 4, 2)), (0.7, (1, 1, 2, 2))]
)
def test_boxes_are_above_the_threshold(threshold: float, edges: tuple[int, ...]) -> None:
    map = grid(p10=0.2, p11=1.0, p12=0.4, p13=0.6, p14=0.3)
    found = regions_of(map, threshold=threshold)
    assert found[0].box == edges


def test_a_zero_heatmap_gives_no_box_at_threshold_zero() -> None:
    assert regions_of(np.zeros((8, 8), np.float32), threshold=0) == ()


def test_boxes_are_in_the_photos_pixels() -> None:
    # The 8 x 8 input is 16 x 24 pixels of the photo, from (10, 20) on.
    frame = InputFrame(100, 90, 1, Box(10, 20, 26, 44))
    map = grid(p00=1.0, p35_46=0.8)
    assert rounded(regions_of(map, frame)) == [
        ((20, 29, 24, 35), round(3.2 / 4.2, 6)),
        ((10, 20, 12, 23), round(1 / 4.2, 6)),
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_in_the_files_pixels(orientation: int) -> None:
    frame = InputFrame.from_upright_size(24, 10, orientation, Box(6, 1, 22, 9))
    map = grid(p01_12=1.0, p66=0.9)
    upright = np.zeros((2, 10, 24), np.uint8)
    upright[0, 1:3, 8:12] = 1
    upright[1, 7:8, 18:20] = 1
    found = regions_of(map, frame)
    assert len(found) == 2
    for region, painted in zip(found, upright, strict=True):
        stored = undo_orientation(painted, orientation)
        x0, y0, x1, y1 = (int(edge) for edge in region.box)
        assert region.box == (x0, y0, x1, y1)
        assert stored[y0:y1, x0:x1].all()
        assert stored.sum() == (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        # Bars of two pixels left and right, then above and below, which are no part of the photo.
        pytest.param(InputFrame(4, 8, 1, Box(-2, 0, 6, 8)), (0, 3, 4, 5), id="left-and-right"),
        pytest.param(InputFrame(8, 4, 1, Box(0, -2, 8, 6)), (0, 1, 8, 3), id="above-and-below"),
        pytest.param(InputFrame(12, 6, 3, Box(0, -3, 12, 9)), (0, 1.5, 12, 4.5), id="upside-down"),
        pytest.param(InputFrame(8, 4, 6, Box(-2, 0, 6, 8)), (3, 0, 5, 4), id="on-its-side"),
    ],
)
def test_padding_is_not_part_of_boxes_and_shares(
    frame: InputFrame, expected: tuple[float, ...]
) -> None:
    # A hot row through the middle, and a hot spot in each corner, in the bars.
    map = grid(p30_47=1.0, p00=1.0, p07=1.0, p70=1.0, p77=1.0)
    assert regions_of(map, frame) == (HotRegion(Box(*expected), 1.0),)


def test_heat_in_the_padding_alone_gives_no_box() -> None:
    assert regions_of(grid(p00_07=1.0), InputFrame(8, 4, 1, Box(0, -2, 8, 6))) == ()


def flood_fill(values: Map, threshold: float) -> Iterator[set[tuple[int, int]]]:
    """Connected regions by a second implementation: the cells of each."""
    remaining = {(int(y), int(x)) for y, x in np.argwhere(values > threshold)}
    while remaining:
        region, frontier = set(), [remaining.pop()]
        while frontier:
            y, x = frontier.pop()
            region.add((y, x))
            for cell in product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if cell in remaining:
                    remaining.remove(cell)
                    frontier.append(cell)
        yield region


VALUES = st.sampled_from([0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


@given(
    st.lists(VALUES, min_size=64, max_size=64),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.3, 0.4, 0.7]),
)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_boxes_are_those_of_the_regions(
    values: list[float], orientation: int, threshold: float
) -> None:
    map = np.array(values, np.float32).reshape(8, 8)
    # Two rows of bars, six of photo; a pixel of the input is two of the photo.
    frame = InputFrame.from_upright_size(16, 12, orientation, Box(0, -2, 16, 14))
    photo_values = map[1:7]
    expected = []
    for region in flood_fill(photo_values, float(np.float32(threshold))):
        rows, columns = zip(*region, strict=True)
        upright = Box(2 * min(columns), 2 * min(rows), 2 * max(columns) + 2, 2 * max(rows) + 2)
        heat = sum(float(photo_values[cell]) for cell in region) / float(
            photo_values.sum(dtype=np.float64)
        )
        expected.append((tuple(frame.to_file_box(upright)), round(heat, 6)))
    found = regions_of(map, frame, threshold)
    assert sorted(rounded(found)) == sorted(expected)
    shares = [region.share for region in found]
    assert shares == sorted(shares, reverse=True)
    # Above zero, all the heat that there is lies in a box.
    least = 1 - 1e-6 if threshold == 0 and found else 0
    assert least <= sum(shares) <= 1 + 1e-9


def test_boxes_of_several_layers_are_those_of_their_mean() -> None:
    maps = [grid(p11=1.0, p66=0.6), grid(p11=0.2, p66=1.0), grid(p11=1.0)]
    mean = np.mean(maps, axis=0)
    found = find_hot_regions(Heatmap(maps, EIGHT), FULL, EIGHT, 0.5)
    assert rounded(found) == rounded(regions_of((mean / mean.max()).astype(np.float32)))
    assert [region.box for region in found] == [(1, 1, 2, 2), (6, 6, 7, 7)]


def test_boxes_of_a_layers_grid_follow_its_heat_at_the_networks_input() -> None:
    # One hot cell of 7: its heat falls to a half halfway to the next cell.
    map = np.zeros((7, 7), np.float32)
    map[2, 4] = 1
    (region,) = find_hot_regions(
        Heatmap([map], SQUARE), InputFrame(448, 448, 1, Box(0, 0, 448, 448)), SQUARE, 0.5
    )
    x0, y0, x1, y1 = region.box
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (4.5 * 64, 2.5 * 64)
    assert 56 <= x1 - x0 <= 66
    assert 56 <= y1 - y0 <= 66
