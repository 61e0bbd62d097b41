"""A photo -> the square that the network sees, and where that lies in the photo."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from camserve.images.decode import REDUCTIONS, DecodedPhoto
from camserve.images.geometry import Box, InputFrame, Pixels, upright_size
from camserve.images.header import JPEG_FORMATS, ImageHeader
from camserve.options import Size
from camserve.settings import Preprocess

_RESAMPLE: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# How much larger than the network's input a photo is decoded at least, so that what the resize
# averages over is still there.
_FINER: Final = 3


def downscale_factor(header: ImageHeader, preprocess: Preprocess, size: Size) -> int:
    """By how much a photo can be decoded smaller than it is and still be more than is needed.

    Args:
        header: of the file.
        preprocess: what the network needs of it.
        size: of the reply's pictures.

    Returns:
        1, 2, 4 or 8.
    """
    if header.format not in JPEG_FORMATS or size == "original":
        return 1
    shorter, longer = sorted((header.width, header.height))
    needed = _FINER * (preprocess.resize if preprocess.fit == "crop" else preprocess.crop)
    for step in REDUCTIONS:
        if shorter >= step * needed and (size == "model" or longer >= step * size):
            return step
    return 1


def resize_and_crop(photo: DecodedPhoto, preprocess: Preprocess) -> tuple[Pixels, InputFrame]:
    """Make a photo the network's square input, as :class:`Preprocess` says.

    Pillow resizes, as in the evaluation that the published accuracies come from; with ``fit`` crop
    the result equals ``torchvision.transforms.v2.functional.resize`` and ``center_crop`` on the
    same photo.

    Returns:
        The (crop, crop, 3) square, RGB, 0 to 255, and where it lies in the photo.
    """
    width, height = photo.whole
    side = preprocess.crop
    size, (left, top) = _placed(width, height, preprocess)
    resized = photo.resized(size, _RESAMPLE[preprocess.interpolation])
    if preprocess.fit == "pad":
        # The colour that normalises to zero, which is what a convolution pads with too.
        square = Image.new("RGB", (side, side), tuple(round(255 * m) for m in preprocess.mean))
        square.paste(resized, (-left, -top))
    else:
        square = resized.crop((left, top, left + side, top + side))
    return np.asarray(square), _frame(width, height, photo.orientation, preprocess)


def input_frame(header: ImageHeader, preprocess: Preprocess) -> InputFrame:
    """Where the network's input will lie in a photo that is not decoded yet."""
    size = upright_size(header.width, header.height, header.orientation)
    return _frame(*size, header.orientation, preprocess)


def _frame(width: int, height: int, orientation: int, preprocess: Preprocess) -> InputFrame:
    """The frame of an upright photo of that size."""
    size, (left, top) = _placed(width, height, preprocess)
    across, down = width / size[0], height / size[1]
    right, bottom = left + preprocess.crop, top + preprocess.crop
    window = Box(left * across, top * down, right * across, bottom * down)
    return InputFrame.of(width, height, orientation, window)


def _placed(
    width: int, height: int, preprocess: Preprocess
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size that a photo is resized to, and the upper left corner of the square in that."""
    size = _resized(width, height, preprocess)
    left, top = (round((length - preprocess.crop) / 2.0) for length in size)
    return size, (left, top)


def _resized(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    side = preprocess.crop
    match preprocess.fit:
        case "stretch":
            return side, side
        case "pad":
            scale = side / max(width, height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        case "crop":
            side = preprocess.resize
            if width <= height:
                return side, int(side * height / width)
            return int(side * width / height), side
