"""A photo -> the network's input, and where that lies in the photo."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from camserve.images.decode import DecodedPhoto
from camserve.images.geometry import Box, InputFrame, Pixels, upright_size
from camserve.images.header import ImageHeader
from camserve.images.jpeg import SCALE_DENOMINATORS
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
    # The four colours of a photo in CMYK are converted at its full size.
    in_cmyk = preprocess.icc == "srgb" and header.profile and header.profile.space == "CMYK"
    if header.format != "jpeg" or size == "original" or in_cmyk:
        return 1
    width, height = upright_size(header.width, header.height, header.orientation)
    min_height, min_width = (MIN_OVERSAMPLING * side for side in preprocess.least_resized_size)
    longer = max(width, height)
    for denominator in SCALE_DENOMINATORS:
        enough = width >= denominator * min_width and height >= denominator * min_height
        if enough and (size == "model" or longer >= denominator * size):
            return denominator
    return 1


def resize_and_crop(photo: DecodedPhoto, preprocess: Preprocess) -> tuple[Pixels, InputFrame]:
    """Make the network's input of a photo, as :class:`Preprocess` says, but in colour.

    Pillow resizes, as in the evaluation that the published accuracies come from: with ``fit`` crop
    the result equals ``torchvision.transforms.v2.functional.resize`` and ``center_crop`` on the
    same photo.

    Returns:
        The input, (H, W, 3) RGB, 0 to 255, where (H, W) is ``preprocess.input_size``, and where it
        lies in the photo.
    """
    width, height = photo.full_size
    input_height, input_width = preprocess.input_size
    size, left, top = _resize_plan(width, height, preprocess)
    resized = photo.resized(size, _RESAMPLE[preprocess.interpolation])
    if preprocess.fit == "pad":
        # The colour that normalises to zero, which is what a convolution pads with too.
        crop = Image.new("RGB", (input_width, input_height), preprocess.mean_color)
        crop.paste(resized, (-left, -top))
    else:
        crop = resized.crop((left, top, left + input_width, top + input_height))
    return np.asarray(crop), input_frame(width, height, photo.orientation, preprocess)


def to_channels(crop: Pixels, channels: int) -> Pixels:
    """What the network receives of its input in colour.

    Args:
        crop: (H, W, 3) RGB, 0 to 255.
        channels: 3, or 1 for grey: the luma of ITU-R 601-2, as Pillow and torchvision's
            ``Grayscale`` round it.

    Returns:
        (H, W, channels), 0 to 255.
    """
    return crop if channels == 3 else np.asarray(Image.fromarray(crop).convert("L"))[..., None]


def input_frame(width: int, height: int, orientation: int, preprocess: Preprocess) -> InputFrame:
    """The frame that :func:`resize_and_crop` will return, before the photo is decoded.

    Args:
        width, height: of the upright photo, in file pixels.
        orientation: EXIF orientation, 1 to 8.
        preprocess: how the network's input is made.
    """
    size, left, top = _resize_plan(width, height, preprocess)
    scale_x, scale_y = width / size[0], height / size[1]
    right, bottom = left + preprocess.input_size.width, top + preprocess.input_size.height
    input_box = Box(left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    return InputFrame.from_upright_size(width, height, orientation, input_box)


def _resize_plan(width: int, height: int, preprocess: Preprocess) -> _ResizePlan:
    size = _resized_size(width, height, preprocess)
    rounded = int if preprocess.crop_rounding == "down" else round
    height, width = preprocess.input_size
    left, top = rounded((size[0] - width) / 2.0), rounded((size[1] - height) / 2.0)
    return _ResizePlan(size, left, top)


def _resized_size(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """(width, height) of a resized photo that is ``width`` x ``height`` when it is upright."""
    input_height, input_width = preprocess.input_size
    match preprocess.fit:
        case "stretch":
            return input_width, input_height
        case "pad":
            scale = min(input_width / width, input_height / height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        case "crop":
            side = preprocess.resize
            if isinstance(side, tuple):
                return side[1], side[0]
            if width <= height:
                return side, int(side * height / width)
            return int(side * width / height), side
