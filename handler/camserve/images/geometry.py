"""Where the network's input lies in a photo, and how a file's pixels are turned upright and back.

A camera held on its side writes its pixels as they came and notes in the EXIF orientation how a
viewer is to turn them. The network sees the photo upright; a caller gets the file's own pixels.
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


class _Turn(NamedTuple):
    """Stored -> upright: transposed first, then mirrored left to right, then top to bottom."""

    transposed: bool
    across: bool
    down: bool


# Exif 2.32, tag 0x0112.
_TURNS: Final = {
    1: _Turn(False, False, False),
    2: _Turn(False, True, False),
    3: _Turn(False, True, True),
    4: _Turn(False, False, True),
    5: _Turn(True, False, False),
    6: _Turn(True, True, False),
    7: _Turn(True, True, True),
    8: _Turn(True, False, True),
}
ORIENTATIONS: Final = frozenset(_TURNS)


@dataclass(frozen=True)
class InputFrame:
    """Where the network's input lies in a photo.

    Attributes:
        width, height: of the photo, as its file stores it.
        orientation: EXIF's, 1 to 8: how the stored pixels are turned to be upright.
        window: the network's input in pixels of the upright photo; it reaches beyond the photo
            where the photo was padded.
    """

    width: int
    height: int
    orientation: int
    window: Box

    @classmethod
    def of(cls, width: int, height: int, orientation: int, window: Box) -> InputFrame:
        """The frame of a photo that is ``width`` x ``height`` when it is upright."""
        # Turning exchanges width and height, turning back does so again.
        return cls(*upright_size(width, height, orientation), orientation, window)

    @classmethod
    def whole(cls, width: int, height: int) -> InputFrame:
        """The frame of a picture that is the network's input, at whatever size."""
        return cls(width, height, 1, Box(0, 0, width, height))

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright photo."""
        return upright_size(self.width, self.height, self.orientation)

    @property
    def seen(self) -> Box:
        """The part of the photo that the network saw, in the file's pixels."""
        return self.stored(self.window)

    def scaled(self, width: int, height: int) -> InputFrame:
        """The frame of the same photo at another size."""
        across, down = width / self.width, height / self.height
        if _TURNS[self.orientation].transposed:
            across, down = down, across
        x0, y0, x1, y1 = self.window
        window = Box(x0 * across, y0 * down, x1 * across, y1 * down)
        return InputFrame(width, height, self.orientation, window)

    def stored(self, box: Box) -> Box:
        """A box of the upright photo in the file's pixels, cut at the photo's edges."""
        width, height = self.upright
        xs = sorted(min(max(x, 0), width) for x in (box.x0, box.x1))
        ys = sorted(min(max(y, 0), height) for y in (box.y0, box.y1))
        turn = _TURNS[self.orientation]
        if turn.across:
            xs = [width - xs[1], width - xs[0]]
        if turn.down:
            ys = [height - ys[1], height - ys[0]]
        if turn.transposed:
            xs, ys = ys, xs
        return Box(xs[0], ys[0], xs[1], ys[1])


@dataclass(frozen=True)
class Background:
    """What a reply's pictures show.

    Attributes:
        pixels: (frame.height, frame.width, 3) RGB.
        frame: where the network's input lies in them.
    """

    pixels: Pixels
    frame: InputFrame


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height of a photo, as a viewer shows it, that is stored ``width`` x ``height``."""
    return (height, width) if _TURNS[orientation].transposed else (width, height)


def upright_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """A box of the stored pixels in those of the upright photo, which is ``width`` x ``height``."""
    turn = _TURNS[orientation]
    xs, ys = (box.x0, box.x1), (box.y0, box.y1)
    if turn.transposed:
        xs, ys = ys, xs
    if turn.across:
        xs = width - xs[1], width - xs[0]
    if turn.down:
        ys = height - ys[1], height - ys[0]
    return Box(xs[0], ys[0], xs[1], ys[1])


def apply_orientation(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(height, width, ..) as a file stores it -> as a viewer shows it."""
    turn = _TURNS[orientation]
    return _mirrored(cv2.transpose(stored) if turn.transposed else stored, turn)


def undo_orientation(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The inverse of :func:`apply_orientation`."""
    turn = _TURNS[orientation]
    mirrored = _mirrored(upright, turn)
    return cv2.transpose(mirrored) if turn.transposed else mirrored


def _mirrored(pixels: NDArray[Any], turn: _Turn) -> NDArray[Any]:
    if turn.across and turn.down:
        return cv2.flip(pixels, -1)
    if turn.across:
        return cv2.flip(pixels, 1)
    return cv2.flip(pixels, 0) if turn.down else pixels
