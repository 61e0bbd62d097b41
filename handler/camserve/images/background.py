"""What a reply's pictures are drawn on: the network's input, or the photo at a requested size."""

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
    """The frame of a reply's pictures at the size that the request asks for.

    Args:
        frame: of the photo.
        preprocess: how the network's input was made.
        size: ``model`` for the network's input, ``original`` for the photo's file, or the longest
            side in pixels that the photo is resized to.
    """
    if size == "model":
        return InputFrame.full(preprocess.input_size.width, preprocess.input_size.height)
    if size == "original":
        return frame
    scale = size / max(frame.width, frame.height)
    return frame.scaled(max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))


def output_background(
    photo: DecodedPhoto, crop: Pixels, frame: InputFrame, size: Size
) -> Background:
    """The background of a reply's pictures: (frame.height, frame.width, 3), in file orientation.

    At the photo's own size it has the photo's colour profile, if that is one of RGB.

    Args:
        photo: decoded, before it was resized.
        crop: what :func:`~camserve.images.preprocess.resize_and_crop` made of it.
        frame: the result of :func:`output_frame` for ``size``.
        size: as for :func:`output_frame`.
    """
    if size == "model":
        return Background(crop, frame)
    pixels = photo.upright
    if photo.scale_denominator > 1:
        # The mean over each pixel's area, as INTER_AREA takes it.
        pixels = np.asarray(photo.resized(frame.upright_size, Image.Resampling.BOX))
    elif size != "original":
        shrinks = frame.upright_size < pixels.shape[1::-1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(pixels, frame.upright_size, interpolation=interpolation)
        pixels = cast(Pixels, resized)
    carries_profile = size == "original" and photo.profile and photo.profile.space == "RGB"
    return Background(
        undo_orientation(pixels, photo.orientation),
        frame,
        photo.profile.data if carries_profile and photo.profile else b"",
    )
