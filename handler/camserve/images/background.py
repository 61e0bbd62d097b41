"""What a reply's pictures are drawn on: the network's input, or the photo at the size asked for."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from PIL import Image

from camserve.images.decode import DecodedPhoto
from camserve.images.geometry import Background, InputFrame, Pixels, undo_orientation
from camserve.options import Size
from camserve.settings import Preprocess


def output_frame(frame: InputFrame, preprocess: Preprocess, size: Size) -> InputFrame:
    """The frame of what a reply's pictures show, at the size that a request asks for.

    Args:
        frame: of the photo.
        preprocess: as it was fitted.
        size: ``model`` for the network's input, else the photo: as large as it is, or with a
            longest side of so many pixels.
    """
    if size == "model":
        return InputFrame.whole(preprocess.crop, preprocess.crop)
    if size == "original":
        return frame
    scale = size / max(frame.width, frame.height)
    return frame.scaled(max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))


def output_background(
    photo: DecodedPhoto, crop: Pixels, frame: InputFrame, size: Size
) -> Background:
    """What a reply's pictures show: (frame.height, frame.width, 3), the photo as its file has it.

    Args:
        photo: at its own size.
        crop: what :func:`~camserve.images.preprocess.resize_and_crop` made of it.
        frame: what :func:`output_frame` made of the frame.
        size: that it was made for.
    """
    if size == "model":
        return Background(crop, frame)
    pixels = photo.upright
    if photo.reduced > 1:
        # The mean over each pixel's area, as INTER_AREA takes it.
        pixels = np.asarray(photo.resized(frame.upright, Image.Resampling.BOX))
    elif size != "original":
        shrinks = frame.upright < pixels.shape[1::-1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cast(Pixels, cv2.resize(pixels, frame.upright, interpolation=interpolation))
    return Background(undo_orientation(pixels, photo.orientation), frame)
