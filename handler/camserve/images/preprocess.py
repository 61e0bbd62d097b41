"""A photo -> the network's square input, and where that lies in the photo."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from camserve.images.decode import DOWNSCALE_FLAGS, DecodedPhoto
from camserve.images.geometry import Box, InputFrame, Pixels, upright_size
from camserve.images.header import JPEG_FORMATS, ImageHeader
from camserve.options import Size
from camserve.settings import Preprocess

#: A photo is decoded at no less than this many times the size that it is resized to, so that the
#: resize still averages over the photo's detail.
MIN_OVERSAMPLING: Final = 3
_RESAMPLE: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class _ResizePlan(NamedTuple):
    """A photo is resized to ``size`` (width, height); the input begins at (``left``, ``top``)."""

    size: tuple[int, int]
    left: int
    top: int


def downscale_factor(header: ImageHeader, preprocess: Preprocess, size: Size) -> int:
    """By what denominator a JPEG's size can be divided in decoding, at no visible loss.

    Args:
        header: of the file.
        preprocess: how the network's input is made.
        size: of the reply's pictures.

    Returns:
        1, 2, 4 or 8; 1 for other formats.
    """
    if header.format not in JPEG_FORMATS or size == "original":
        return 1
    shorter, longer = sorted((header.width, header.height))
    resized_side = preprocess.resize if preprocess.fit == "crop" else preprocess.crop
    min_side = MIN_OVERSAMPLING * resized_side
    for denominator in DOWNSCALE_FLAGS:
        if shorter >= denominator * min_side and (size == "model" or longer >= denominator * size):
            return denominator
    return 1


def resize_and_crop(photo: DecodedPhoto, preprocess: Preprocess) -> tuple[Pixels, InputFrame]:
    """Make the network's square input of a photo, as :class:`Preprocess` says.

    Pillow resizes, as in the evaluation that the published accuracies come from: with ``fit`` crop
    the result equals ``torchvision.transforms.v2.functional.resize`` and ``center_crop`` on the
    same photo.

    Returns:
        The input, (crop, crop, 3) RGB, 0 to 255, and where it lies in the photo.
    """
    width, height = photo.full_size
    side = preprocess.crop
    size, left, top = _resize_plan(width, height, preprocess)
    resized = photo.resized(size, _RESAMPLE[preprocess.interpolation])
    if preprocess.fit == "pad":
        # The colour that normalises to zero, which is what a convolution pads with too.
        square = Image.new("RGB", (side, side), tuple(round(255 * m) for m in preprocess.mean))
        square.paste(resized, (-left, -top))
    else:
        square = resized.crop((left, top, left + side, top + side))
    return np.asarray(square), _input_frame(width, height, photo.orientation, preprocess)


def input_frame(header: ImageHeader, preprocess: Preprocess) -> InputFrame:
    """The frame that :func:`resize_and_crop` will return, before the photo is decoded."""
    width, height = upright_size(header.width, header.height, header.orientation)
    return _input_frame(width, height, header.orientation, preprocess)


def _input_frame(width: int, height: int, orientation: int, preprocess: Preprocess) -> InputFrame:
    """The frame of a photo that is ``width`` x ``height`` when it is upright."""
    size, left, top = _resize_plan(width, height, preprocess)
    scale_x, scale_y = width / size[0], height / size[1]
    right, bottom = left + preprocess.crop, top + preprocess.crop
    input_box = Box(left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    return InputFrame.from_upright_size(width, height, orientation, input_box)


def _resize_plan(width: int, height: int, preprocess: Preprocess) -> _ResizePlan:
    size = _resized_size(width, height, preprocess)
    left, top = (round((length - preprocess.crop) / 2.0) for length in size)
    return _ResizePlan(size, left, top)


def _resized_size(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
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
