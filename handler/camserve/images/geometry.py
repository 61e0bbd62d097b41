"""The coordinate systems of a photo, and how boxes and pixels go from one to another.

- *File* pixels: as the file stores them. A reply's boxes and pictures are in these.
- *Upright* pixels: as a viewer shows the photo. A camera held on its side stores its pixels as the
  sensor has them and writes into the EXIF orientation how to rotate and mirror them.
- *Input* pixels: of the network's input, which is cut out of the resized upright photo.

:class:`InputFrame` holds what is needed to map between them for one photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """A rectangle in pixels; ``x1`` and ``y1`` are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float


class _ExifTransform(NamedTuple):
    """File -> upright: first transpose, then flip left to right, then top to bottom."""

    transpose: bool
    flip_x: bool
    flip_y: bool


# Exif 2.32, tag 0x0112.
_TRANSFORMS: Final = {
    1: _ExifTransform(False, False, False),
    2: _ExifTransform(False, True, False),
    3: _ExifTransform(False, True, True),
    4: _ExifTransform(False, False, True),
    5: _ExifTransform(True, False, False),
    6: _ExifTransform(True, True, False),
    7: _ExifTransform(True, True, True),
    8: _ExifTransform(True, False, True),
}
ORIENTATIONS: Final = frozenset(_TRANSFORMS)


@dataclass(frozen=True)
class InputFrame:
    """Where the network's input lies in a photo.

    Attributes:
        width, height: of the photo's file, in pixels.
        orientation: EXIF orientation, 1 to 8: how file pixels become upright.
        input_box: the network's input in upright pixels. Where the photo was padded, it extends
            beyond the photo.
    """

    width: int
    height: int
    orientation: int
    input_box: Box

    @classmethod
    def from_upright_size(
        cls, width: int, height: int, orientation: int, input_box: Box
    ) -> InputFrame:
        """The frame of a photo that is ``width`` x ``height`` when it is upright."""
        # Whether width and height are exchanged is the same in both directions.
        return cls(*upright_size(width, height, orientation), orientation, input_box)

    @classmethod
    def full(cls, width: int, height: int) -> InputFrame:
        """The frame of an image that is the network's whole input, resized to this size."""
        return cls(width, height, 1, Box(0, 0, width, height))

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright photo."""
        return upright_size(self.width, self.height, self.orientation)

    @property
    def visible_box(self) -> Box:
        """The part of the photo that is in the network's input, in file pixels."""
        return self.to_file_box(self.input_box)

    def scaled(self, width: int, height: int) -> InputFrame:
        """The frame of the same photo with its file's pixels resized to ``width`` x ``height``."""
        scale_x, scale_y = width / self.width, height / self.height
        if _TRANSFORMS[self.orientation].transpose:
            scale_x, scale_y = scale_y, scale_x
        x0, y0, x1, y1 = self.input_box
        input_box = Box(x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)
        return InputFrame(width, height, self.orientation, input_box)

    def to_file_box(self, upright_box: Box) -> Box:
        """A box in upright pixels -> in file pixels, clipped to the photo."""
        width, height = self.upright_size
        xs = sorted(min(max(x, 0), width) for x in (upright_box.x0, upright_box.x1))
        ys = sorted(min(max(y, 0), height) for y in (upright_box.y0, upright_box.y1))
        transform = _TRANSFORMS[self.orientation]
        if transform.flip_x:
            xs = [width - xs[1], width - xs[0]]
        if transform.flip_y:
            ys = [height - ys[1], height - ys[0]]
        if transform.transpose:
            xs, ys = ys, xs
        return Box(xs[0], ys[0], xs[1], ys[1])


@dataclass(frozen=True)
class Background:
    """The image that a reply's pictures are drawn on.

    Attributes:
        pixels: (frame.height, frame.width, 3) RGB.
        frame: where the network's input lies in them.
        profile: the ICC profile of their colours; empty for sRGB, or where nothing is known.
    """

    pixels: Pixels
    frame: InputFrame
    profile: bytes = b""


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height of the upright photo whose file has ``width`` x ``height`` pixels."""
    return (height, width) if _TRANSFORMS[orientation].transpose else (width, height)


def to_upright_box(file_box: Box, width: int, height: int, orientation: int) -> Box:
    """A box in file pixels -> in pixels of the upright photo, which is ``width`` x ``height``."""
    transform = _TRANSFORMS[orientation]
    xs, ys = (file_box.x0, file_box.x1), (file_box.y0, file_box.y1)
    if transform.transpose:
        xs, ys = ys, xs
    if transform.flip_x:
        xs = width - xs[1], width - xs[0]
    if transform.flip_y:
        ys = height - ys[1], height - ys[0]
    return Box(xs[0], ys[0], xs[1], ys[1])


def apply_orientation(file_pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """File pixels (height, width, ..) -> upright pixels."""
    transform = _TRANSFORMS[orientation]
    return _flipped(cv2.transpose(file_pixels) if transform.transpose else file_pixels, transform)


def undo_orientation(upright_pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright pixels (height, width, ..) -> file pixels."""
    transform = _TRANSFORMS[orientation]
    flipped = _flipped(upright_pixels, transform)
    return cv2.transpose(flipped) if transform.transpose else flipped


def _flipped(pixels: NDArray[Any], transform: _ExifTransform) -> NDArray[Any]:
    if transform.flip_x and transform.flip_y:
        return cv2.flip(pixels, -1)
    if transform.flip_x:
        return cv2.flip(pixels, 1)
    return cv2.flip(pixels, 0) if transform.flip_y else pixels
