"""Pixels that the photos of one class share, and no others."""

from __future__ import annotations

import cv2
import numpy as np

from camserve_cli.report.explained_photos import Pixels
from camserve_cli.report.shortcuts.shared_pixels import SIDE, find_shared_pixels


def photo(generator: np.random.Generator, side: int = 64) -> Pixels:
    """Blobs of colour that differ from photo to photo."""
    blobs = generator.integers(0, 256, (22, 22, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blobs, (side, side)), np.uint8)


def photos(classes: int, count: int = 20, side: int = 64) -> dict[int, list[Pixels]]:
    generator = np.random.default_rng(0)
    return {label: [photo(generator, side) for _ in range(count)] for label in range(classes)}


def stamp(some: list[Pixels], place: tuple[int, int], every: int = 1) -> None:
    """The same checked square on every n-th photo."""
    tile = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((3, 3)))[..., None] * 255
    row, column = place
    for one in some[::every]:
        one[row : row + 12, column : column + 12] = tile


def test_a_stamp_on_one_class_is_found_where_it_is() -> None:
    some = photos(3)
    stamp(some[1], (26, 40))
    found = find_shared_pixels(some)
    assert list(found) == [1]
    mask = found[1]
    assert mask.shape == (SIDE, SIDE)
    assert mask[26:38, 40:52].all()
    assert mask.mean() < 0.15


def test_a_stamp_on_half_of_a_class_is_found() -> None:
    some = photos(3)
    stamp(some[2], (5, 5), every=2)
    assert list(find_shared_pixels(some)) == [2]


def test_nothing_is_found_in_photos_that_share_nothing() -> None:
    assert find_shared_pixels(photos(4)) == {}


def test_what_all_classes_share_is_none_of_a_class() -> None:
    some = photos(3)
    for of_class in some.values():
        stamp(of_class, (5, 5))
    assert find_shared_pixels(some) == {}


def test_an_object_in_the_same_place_in_each_class_is_no_mark() -> None:
    some = photos(3)
    for label, of_class in some.items():
        for one in of_class:
            cv2.circle(one, (32, 32), 8 + 4 * label, (0, 0, 0), 3)
    assert find_shared_pixels(some) == {}


def test_photos_of_different_sizes_are_compared() -> None:
    some = photos(3)
    stamp(some[0], (40, 10))
    some[0] = [
        np.asarray(cv2.resize(one, (100 + 10 * turn, 90)), np.uint8)
        for turn, one in enumerate(some[0])
    ]
    assert list(find_shared_pixels(some)) == [0]


def test_one_class_and_few_photos_share_nothing() -> None:
    assert find_shared_pixels(photos(1)) == {}
    assert find_shared_pixels({}) == {}
    few = photos(2, count=3)
    stamp(few[0], (5, 5))
    assert find_shared_pixels(few) == {}
