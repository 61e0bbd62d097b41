"""Whether a model looks at the object, where boxes or masks say where that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns

#: From how little heat on the object on, a map counts as outside of it: both of these hold.
OUTSIDE_MASS = 0.25
#: The heat on the object is less than even heat would put there, by this factor.
OUTSIDE_FACTOR = 1.0


@dataclass(frozen=True)
class BoxAgreement:
    """Of the photos with boxes, of all classes or of one.

    Attributes:
        label: of the predicted class; empty for all.
        photos: how many have figures.
        mass, pointing, energy, area: the means of these; see :mod:`box_figures`.
        outside: how many have their heat outside of the object.
        right: how many are predicted right.
        right_outside: how many of these have their heat outside of the object: right for the
            wrong reason.
    """

    label: str
    photos: int
    mass: float
    pointing: float
    energy: float
    area: float
    outside: int
    right: int
    right_outside: int


def is_outside(columns: ReportColumns) -> NDArray[np.bool_]:
    """(N,) whether a map's heat is outside of the object; false where there is no box.

    It is where at most a quarter of it is inside, and no more than if it were spread evenly.
    """
    if not columns.boxes:
        return np.zeros(len(columns.photos), np.bool_)
    mass, area = columns.boxes["mass"], columns.boxes["area"]
    # NaN compares as false.
    return (mass <= OUTSIDE_MASS) & (mass <= OUTSIDE_FACTOR * area)


def measure_box_agreement(columns: ReportColumns) -> list[BoxAgreement]:
    """Of all photos with boxes, then of each predicted class; empty where no photo has any."""
    if not columns.boxes:
        return []
    photos = columns.photos
    boxed = np.isfinite(columns.boxes["mass"])
    classes, counts = np.unique(photos.predicted[boxed], return_counts=True)
    order = np.lexsort((classes, -counts))
    agreements = [_agreement(columns, "", boxed)]
    for index in classes[order]:
        chosen = boxed & (photos.predicted == index)
        agreements.append(_agreement(columns, photos.classes[index], chosen))
    return agreements


def _agreement(columns: ReportColumns, label: str, chosen: NDArray[np.bool_]) -> BoxAgreement:
    outside = is_outside(columns) & chosen
    means = {name: float(column[chosen].mean()) for name, column in columns.boxes.items()}
    return BoxAgreement(
        label=label,
        photos=int(chosen.sum()),
        outside=int(outside.sum()),
        right=int((columns.right & chosen).sum()),
        right_outside=int((columns.right & outside).sum()),
        **means,
    )
