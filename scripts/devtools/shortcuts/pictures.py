"""Pictures of objects, whose classes differ by the object's shape alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

#: Corners of each shape, in a circle of radius 1; the disc and the ring are drawn as circles.
CLASSES: Final = ("disc", "square", "triangle", "star", "cross", "ring", "bar", "arrow")
#: The radius of an object, as a share of the picture's side.
RADIUS: Final = (0.2, 0.32)
#: The least distance between the colours of an object and of the background, of 255.
CONTRAST: Final = 110.0


@dataclass(frozen=True)
class Scene:
    """What a picture is composed of.

    Attributes:
        background: (size, size, 3) RGB, 0 to 255.
        mask: (size, size) in [0, 1], 1 inside of the object.
        colour: (3,) of the object.
        noise: (size, size, 3) added to the picture.
    """

    background: Floats
    mask: Floats
    colour: Floats
    noise: Floats

    def picture(self) -> Pixels:
        """(size, size, 3) RGB."""
        pixels = self.background + self.mask[..., None] * (self.colour - self.background)
        return to_pixels(pixels + self.noise)


def to_pixels(values: NDArray[np.floating]) -> Pixels:
    """Any values, as the nearest that a picture has."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def draw_scene(label: str, size: int, generator: np.random.Generator) -> Scene:
    """One object on a textured background.

    Colours, texture, place, size and rotation are drawn alike for every class.

    Args:
        label: one of :data:`CLASSES`.
    """
    background = _background(size, generator)
    radius = generator.uniform(*RADIUS) * size
    centre = generator.uniform(1.05 * radius, size - 1.05 * radius, 2)
    mask = _shape(label, size, centre, radius, generator.uniform(0, 2 * np.pi))
    under = background[mask > 0.5].mean(axis=0)
    colour = generator.uniform(0, 255, 3)
    while np.linalg.norm(colour - under) < CONTRAST:
        colour = generator.uniform(0, 255, 3)
    noise = generator.normal(0, generator.uniform(2, 6), background.shape)
    return Scene(background, mask, colour, noise)


def _background(size: int, generator: np.random.Generator) -> Floats:
    """Two colours that blend into each other, with blobs of a random coarseness."""
    first, second = generator.uniform(40, 215, (2, 3))
    angle = generator.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    blend = np.clip(0.5 + np.cos(angle) * x + np.sin(angle) * y, 0, 1)[..., None]
    cells = int(generator.integers(3, 17))
    blobs = cv2.resize(generator.normal(0, 12, (cells, cells, 3)), (size, size))
    return np.asarray(first + blend * 0.5 * (second - first) + blobs, np.float64)


def _shape(label: str, size: int, centre: Floats, radius: float, angle: float) -> Floats:
    """(size, size) in [0, 1], 1 inside of the object."""
    scale = 4  # drawn larger, so that edges are smooth
    canvas = np.zeros((size * scale, size * scale), np.uint8)
    x, y = (centre * scale).astype(int).tolist()
    if label in ("disc", "ring"):
        cv2.circle(canvas, (x, y), round(0.9 * radius * scale), 255, -1)
        if label == "ring":
            cv2.circle(canvas, (x, y), round(0.5 * radius * scale), 0, -1)
    else:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (centre + radius * _outline(label) @ turn.T) * scale
        cv2.fillPoly(canvas, [corners.astype(np.int32)], 255)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255.0, np.float64)


def _outline(label: str) -> Floats:
    """(n, 2) corners of a shape in a circle of radius 1."""
    if label == "cross":
        arm = 0.3
        quarter = np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]])
        turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        return np.concatenate([quarter @ turn.T for turn in turns]) * 0.95
    if label == "bar":
        return np.array([[0.97, 0.25], [0.97, -0.25], [-0.97, -0.25], [-0.97, 0.25]])
    if label == "arrow":
        return np.array(
            [
                [1.0, 0.0],
                [0.1, 0.85],
                [0.1, 0.3],
                [-0.95, 0.3],
                [-0.95, -0.3],
                [0.1, -0.3],
                [0.1, -0.85],
            ]
        )
    count = {"square": 4, "triangle": 3, "star": 10}[label]
    angles = 2 * np.pi * np.arange(count) / count
    lengths = np.where(np.arange(count) % 2, 0.42, 1.0) if label == "star" else np.ones(count)
    return np.asarray(
        lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1), np.float64
    )
