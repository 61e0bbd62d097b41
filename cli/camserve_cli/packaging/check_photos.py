"""Photos that packaging compares an archive and its publisher's pipeline on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

#: Width and height. Landscape, portrait and square, chosen so that the roundings of the usual
#: resizes and crops show.
SIZES: Final = ((449, 300), (300, 403), (333, 333))


def check_photos() -> list[Image.Image]:
    """Pictures with detail of all sizes and with sharp edges, as photos have; always the same."""
    return list(_pictures())


def _pictures() -> Iterator[Image.Image]:
    random = np.random.default_rng(0)
    for width, height in SIZES:
        picture = np.zeros((height, width, 3), np.float32)
        for octave, cells in enumerate((2, 4, 8, 16, 32, 64, 128)):
            noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            layer = noise.resize((width, height), Image.Resampling.BICUBIC)
            picture += np.asarray(layer, np.float32) * 0.75**octave
        picture *= 255 / picture.max()
        rows, columns = np.mgrid[:height, :width]
        for color in 40 + np.eye(3, dtype=np.float32) * 175:
            y, x = random.integers(0, height), random.integers(0, width)
            disc = (rows - y) ** 2 + (columns - x) ** 2 < (height // 6) ** 2
            picture[disc] = color
        yield Image.fromarray(picture.astype(np.uint8))
