"""Which classes a model mistakes for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camserve_cli.report.columns import ReportColumns

#: So many pairs are shown, each with the contrast A-B of so many photos.
PAIRS, PHOTOS_A_PAIR = 10, 3


@dataclass(frozen=True)
class ConfusedPair:
    """Photos of one class that are predicted as another.

    Attributes:
        true, predicted: the indices of the classes.
        count: how many photos.
        of: how many photos show the true class.
        photos: (count,) the photos' places among the columns, those of highest probability first.
    """

    true: int
    predicted: int
    count: int
    of: int
    photos: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the photos that show the true class."""
        return self.count / self.of


def confused_pairs(columns: ReportColumns, most: int = PAIRS) -> list[ConfusedPair]:
    """The pairs with most photos, of all mistakes."""
    photos, wrong = columns.photos, np.flatnonzero(columns.wrong)
    by_pair: dict[tuple[int, int], list[int]] = {}
    for row in wrong:
        pair = (int(photos.true[row]), int(photos.predicted[row]))
        by_pair.setdefault(pair, []).append(int(row))
    pairs = [
        ConfusedPair(
            true,
            predicted,
            len(rows),
            int((photos.true == true).sum()),
            tuple(sorted(rows, key=lambda row: (-photos.probability[row], row))),
        )
        for (true, predicted), rows in by_pair.items()
    ]
    return sorted(pairs, key=lambda one: (-one.count, -one.share, one.true, one.predicted))[:most]
