"""Maps that fall into groups: how many, which, and those that look like a watermark's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve_cli.report.figures.clusters import GRID, cluster_maps, heat_shares

Maps = NDArray[np.float64]


def blobs(places: list[tuple[float, float]], count: int, seed: int = 0, side: int = 14) -> Maps:
    """(len(places) * count, side, side) maps, hot around each place (row, column) in turn."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side]
    maps = []
    for row, column in places:
        for _ in range(count):
            down, right = generator.normal((row, column), 0.4)
            maps.append(np.exp(-((y - down) ** 2 + (x - right) ** 2) / 8))
    return np.array(maps)


CORNER, CENTRE, EDGE = (1.0, 1.0), (7.0, 7.0), (7.0, 12.5)


@pytest.mark.parametrize(
    "places", [[CORNER, CENTRE], [CORNER, CENTRE, EDGE], [CORNER, CENTRE, EDGE, (12.0, 2.0)]]
)
def test_as_many_clusters_as_places(places: list[tuple[float, float]]) -> None:
    found = cluster_maps(blobs(places, 20))
    assert found.count == len(places)
    assert found.eigengap > 0.1
    groups = found.assignment.reshape(len(places), 20)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups[:, 0])) == len(places)


def test_the_largest_cluster_comes_first_and_means_are_of_its_maps() -> None:
    maps = np.concatenate([blobs([CORNER], 12), blobs([CENTRE], 30, seed=1)])
    found = cluster_maps(maps)
    assert found.assignment.tolist() == [1] * 12 + [0] * 30
    np.testing.assert_allclose(found.means[0], heat_shares(maps[12:]).mean(axis=0))
    np.testing.assert_allclose(found.means.sum(axis=(1, 2)), 1)


def test_one_place_is_one_cluster() -> None:
    found = cluster_maps(blobs([CENTRE], 40))
    assert (found.count, found.eigengap) == (1, 0.0)
    assert found.assignment.tolist() == [0] * 40


def test_maps_that_are_spread_evenly_have_no_clusters() -> None:
    generator = np.random.default_rng(3)
    places = [tuple(place) for place in generator.uniform(1, 13, (60, 2))]
    assert cluster_maps(blobs(places, 1)).count == 1


def test_maps_without_heat_belong_nowhere() -> None:
    maps = blobs([CORNER, CENTRE], 10)
    maps[[2, 13]] = 0
    found = cluster_maps(maps)
    assert found.assignment[[2, 13]].tolist() == [-1, -1]
    assert found.count == 2


@pytest.mark.parametrize(("count", "clusters"), [(0, 0), (5, 0)])
def test_no_heat_at_all_is_no_cluster(count: int, clusters: int) -> None:
    found = cluster_maps(np.zeros((count, 7, 7)))
    assert (found.count, found.means.shape) == (clusters, (0, GRID, GRID))
    assert found.assignment.tolist() == [-1] * count


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_identical_maps_are_one_cluster(count: int) -> None:
    found = cluster_maps(np.repeat(blobs([CENTRE], 1), count, axis=0))
    assert found.count == 1
    assert found.assignment.tolist() == [0] * count


def test_two_groups_of_identical_maps_are_two_clusters() -> None:
    maps = np.concatenate([np.repeat(blobs([place], 1), 15, axis=0) for place in (CORNER, CENTRE)])
    assert cluster_maps(maps).count == 2


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (1, 1), (3, 5), (24, 24)])
def test_maps_of_any_size(shape: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((20, *shape)).astype(np.float16)
    shares = heat_shares(maps)
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), 1)
    assert cluster_maps(maps).assignment.min() == 0


def test_values_that_are_no_numbers_are_no_heat() -> None:
    maps = np.full((9, 7, 7), np.nan)
    maps[:, 0, 0] = 1
    assert heat_shares(maps)[:, 0, 0].tolist() == [1.0] * 9


def test_more_maps_than_the_sample_join_the_nearest_cluster() -> None:
    found = cluster_maps(blobs([CORNER, CENTRE], 700))
    assert found.count == 2
    assert (found.assignment.reshape(2, 700) == [[0], [1]]).mean() in (0.0, 1.0)


def test_a_small_compact_cluster_at_the_edge_is_like_a_watermark() -> None:
    maps = np.concatenate([blobs([CENTRE], 30), blobs([CORNER], 12, seed=1)])
    assert cluster_maps(maps).watermark_like == (False, True)


def test_a_whole_class_at_the_edge_is_not() -> None:
    assert cluster_maps(blobs([CORNER], 40)).watermark_like == (False,)


def test_the_same_seed_gives_the_same_clusters() -> None:
    maps = blobs([CORNER, CENTRE, EDGE], 500)
    first, second = cluster_maps(maps, seed=5), cluster_maps(maps, seed=5)
    assert first.assignment.tolist() == second.assignment.tolist()
    assert first.eigenvalues.tolist() == second.eigenvalues.tolist()
