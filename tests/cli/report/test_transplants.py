"""What donors give to a recipient, on photos small enough to say what must come out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import Pixels
from camserve_cli.report.shortcuts.transplants import (
    Recipient,
    copy_where,
    corner_masks,
    edge_masks,
    match_colours,
    match_grain,
    match_shading,
    property_transplants,
    replace_background,
    resize_to,
    shift_colours,
)

SIDE = 40


def flat(value: int | tuple[int, int, int]) -> Pixels:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


def grained(sigma: float, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(128, sigma, (SIDE, SIDE, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def recipient(pixels: Pixels) -> Recipient:
    """With its heat in the middle."""
    heat = np.zeros((8, 8), np.float16)
    heat[3:5, 3:5] = 1
    return Recipient(pixels, heat)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("the upper left corner", slice(0, 10), slice(0, 10)),
        ("the upper right corner", slice(0, 10), slice(30, 40)),
        ("the lower left corner", slice(30, 40), slice(0, 10)),
        ("the lower right corner", slice(30, 40), slice(30, 40)),
        ("the top", slice(0, 7), slice(0, 40)),
        ("the bottom", slice(33, 40), slice(0, 40)),
        ("the left side", slice(0, 40), slice(0, 7)),
        ("the right side", slice(0, 40), slice(33, 40)),
    ],
)
def test_a_region_is_copied_and_nothing_else(name: str, rows: slice, columns: slice) -> None:
    mask = {**corner_masks(), **edge_masks()}[name]
    changed = copy_where(mask)([flat(200)], recipient(flat(10)))
    inside = np.zeros((SIDE, SIDE), np.uint8)
    inside[rows, columns] = 1
    assert_copied(changed, inside)


def assert_copied(changed: Pixels, inside: NDArray[np.uint8]) -> None:
    """What is inside, by more than the seam's width, is the donor's; what is outside is not."""
    near = np.ones((5, 5), np.uint8)
    core = cv2.erode(inside, near, borderValue=1) == 1
    beyond = cv2.dilate(inside, np.ones((9, 9), np.uint8)) == 0
    assert changed[core].min() > 190
    assert (changed[beyond] == 10).all()
    # The seam is where the region ends, and in no place a step.
    assert ((changed[..., 0] > 105) == (inside == 1)).mean() > 0.97
    steps = [np.abs(np.diff(changed[..., 0].astype(int), axis=axis)).max() for axis in (0, 1)]
    assert max(steps) < 80


def test_the_border_is_an_eighth_of_each_side() -> None:
    changed = copy_where(edge_masks()["the border"])([flat(200)], recipient(flat(10)))
    inside = np.ones((SIDE, SIDE), np.uint8)
    inside[5:35, 5:35] = 0
    assert_copied(changed, inside)


def test_several_donors_give_their_median() -> None:
    everywhere = np.ones((3, 3), bool)
    changed = copy_where(everywhere)([flat(0), flat(90), flat(200)], recipient(flat(10)))
    assert (changed == 90).all()


def test_a_region_fits_a_photo_that_is_not_square() -> None:
    wide = Recipient(np.full((20, 80, 3), 10, np.uint8), np.ones((2, 2)))
    donor = np.full((20, 80, 3), 200, np.uint8)
    changed = copy_where(corner_masks()["the lower right corner"])([donor], wide)
    assert (changed[17:, 63:] > 190).all()
    assert (changed[:11] == 10).all()
    assert (changed[:, :55] == 10).all()


def test_colours_get_the_donors_mean_and_deviation() -> None:
    donor = np.clip(grained(10) + np.array([60, 0, -60]), 0, 255).astype(np.uint8)
    changed = match_colours([donor], recipient(grained(30, seed=1)))
    np.testing.assert_allclose(changed.mean((0, 1)), donor.mean((0, 1)), atol=0.5)
    np.testing.assert_allclose(changed.std((0, 1)), donor.std((0, 1)), atol=0.5)


def test_colours_of_a_flat_photo_are_the_donors_mean() -> None:
    assert (match_colours([flat((200, 100, 50))], recipient(flat(10))) == [200, 100, 50]).all()


def test_a_tint_is_added_to_what_a_photo_has() -> None:
    usual = [grained(20, seed) for seed in range(3)]
    donors = [np.clip(one + np.array([40, 0, -40]), 0, 255).astype(np.uint8) for one in usual]
    own = np.clip(grained(20, seed=5) - np.array([0, 0, 50]), 0, 255).astype(np.uint8)
    changed = shift_colours(usual)(donors, recipient(own))
    difference = changed.astype(float).mean((0, 1)) - own.mean((0, 1))
    np.testing.assert_allclose(difference, [40, 0, -40], atol=1)
    np.testing.assert_allclose(changed.std((0, 1)), own.std((0, 1)), atol=1)


@pytest.mark.parametrize("sigma", [0, 20])
def test_grain_is_as_strong_as_the_donors(sigma: float) -> None:
    changed = match_grain([grained(sigma)], recipient(grained(8, seed=1)))
    fine = changed.astype(float) - cv2.blur(changed.astype(float), (3, 3))
    expected = grained(sigma).astype(float) - cv2.blur(grained(sigma).astype(float), (3, 3))
    assert fine.std() == pytest.approx(expected.std(), abs=4)


def test_shading_makes_the_same_parts_dark_and_keeps_the_brightness() -> None:
    donor = flat(160)
    donor[:, :20] = 40
    changed = match_shading([donor], recipient(flat(100))).astype(float)
    assert changed[:, :5].mean() < 60
    assert changed[:, 35:].mean() > 140
    assert changed.mean() == pytest.approx(100, abs=5)


def test_the_background_changes_and_the_object_stays() -> None:
    changed = replace_background([flat(200)], recipient(flat(10)))
    assert (changed[18:22, 18:22] == 10).all()
    assert (changed[:8] == 200).all()
    assert (changed[:, 32:] == 200).all()


@pytest.mark.parametrize("name", property_transplants([flat(0)]))
@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (64, 64)])
def test_a_property_of_a_photo_of_any_size(name: str, shape: tuple[int, int]) -> None:
    donor = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    own = Recipient(np.zeros((*shape, 3), np.uint8), np.zeros((2, 2), np.float16))
    changed = property_transplants([donor])[name]([donor], own)
    assert changed.shape == (*shape, 3)
    assert str(changed.dtype) == "uint8"


def test_a_photo_that_gives_itself_its_colours_and_shading_stays_as_it_is() -> None:
    photo = grained(20)
    for transplant in (match_colours, match_shading):
        difference = np.abs(transplant([photo], recipient(photo)).astype(int) - photo)
        assert difference.max() <= 1


def test_a_donor_is_resized_to_the_recipient() -> None:
    assert resize_to(flat(7), np.zeros((10, 60, 3), np.uint8)).shape == (10, 60, 3)
    same = flat(7)
    assert resize_to(same, flat(0)) is same
