"""Which classes a search for shortcuts tries, where it does not try all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import ExplainedPhotos, Floats, Pixels
from camserve_cli.report.shortcuts.transplants import sharpness

#: A class is less sharp where its photo is the less sharp one in this share of all pairs.
LESS_SHARP: Final = 0.75


def most_different(photos: ExplainedPhotos, most: int) -> list[int]:
    """The predicted classes, or the ``most`` whose heat and properties differ most from all.

    Args:
        most: at least 2 are given where there are so many.
    """
    classes: list[int] = np.unique(photos.predicted).astype(int).tolist()
    if len(classes) <= most:
        return classes
    figures = [photos.border, photos.corners, *photos.properties.values()]
    differences = {
        label: max(_difference(figure, photos.predicted == label) for figure in figures)
        for label in classes
    }
    ranked = sorted(classes, key=lambda label: -differences[label])
    return sorted(ranked[: max(2, most)])


def less_sharp(seen: Mapping[int, Sequence[Pixels]]) -> list[int]:
    """The classes whose photos are less sharp than those of the others.

    The others are not tried for a blur: it takes the shapes of objects, and a model may take
    whatever has no shape for one class.

    Args:
        seen: by class, some photos.
    """
    measured = {label: np.array([sharpness(one) for one in some]) for label, some in seen.items()}
    found = []
    for label, own in measured.items():
        others = np.concatenate([measured[other] for other in measured if other != label])
        if (own[:, None] < others).mean() >= LESS_SHARP:
            found.append(label)
    return found


def _difference(figure: Floats, own: NDArray[np.bool_]) -> float:
    """How far the mean of some photos is from that of all, in standard errors."""
    finite = np.isfinite(figure)
    deviation = float(figure[finite].std()) if finite.any() else 0.0
    count = int((own & finite).sum())
    if deviation == 0 or count == 0:
        return 0.0
    shift = abs(float(figure[own & finite].mean()) - float(figure[finite].mean()))
    return shift / deviation * float(np.sqrt(count))
