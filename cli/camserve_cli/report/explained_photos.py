"""The photos of a report as columns, from which every part of it is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Some photos (H, W, 3) RGB -> (n, C) the model's logit of each class; -inf where it tells none.
Predict = Callable[[Sequence[Pixels]], Floats]
#: The place of a photo among the columns -> what the network saw of it, upright, (H, W, 3) RGB.
ReadSeen = Callable[[int], Pixels]


@dataclass(frozen=True)
class ExplainedPhotos:
    """N photos that were explained, each for the class that the model predicts.

    Attributes:
        paths: of each, relative to the folder.
        classes: the labels of the model's C classes.
        true: (N,) index of the class that a photo shows, -1 where that is not known.
        predicted: (N,) index of the class that the model predicts.
        probability: (N,) of the predicted class.
        maps: (N, h, w) float16 in [0, 1], of the predicted class; zeros where there is no evidence.
        evidence: (N,) bool, whether the map has any.
        border, corners: (N,) shares of heat, NaN where there is none.
        properties: by name, (N,) a figure of each photo, as its brightness; NaN where unknown.
    """

    paths: Sequence[str]
    classes: Sequence[str]
    true: Integers
    predicted: Integers
    probability: Floats
    maps: NDArray[np.float16]
    evidence: NDArray[np.bool_]
    border: Floats
    corners: Floats
    properties: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.paths)
