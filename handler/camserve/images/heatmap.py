"""The maps of an explanation -> its heatmap, at any size and aligned with the photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve.images.geometry import InputFrame, Pixels, undo_orientation
from camserve.preprocess_settings import InputSize

#: (h, w) in [0, 1].
Map = NDArray[np.float32]

# The rounding errors of float32 in a mean of maps: a smaller range is none.
_MIN_RANGE: Final = 1e-6


class Heatmap:
    """The heatmap of one explanation.

    It is the map of the explained layer. For several layers it is the mean of their maps, min-max
    normalised at the size of the network's input.

    Args:
        maps: of each layer, (h, w) in [0, 1].
        input_size: of the network's input.

    Attributes:
        peak: the maximum of the mean before it is normalised; 1 for one layer.
        is_constant: whether the mean is constant, so that the heatmap is zero; False for one layer.
    """

    def __init__(self, maps: Sequence[Map], input_size: InputSize) -> None:
        self._maps = maps
        self._low, self.peak = 0.0, 1.0
        if len(maps) > 1:
            mean = self._mean(InputFrame.full(input_size.width, input_size.height))
            self._low, self.peak = float(mean.min()), float(mean.max())
        self.is_constant = self.peak - self._low < _MIN_RANGE

    @property
    def map(self) -> Map:
        """The heatmap on the largest of the layers' grids, (h, w) in [0, 1]."""
        height, width = max((map.shape for map in self._maps), key=math.prod)
        return self.resample(InputFrame.full(width, height))

    def resample(self, frame: InputFrame) -> Map:
        """(frame.height, frame.width) in [0, 1]; zero outside of the network's input."""
        return cast(Map, np.clip(self._resample(frame), 0, 1))

    def to_uint8(self, frame: InputFrame) -> Pixels:
        """As :meth:`resample`, 0 to 255."""
        # One pass that rounds as NumPy does and saturates at 255.
        return cast(Pixels, cv2.convertScaleAbs(self._resample(frame), alpha=255))

    def _resample(self, frame: InputFrame) -> Map:
        """As :meth:`resample`, but rounding errors may exceed 1."""
        mean = self._mean(frame)
        if self.is_constant:
            return np.zeros_like(mean)
        if len(self._maps) > 1:
            # Rounding errors may fall below 0.
            return cast(Map, np.maximum((mean - self._low) / (self.peak - self._low), 0))
        return mean

    def _mean(self, frame: InputFrame) -> Map:
        upsampled = [upsample_to_frame(map, frame) for map in self._maps]
        return upsampled[0] if len(upsampled) == 1 else cast(Map, np.mean(upsampled, axis=0))


def upsample_to_frame(map: Map, frame: InputFrame) -> Map:
    """A map (h, w) of the network's input, bilinearly resampled to a photo's pixels.

    Returns:
        (frame.height, frame.width); zero outside of the network's input.
    """
    width, height = frame.upright_size
    x0, y0, x1, y1 = frame.input_box
    if frame.input_box == (0, 0, width, height):
        upright = cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        rows, columns = map.shape
        scale_x, scale_y = columns / (x1 - x0), rows / (y1 - y0)
        # From the photo's pixels to the map's cells, centre to centre.
        matrix = np.array(
            [
                [scale_x, 0, (0.5 - x0) * scale_x - 0.5],
                [0, scale_y, (0.5 - y0) * scale_y - 0.5],
            ]
        )
        upright = cv2.warpAffine(
            map,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # A pixel belongs to the network's input if its centre does.
        left, top, right, bottom = (max(0, math.ceil(edge - 0.5)) for edge in (x0, y0, x1, y1))
        upright[:top], upright[bottom:], upright[:, :left], upright[:, right:] = 0, 0, 0, 0
    return cast(Map, undo_orientation(upright, frame.orientation))
