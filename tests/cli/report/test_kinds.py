"""Which findings the hits of a class become: one mark shows in several tests."""

from __future__ import annotations

import numpy as np
import pytest

from camserve_cli.report.explained_photos import ExplainedPhotos
from camserve_cli.report.shortcuts.kinds import SHARED, Hit, findings_of_class
from camserve_cli.report.shortcuts.shared_pixels import SIDE, Mask
from camserve_cli.report.shortcuts.trials import Outcome

UPPER_LEFT, LOWER_LEFT = "the upper left corner", "the lower left corner"
TOP, BOTTOM, BORDER = "the top", "the bottom", "the border"
COLOURS, GRAIN = "colours and contrast", "grain"


def photos() -> ExplainedPhotos:
    nothing = np.zeros(4)
    return ExplainedPhotos(
        paths=["a.png", "b.png", "c.png", "d.png"],
        classes=["cat", "dog"],
        true=np.array([0, 0, 1, 1]),
        predicted=np.array([0, 0, 1, 1]),
        probability=nothing,
        maps=np.zeros((4, 7, 7), np.float16),
        evidence=np.ones(4, bool),
        border=nothing,
        corners=nothing,
        properties={},
    )


def outcome(gain: float) -> Outcome:
    return Outcome((3, 2), np.full(20, gain), 1.0, 7, 1)


def mask(rows: slice, columns: slice) -> Mask:
    chosen = np.zeros((SIDE, SIDE), bool)
    chosen[rows, columns] = True
    return chosen


def kinds(gains: dict[str, float], shared: Mask | None = None) -> list[str]:
    hits = [Hit(name, 1, outcome(gain)) for name, gain in gains.items()]
    return [one.kind for one in findings_of_class(photos(), hits, shared, 0.8)]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({UPPER_LEFT: 9}, ["corner"]),
        # A mark in a corner is in two strips, too.
        ({UPPER_LEFT: 9, TOP: 8, "the left side": 11, BORDER: 9}, ["corner"]),
        # A corner holds a part of a frame.
        ({UPPER_LEFT: 2, TOP: 4, BORDER: 12}, ["border"]),
        ({BOTTOM: 8, BORDER: 7, LOWER_LEFT: 3}, ["border"]),
        # Two corners of a band.
        ({LOWER_LEFT: 6, "the lower right corner": 6, BOTTOM: 7}, ["border"]),
        ({COLOURS: 8}, ["image_property"]),
        ({COLOURS: 8, "background": 6}, ["image_property"]),
        # A patch of a photo with grain has grain.
        ({GRAIN: 14, BORDER: 2}, ["image_property"]),
        # A frame changes the colours of the whole.
        ({BORDER: 12, COLOURS: 3}, ["border"]),
        ({BORDER: 9, "background": 10}, ["image_property", "border"]),
    ],
)
def test_what_is_strongest_names_the_mark(gains: dict[str, float], expected: list[str]) -> None:
    assert kinds(gains) == expected


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (slice(28, 36), slice(10, 50), "cluster"),
        (slice(2, 12), slice(2, 12), "corner"),
        (slice(50, 62), slice(48, 62), "corner"),
        (slice(54, 64), slice(0, 64), "border"),
        (slice(0, 64), slice(0, 8), "border"),
    ],
)
def test_shared_pixels_are_named_by_their_place(rows: slice, columns: slice, expected: str) -> None:
    assert kinds({SHARED: 9}, mask(rows, columns)) == [expected]


def test_a_watermark_that_reaches_into_a_strip_is_a_cluster() -> None:
    assert kinds({SHARED: 20, "the left side": 5}, mask(slice(28, 36), slice(2, 50))) == ["cluster"]


def test_a_corner_is_named_rather_than_its_shared_pixels() -> None:
    hits = [Hit(UPPER_LEFT, 1, outcome(9)), Hit(SHARED, 1, outcome(10))]
    (finding,) = findings_of_class(photos(), hits, mask(slice(0, 9), slice(0, 9)), 0.8)
    assert finding.kind == "corner"
    assert UPPER_LEFT in finding.text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (UPPER_LEFT, "the upper left corner of photos of 'dog' is copied into them"),
        (BORDER, "the border of photos of 'dog' is copied into them"),
        (COLOURS, "they get the colours and contrast of photos of 'dog'"),
        (SHARED, "the pixels that photos of 'dog' share are copied into them"),
    ],
)
def test_the_text_says_what_was_done_and_what_came_of_it(name: str, words: str) -> None:
    hit = Hit(name, 1, outcome(4.25))
    (finding,) = findings_of_class(photos(), [hit], mask(slice(28, 36), slice(20, 40)), 0.8)
    assert words in finding.text
    assert "in 20 of 20" in finding.text
    assert "4.2 logits" in finding.text
    assert "7 become 'dog'" in finding.text
    assert (finding.label, finding.share, finding.count) == ("dog", 1.0, 20)
    assert finding.limit == 0.8
    assert finding.photos == ("d.png", "c.png")


def test_an_outcome_counts_the_recipients_that_gain_more_than_the_limit() -> None:
    some = Outcome((0,), np.array([0.5, 1.0, 1.5, 3.0]), 1.0, 1, 0)
    assert (some.raised, some.share, some.gain) == (2, 0.5, 1.25)
    # Two or more of four, where either is as likely: 11 of 16.
    assert some.p_value == pytest.approx(11 / 16)


def test_an_outcome_without_recipients_says_nothing() -> None:
    none = Outcome((), np.zeros(0), 1.0, 0, 0)
    assert (none.share, none.gain, none.p_value) == (0.0, 0.0, 1.0)
