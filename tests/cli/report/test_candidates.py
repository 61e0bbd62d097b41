"""The classes that a search for shortcuts tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import ExplainedPhotos, Pixels
from camserve_cli.report.shortcuts.candidates import (
    less_sharp,
    most_different,
    of_other_colours,
    of_other_tint,
)


def photos() -> ExplainedPhotos:
    """Ten photos of each of five classes; the fourth's heat is in the corners."""
    predicted = np.repeat(np.arange(5), 10)
    generator = np.random.default_rng(0)
    return ExplainedPhotos(
        paths=[f"{index}.png" for index in range(50)],
        classes=[*"abcde"],
        true=predicted,
        predicted=predicted,
        probability=np.ones(50),
        maps=np.zeros((50, 7, 7), np.float16),
        evidence=np.ones(50, bool),
        border=generator.normal(0.4, 0.01, 50),
        corners=np.where(predicted == 3, 0.5, 0.1),
        properties={
            "brightness": np.where(predicted == 1, 90.0, 100.0),
            "blur": np.full(50, np.nan),
        },
    )


def test_all_classes_where_there_are_few() -> None:
    assert most_different(photos(), 5) == [0, 1, 2, 3, 4]


def test_the_most_different_where_there_are_many() -> None:
    assert most_different(photos(), 2) == [1, 3]


def test_two_at_least() -> None:
    assert len(most_different(photos(), 0)) == 2


def test_classes_that_are_not_predicted_are_not_tried() -> None:
    some = photos()
    assert most_different(replace(some, predicted=np.full(50, 2)), 5) == [2]


def circles(blur: float, seed: int, count: int = 12) -> list[Pixels]:
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        photo = generator.integers(100, 110, (64, 64, 3)).astype(np.uint8)
        x, y, radius = generator.integers((20, 20, 6), (44, 44, 18)).tolist()
        cv2.circle(photo, (x, y), radius, generator.integers(0, 256, 3).tolist(), -1)
        drawn.append(np.asarray(cv2.GaussianBlur(photo, (0, 0), blur) if blur else photo, np.uint8))
    return drawn


def test_a_class_whose_photos_are_blurred_is_less_sharp() -> None:
    seen = {0: circles(0, 1), 1: circles(1.5, 2), 2: circles(0, 3)}
    assert less_sharp(seen) == [1]


def test_none_is_less_sharp_where_all_are_alike() -> None:
    assert less_sharp({label: circles(1.0, label) for label in range(4)}) == []


Change = Callable[[Pixels], NDArray[np.floating]]


def changed(seed: int, change: Change, share: float = 1.0) -> list[Pixels]:
    """Circles, of which some are changed."""
    drawn = circles(0, seed, 40)
    count = round(share * len(drawn))
    some = [np.clip(change(photo), 0, 255).astype(np.uint8) for photo in drawn[:count]]
    return [*some, *drawn[count:]]


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize(
    "change",
    [
        lambda photo: photo * np.array([1.3, 1.0, 0.7]),
        lambda photo: photo * 0.6,
        lambda photo: photo + 40.0,
    ],
    ids=["tinted", "darker", "brighter"],
)
def test_a_class_of_another_tint_or_brightness(change: Change, share: float) -> None:
    seen = {label: changed(label, change, share if label == 1 else 0) for label in range(5)}
    assert of_other_tint(seen) == of_other_colours(seen) == [1]


def test_a_class_of_less_contrast_has_other_colours_and_no_other_tint() -> None:
    def flat(photo: Pixels) -> NDArray[np.floating]:
        mean = photo.mean(axis=(0, 1))
        return np.asarray((photo - mean) * 0.3 + mean)

    seen = {label: changed(label, flat, label == 1) for label in range(4)}
    assert of_other_tint(seen) == []
    assert of_other_colours(seen) == [1]


def test_two_classes_that_share_a_tint_are_both_of_another() -> None:
    seen = {label: changed(label, lambda photo: photo * 0.6, label in (1, 2)) for label in range(6)}
    assert of_other_tint(seen) == [1, 2]


def test_no_class_is_of_another_tint_where_all_are_alike() -> None:
    seen = {label: changed(label, lambda photo: photo * 0.6) for label in range(4)}
    assert of_other_tint(seen) == of_other_colours(seen) == []
