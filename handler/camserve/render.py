"""A map made visible: colours, the blend with the photo, the encoded picture. NumPy and OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve.options import Colormap, ImageFormat, Options, Output

Map = NDArray[np.float32]
Pixels = NDArray[np.uint8]

COLORMAPS: Final[dict[str, int]] = {
    name: getattr(cv2, f"COLORMAP_{name.upper()}") for name in get_args(Colormap)
}
# JPEG and WebP at the quality where the coding no longer shows in a heatmap; PNG has no loss.
_ENCODINGS: Final[dict[str, tuple[str, list[int]]]] = {
    "png": (".png", []),
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 85]),
}


@dataclass(frozen=True)
class Image:
    """An encoded picture, ``width`` x ``height`` pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


def draw(map: Map, photo: Pixels, options: Options) -> dict[str, Image]:
    """The outputs that a request asks for, at the photo's size.

    Args:
        map: (h, w) in [0, 1].
        photo: (height, width, 3) RGB, what the map explains.
        options: outputs, colours and encoding.
    """
    height, width = photo.shape[:2]
    coloured = heatmap(upsample(map, width, height), options.colormap)
    drawings: dict[Output, Callable[[], Pixels]] = {
        "heatmap": lambda: coloured,
        "overlay": lambda: overlay(coloured, photo, options.alpha),
    }
    return {
        output: Image(
            encode(drawings[output](), options.image_format),
            f"image/{options.image_format}",
            width,
            height,
        )
        for output in options.outputs
    }


def upsample(map: Map, width: int, height: int) -> Map:
    """(h, w) in [0, 1] -> (height, width) in [0, 1], bilinear."""
    larger = cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR)
    return cast(Map, np.clip(larger, 0, 1))


def heatmap(map: Map, colormap: Colormap) -> Pixels:
    """(h, w) in [0, 1] -> (h, w, 3) RGB."""
    grey = np.rint(map * 255).astype(np.uint8)
    return cast(Pixels, cv2.applyColorMap(grey, COLORMAPS[colormap])[..., ::-1])


def overlay(heatmap: Pixels, photo: Pixels, alpha: float) -> Pixels:
    """alpha * heatmap + (1 - alpha) * photo, all (h, w, 3) RGB."""
    return cast(Pixels, cv2.addWeighted(heatmap, alpha, photo, 1 - alpha, 0))


def encode(picture: Pixels, image_format: ImageFormat) -> bytes:
    """(h, w, 3) RGB -> the file's bytes."""
    extension, parameters = _ENCODINGS[image_format]
    done, encoded = cv2.imencode(extension, picture[..., ::-1], parameters)
    if not done:
        raise RuntimeError(f"OpenCV could not write {image_format}")
    return encoded.tobytes()
