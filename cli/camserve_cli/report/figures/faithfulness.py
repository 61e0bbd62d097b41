"""Whether the maps are true to the model: their figures beside a random map's and the centre's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.figures.chance import p_sign

#: Whether more is better of a figure, by name.
MORE_IS_BETTER: Final[Mapping[str, bool]] = {
    "drop": False,
    "increase": True,
    "insertion": True,
    "deletion": False,
    "road": True,
}
#: A map beats another where the sign test says so at this level.
_LEVEL: Final = 0.01


@dataclass(frozen=True)
class FaithfulnessSummary:
    """One figure of the photos for which it was measured.

    Attributes:
        name: of the figure.
        photos: how many.
        value, random, centre: its means: of the model's maps, of random maps, of maps of the
            centre.
        more_is_better: whether a true map has a higher figure.
        better_than_random, better_than_centre: how many photos' maps are better than these; and the
            sign test's p.
        p_random, p_centre: how likely that is by chance.
    """

    name: str
    photos: int
    value: float
    random: float
    centre: float
    more_is_better: bool
    better_than_random: int
    better_than_centre: int
    p_random: float
    p_centre: float

    @property
    def beats_random(self) -> bool:
        """Whether the maps are better than random ones, beyond chance."""
        return self.p_random < _LEVEL

    @property
    def beats_centre(self) -> bool:
        """Whether the maps are better than the centre, beyond chance."""
        return self.p_centre < _LEVEL


def summarise_faithfulness(columns: ReportColumns) -> list[FaithfulnessSummary]:
    """Of each figure that was measured."""
    summaries = []
    for name, figures in columns.faithfulness.items():
        complete = figures[np.isfinite(figures).all(1)]
        if len(complete) == 0:
            continue
        sign = 1.0 if MORE_IS_BETTER.get(name, True) else -1.0
        value, random, centre = complete.T
        over_random, over_centre = sign * (value - random), sign * (value - centre)
        summaries.append(
            FaithfulnessSummary(
                name=name,
                photos=len(complete),
                value=float(value.mean()),
                random=float(random.mean()),
                centre=float(centre.mean()),
                more_is_better=sign > 0,
                better_than_random=int((over_random > 0).sum()),
                better_than_centre=int((over_centre > 0).sum()),
                p_random=p_sign(over_random),
                p_centre=p_sign(over_centre),
            )
        )
    return summaries
