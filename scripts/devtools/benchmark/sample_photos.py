"""The photos that are sent: a small one, and one as large as a camera's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve_cli.sample_photos import sample_photo

#: Size of the small photo's file: it is encoded at the JPEG quality that comes closest.
SMALL_BYTES = 50_000
LARGE_SIZE = (4000, 3000)
#: Standard deviation of the noise in grey levels: none, and what makes a file as large as a
#: camera's.
GRAINS = {"smooth": 0.0, "grained": 8.0}


def small_photo(folder: Path) -> Path:
    """A cat, 451 x 300, as a JPEG of about 50 KB."""
    pixels = _photo("chelsea.png")
    encoded = [
        cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        for quality in range(80, 100)
    ]
    path = folder / "small.jpg"
    path.write_bytes(min(encoded, key=lambda data: abs(len(data) - SMALL_BYTES)))
    return path


def large_photo(folder: Path, grain: float) -> Path:
    """A cup of coffee, 4000 x 3000, as a JPEG.

    Args:
        grain: standard deviation in grey levels of the noise that is added. Without noise, an
            enlarged photo is so smooth that it is decoded faster than most cameras' files.
    """
    pixels = _photo("coffee.png")
    width, height = LARGE_SIZE
    rows, columns = pixels.shape[:2]
    margin = (columns - rows * width // height) // 2
    pixels = pixels[:, margin : columns - margin]
    enlarged = cv2.resize(pixels, LARGE_SIZE, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, grain, enlarged.shape) if grain else 0
    pixels = np.clip(enlarged + noise, 0, 255).astype(np.uint8)
    path = folder / f"large-{grain:g}.jpg"
    path.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return path


def _photo(name: str) -> NDArray[np.uint8]:
    """(height, width, 3) BGR, as OpenCV takes it."""
    return np.asarray(Image.open(sample_photo(name)).convert("RGB"))[..., ::-1]
