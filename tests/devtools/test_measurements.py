"""Percentiles, slopes and ratios, worked out by hand."""

from __future__ import annotations

import math

import pytest

from devtools.measurements import Summary, percentile, ratio, slope


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([4, 1, 3, 2], 0.5, 2.5),
        ([3, 1, 2], 0.5, 2),
        ([7], 0.99, 7),
        (list(range(101)), 0.99, 99),
        ([10, 20], 0.25, 12.5),
    ],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_slopes() -> None:
    assert slope([0, 1, 2], [1, 3, 5]) == pytest.approx(2)
    # Deviations from the means (1, 2): -1 * -1 + 0 * -1 + 1 * 2 = 3, over 1 + 0 + 1.
    assert slope([0, 1, 2], [1, 1, 4]) == pytest.approx(1.5)
    assert slope([3, 3], [1, 5]) == 0


def test_a_ratio_is_taken_repetition_by_repetition() -> None:
    # The medians' own ratio would be 20 / 4.
    assert ratio([10, 30, 20], [4, 5, 2]) == Summary(6, 2.5, 10, (2.5, 6, 10))
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])
