"""Transparent pixels lie on white, as on a web page."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve.images.geometry import Pixels


def composite_on_white(rgba: NDArray[Any], *, premultiplied: bool = False) -> Pixels:
    """(h, w, 4) RGBA of 8 or 16 bits -> (h, w, 3) RGB over white.

    Args:
        rgba: the pixels.
        premultiplied: the colours are multiplied by alpha.
    """
    if rgba.dtype != np.uint8:
        rgba = cv2.convertScaleAbs(rgba, alpha=1 / 257)
    wide = rgba.astype(np.uint16)
    rgb, alpha = wide[..., :3], wide[..., 3:]
    if premultiplied:
        return cast(Pixels, np.minimum(rgb + (255 - alpha), 255).astype(np.uint8))
    # 16 bits do not overflow: 255 * 255 + 127 < 2 ** 16.
    return cast(Pixels, ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))


def grey_on_white(
    levels: NDArray[Any], alpha: NDArray[Any], *, premultiplied: bool = False
) -> Pixels:
    """Grey levels and alpha, (h, w) of 8 or 16 bits each -> (h, w, 3) RGB over white."""
    return composite_on_white(
        np.stack([levels, levels, levels, alpha], axis=-1), premultiplied=premultiplied
    )
