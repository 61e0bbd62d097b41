"""Which classes a search for shortcuts tries, where it does not try all.

What a network learns from the photos of a class is a property that they have: a class whose photos
are as those of the others is not tried for it. A network may come nearer to whatever class all the
same, as to the one that it takes for granted where it sees no object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import ExplainedPhotos, Floats, Pixels
from camserve_cli.report.shortcuts.transplants import sharpness

#: A class is less sharp where its photo is the less sharp one in this share of all pairs.
LESS_SHARP: Final = 0.75
#: The level at which photos of two classes differ in tint or brightness, and in contrast, which
#: follows the sizes and shapes of objects as well.
OTHER_TINT: Final = 0.3
OTHER_CONTRAST: Final = 0.01


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


def of_other_tint(seen: Mapping[int, Sequence[Pixels]]) -> list[int]:
    """The classes whose photos are not tinted, or not as bright, as those of most other classes.

    Args:
        seen: by class, some photos.
    """
    return _different_from_most(seen, _tint, OTHER_TINT)


def of_other_colours(seen: Mapping[int, Sequence[Pixels]]) -> list[int]:
    """The same, and those whose photos have another contrast.

    Args:
        seen: by class, some photos.
    """
    found = {*of_other_tint(seen), *_different_from_most(seen, _contrast, OTHER_CONTRAST)}
    return sorted(found)


def _tint(photo: Pixels) -> list[float]:
    """The ratios of the channels' means, and the brightness, as logarithms."""
    red, green, blue = np.log(cv2.mean(photo)[:3] + np.ones(3))
    return [red - green, blue - green, blue - red, (red + green + blue) / 3]


def _contrast(photo: Pixels) -> list[float]:
    return [float(np.log(cv2.meanStdDev(photo)[1] + 1).mean())]


def _different_from_most(
    seen: Mapping[int, Sequence[Pixels]], measure: Callable[[Pixels], list[float]], level: float
) -> list[int]:
    """The classes whose figures differ from those of half of the other classes, or more.

    By the test of Kolmogorov and Smirnov, since a mark may be on a part of the photos alone; the
    least p of the figures counts, times their number.
    """
    from scipy.stats import ks_2samp

    figures = {label: np.array([measure(one) for one in some]).T for label, some in seen.items()}
    found = []
    for label, own in figures.items():
        chances = [
            len(own) * min(float(ks_2samp(*pair).pvalue) for pair in zip(own, other, strict=True))
            for other_label, other in figures.items()
            if other_label != label
        ]
        if np.median(chances) < level:
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
