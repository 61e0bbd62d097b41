"""Where a photo's map lies in it, and what the network saw of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageOps

from camserve.images import Box, InputFrame, input_frame, upright_size
from camserve.images.geometry import to_upright_box
from camserve.settings import Preprocess
from camserve_cli.report.explained_photos import Pixels
from camserve_cli.report.photos.photo_file import open_photo, to_rgb

#: The longest side of the pixels that are read of what the network saw.
_SEEN_SIDE = 512


def frame_of(image: Mapping[str, Any], preprocess: Preprocess | None) -> InputFrame:
    """Where the map of a reply lies in its photo.

    Args:
        image: the reply's ``image``.
        preprocess: the archive's; where it is not known, the map is taken to cover ``seen``, which
            is wrong only for an archive that pads.
    """
    width, height, orientation = image["width"], image["height"], image.get("orientation", 1)
    upright = upright_size(width, height, orientation)
    if preprocess is not None:
        return input_frame(*upright, orientation, preprocess)
    seen = to_upright_box(Box(*image["seen"]), *upright, orientation)
    return InputFrame(width, height, orientation, seen)


def relative_input_box(frame: InputFrame) -> tuple[float, float, float, float]:
    """The network's input in the upright photo: x0, y0, x1, y1 in shares of its sides."""
    width, height = frame.upright_size
    x0, y0, x1, y1 = frame.input_box
    return x0 / width, y0 / height, x1 / width, y1 / height


def read_seen(path: Path, box: tuple[float, float, float, float]) -> Pixels:
    """What the network saw of a photo, upright, (H, W, 3) RGB, up to 512 pixels a side.

    Args:
        path: of its file.
        box: as of :func:`relative_input_box`; what lies outside of the photo is left out.

    Raises:
        OSError: it cannot be read.
    """
    with open_photo(path) as photo:
        upright = to_rgb(ImageOps.exif_transpose(photo))
    width, height = upright.size
    x0, y0, x1, y1 = (
        min(max(share, 0.0), 1.0) * side
        for share, side in zip(box, (width, height, width, height), strict=True)
    )
    part = (round(x0), round(y0), max(round(x1), round(x0) + 1), max(round(y1), round(y0) + 1))
    seen = upright.crop(part)
    seen.thumbnail((_SEEN_SIDE, _SEEN_SIDE))
    return np.asarray(seen)


def as_seen(pixels: Pixels, preprocess: Preprocess | None, margin: tuple[float, float]) -> Pixels:
    """A picture of which the network will see just these pixels.

    Where an archive cuts out the centre of a photo, a margin goes around the pixels, of their own
    edge, so that the cut removes just that.

    Args:
        pixels: (H, W, 3) RGB.
        preprocess: the archive's, where it is known.
        margin: else: what share of a square photo's width and height is cut off on each side.

    Returns:
        (H', W', 3) RGB.
    """
    if preprocess is None:
        height, width = pixels.shape[:2]
        across, down = (
            round(side * share / (1 - 2 * share))
            for side, share in zip((width, height), margin, strict=True)
        )
        return _with_margin(pixels, (down, down, across, across))
    height, width = preprocess.input_size
    fitted = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if preprocess.fit != "crop":
        return np.asarray(fitted, np.uint8)
    if isinstance(preprocess.resize, int):
        # As much again on all sides, so that the shorter one has the length that needs no resize.
        extra = preprocess.resize - min(height, width)
        added = (extra, extra)
    else:
        added = (preprocess.resize[0] - height, preprocess.resize[1] - width)
    # The crop begins at half of what is left over, rounded to even numbers or down.
    rounded = int if preprocess.crop_rounding == "down" else round
    top, left = rounded(added[0] / 2), rounded(added[1] / 2)
    return _with_margin(np.asarray(fitted, np.uint8), (top, added[0] - top, left, added[1] - left))


def _with_margin(pixels: Pixels, margin: tuple[int, int, int, int]) -> Pixels:
    return np.asarray(cv2.copyMakeBorder(pixels, *margin, cv2.BORDER_REPLICATE), np.uint8)
