"""Where the photos of a class show the same pixels: watermarks, logos, captions, frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import Pixels

#: Photos are compared at this side, windows of this side by their correlation.
SIDE: Final = 64
WINDOW: Final = 7
#: Added to the energy of a window: flat surfaces, which differ by noise alone, are not alike.
FLAT: Final = 30.0
#: Two windows are alike from this correlation on.
ALIKE: Final = 0.6
#: How many more pairs of one class than of two classes must be alike: a mark on half of a class
#: is in a quarter of its pairs.
MORE_PAIRS: Final = 0.12
#: The least and the largest part of a photo that is taken for a mark.
LEAST_AREA: Final = 0.004
LARGEST_AREA: Final = 0.35
#: At most as many pairs of a class are compared.
PAIRS: Final = 300

_AROUND: Final = np.ones((SIDE // 4 + 1, SIDE // 4 + 1), np.uint8)
Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]


@dataclass(frozen=True)
class _Structure:
    """A photo with what is the same in the surroundings taken out.

    Attributes:
        pixels: (SIDE, SIDE, 3).
        energy: (SIDE, SIDE) of the window around each.
    """

    pixels: Plane
    energy: Plane


def find_shared_pixels(photos: Mapping[int, Sequence[Pixels]], seed: int = 0) -> dict[int, Mask]:
    """Where many photos of a class have the same structure, and those of two classes do not.

    Where all classes have their objects in the same place, this place is left out: more than half
    of the classes share pixels there or nearby, each among its own photos.

    Args:
        photos: by class, some photos of any sizes.

    Returns:
        By class, (SIDE, SIDE); classes without such a place are left out.
    """
    generator = np.random.default_rng(seed)
    structures = {label: [_structure(photo) for photo in some] for label, some in photos.items()}
    everyone = [(label, one) for label, some in structures.items() for one in some]
    across = [
        (first, second)
        for (one, first), (other, second) in combinations(everyone, 2)
        if one != other
    ]
    if not across:
        return {}
    chance = _share_alike(across, generator)
    excess = {
        label: _share_alike(list(combinations(some, 2)), generator) - chance > MORE_PAIRS
        for label, some in structures.items()
        if len(some) >= 4
    }
    near = [cv2.dilate(mask.astype(np.uint8), _AROUND) for mask in excess.values()]
    of_many = np.sum(near, axis=0) > max(1, len(structures) // 2)
    found = {}
    for label, mask in excess.items():
        opened = cv2.morphologyEx(
            (mask & ~of_many).astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)
        )
        whole = cv2.dilate(opened, np.ones((WINDOW, WINDOW), np.uint8)).astype(bool)
        if opened.mean() >= LEAST_AREA and whole.mean() <= LARGEST_AREA:
            found[label] = whole
    return found


def _structure(photo: Pixels) -> _Structure:
    small = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    pixels = small - np.asarray(cv2.GaussianBlur(small, (0, 0), 3.0), np.float32)
    return _Structure(pixels, _windows(np.square(pixels).sum(axis=2)))


def _share_alike(
    pairs: Sequence[tuple[_Structure, _Structure]], generator: np.random.Generator
) -> Plane:
    """(SIDE, SIDE): in which share of some pairs the windows around each pixel are alike."""
    chosen = generator.permutation(len(pairs))[:PAIRS]
    alike = np.zeros((SIDE, SIDE), np.float32)
    for index in chosen.tolist():
        first, second = pairs[index]
        both = _windows((first.pixels * second.pixels).sum(axis=2))
        alike += both / np.sqrt((first.energy + FLAT) * (second.energy + FLAT)) > ALIKE
    return np.asarray(alike / max(1, len(chosen)), np.float32)


def _windows(values: Plane) -> Plane:
    return np.asarray(cv2.boxFilter(values, -1, (WINDOW, WINDOW)), np.float32)
