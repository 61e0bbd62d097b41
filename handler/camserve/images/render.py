"""A map made visible: colours, the blend with the photo, encoded pictures, boxes. NumPy, OpenCV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve.images import png
from camserve.images.geometry import Background, Box, InputFrame, Pixels, undo_orientation
from camserve.options import Colormap, ImageFormat, Options, Output

Map = NDArray[np.float32]

# OpenCV's colours by name, in the order of their channels here: (256, 1, 3) RGB. OpenCV would make
# the table anew at each call, in BGR.
_COLOURS: Final[dict[str, Pixels]] = {
    name: np.ascontiguousarray(
        cv2.applyColorMap(
            np.arange(256, dtype=np.uint8)[:, None], getattr(cv2, f"COLORMAP_{name.upper()}")
        )[..., ::-1]
    )
    for name in get_args(Colormap)
}
# At the quality where the coding no longer shows in a heatmap.
_LOSSY: Final[dict[str, tuple[str, list[int]]]] = {
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 85]),
}
_ROUNDING: Final = 1e-6
#: The outputs that are pictures.
PICTURES: Final[frozenset[Output]] = frozenset({"heatmap", "overlay", "mask"})
_COLOURED: Final[frozenset[Output]] = frozenset({"heatmap", "overlay"})
# Where no picture is asked for.
_NONE: Final[Pixels] = np.empty((0, 0), np.uint8)


@dataclass(frozen=True)
class EncodedImage:
    """An encoded picture, ``width`` x ``height`` pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class HotRegion:
    """A connected hot region.

    Attributes:
        box: around it, in the pixels of the photo's file.
        share: of all the heat in the photo, in [0, 1].
    """

    box: Box
    share: float


#: What can be drawn of a map: a picture, the map itself, or the boxes.
RenderedOutput = EncodedImage | Map | tuple[HotRegion, ...]


class Heatmap:
    """The heat of one explanation, at any size.

    It is the layer's map, or, of several layers, the mean of their maps, min-max normalised at the
    size of the network's input.

    Args:
        maps: (h, w) in [0, 1] each, one for each layer.
        side: of the network's input.

    Attributes:
        peak: of several layers, the maximum of the mean before it is normalised; 1 for one layer.
        flat: of several layers, whether their mean is the same everywhere.
    """

    def __init__(self, maps: Sequence[Map], side: int) -> None:
        self._maps = maps
        self._low, self.peak = 0.0, 1.0
        if len(maps) > 1:
            mean = self._mean(InputFrame.whole(side, side))
            self._low, self.peak = float(mean.min()), float(mean.max())
        # What float32 leaves of a mean that is constant is no heat.
        self.flat = self.peak - self._low < _ROUNDING

    @property
    def map(self) -> Map:
        """The map itself, (h, w) in [0, 1], at the finest of the layers' grids."""
        height, width = max((map.shape for map in self._maps), key=math.prod)
        return self.over(InputFrame.whole(width, height))

    def over(self, frame: InputFrame) -> Map:
        """(frame.height, frame.width) in [0, 1]; zero where the network did not see the photo."""
        return cast(Map, np.clip(self._over(frame), 0, 1))

    def grey(self, frame: InputFrame) -> Pixels:
        """The same, 0 to 255."""
        # It rounds as NumPy does, and what is beyond 255 becomes 255, all in one go.
        return cast(Pixels, cv2.convertScaleAbs(self._over(frame), alpha=255))

    def _over(self, frame: InputFrame) -> Map:
        """As :meth:`over`, but for what rounding adds to 1."""
        heat = self._mean(frame)
        if self.flat:
            return np.zeros_like(heat)
        if len(self._maps) > 1:
            # Rounding may leave a trifle below zero.
            heat = np.maximum((heat - self._low) / (self.peak - self._low), 0)
        return heat

    def _mean(self, frame: InputFrame) -> Map:
        spread = [upsample_to_frame(frame, map) for map in self._maps]
        return spread[0] if len(spread) == 1 else cast(Map, np.mean(spread, axis=0))


def upsample_to_frame(frame: InputFrame, map: Map) -> Map:
    """A map (h, w) in [0, 1], bilinearly, over the part of a photo that the network saw.

    Returns:
        (frame.height, frame.width), zero elsewhere.
    """
    width, height = frame.upright
    x0, y0, x1, y1 = frame.window
    if frame.window == (0, 0, width, height):
        heat = cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        rows, columns = map.shape
        across, down = columns / (x1 - x0), rows / (y1 - y0)
        # From the photo's pixels to the map's, centre to centre.
        matrix = np.array(
            [[across, 0, (0.5 - x0) * across - 0.5], [0, down, (0.5 - y0) * down - 0.5]]
        )
        heat = cv2.warpAffine(
            map,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # A pixel was seen where its centre was.
        left, top, right, bottom = (max(0, math.ceil(edge - 0.5)) for edge in (x0, y0, x1, y1))
        heat[:top], heat[bottom:], heat[:, :left], heat[:, right:] = 0, 0, 0, 0
    return cast(Map, undo_orientation(heat, frame.orientation))


def render_outputs(
    heat: Heatmap, view: Background, frame: InputFrame, side: int, options: Options
) -> Iterator[Callable[[], RenderedOutput]]:
    """The outputs that a request asks for, in their order.

    What they are made of together is made here; each is finished by calling it, in any thread.

    Args:
        heat: what to draw.
        view: what the pictures show.
        frame: of the photo, in whose pixels boxes are given.
        side: of the network's input.
        options: outputs, colours and encoding.
    """
    outputs, image_format = options.outputs, options.image_format
    grey = _NONE if PICTURES.isdisjoint(outputs) else heat.grey(view.frame)
    heatmap = _NONE if _COLOURED.isdisjoint(outputs) else apply_colormap(grey, options.colormap)
    for output in outputs:
        match output:
            case "heatmap":
                yield partial(encode, heatmap, image_format)
            case "overlay":
                blended = overlay(heatmap, view.pixels, options.alpha)
                yield partial(encode, blended, image_format, photo=True)
            case "mask":
                yield partial(encode, grey, image_format)
            case "map":
                yield lambda: heat.map
            case "boxes":
                yield partial(boxes, heat, frame, side, options.threshold)


def apply_colormap(grey: Pixels, colormap: Colormap) -> Pixels:
    """(h, w), 0 to 255 -> (h, w, 3) RGB."""
    return cast(Pixels, cv2.applyColorMap(grey, _COLOURS[colormap]))


def overlay(heatmap: Pixels, photo: Pixels, alpha: float) -> Pixels:
    """alpha * heatmap + (1 - alpha) * photo, all (h, w, 3) RGB."""
    return cast(Pixels, cv2.addWeighted(heatmap, alpha, photo, 1 - alpha, 0))


def encode(picture: Pixels, image_format: ImageFormat, *, photo: bool = False) -> EncodedImage:
    """(h, w, 3) RGB or (h, w) grey -> the file.

    Args:
        picture: what to write.
        image_format: ``auto`` is ``jpeg`` for a photo, which without loss would have four times
            the bytes, and ``png`` for what is drawn: its numbers can be read back.
        photo: it shows one.
    """
    height, width = picture.shape[:2]
    if image_format == "auto":
        image_format = "jpeg" if photo else "png"
    data = png.encode(picture) if image_format == "png" else _lossy(picture, image_format)
    return EncodedImage(data, f"image/{image_format}", width, height)


def _lossy(picture: Pixels, image_format: ImageFormat) -> bytes:
    extension, parameters = _LOSSY[image_format]
    ordered = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(extension, ordered, parameters)
    if not done:
        raise RuntimeError(f"OpenCV could not write {image_format}")
    return encoded.tobytes()


def boxes(heat: Heatmap, frame: InputFrame, side: int, threshold: float) -> tuple[HotRegion, ...]:
    """The connected regions of heat above ``threshold``, the one with most heat first.

    They are sought at the size of the network's input, in the part of it that is photo, so the
    same regions are found whatever the size of the reply's pictures.

    Args:
        heat: of the explanation.
        frame: of the photo.
        side: of the network's input.
        threshold: in [0, 1).
    """
    seen = heat.over(InputFrame.whole(side, side))
    x0, y0, x1, y1 = frame.window
    across, down = (x1 - x0) / side, (y1 - y0) / side
    width, height = frame.upright
    # Bars beside a padded photo are no part of it.
    left, right = max(0, round(-x0 / across)), min(side, round((width - x0) / across))
    top, bottom = max(0, round(-y0 / down)), min(side, round((height - y0) / down))
    seen = seen[top:bottom, left:right]
    total = float(seen.sum(dtype=np.float64))
    found, labels, stats, _ = cv2.connectedComponentsWithStats(
        (seen > threshold).astype(np.uint8), connectivity=8
    )
    heats = np.bincount(labels.ravel(), weights=seen.ravel(), minlength=found)
    regions = []
    for n in sorted(range(1, found), key=lambda n: -heats[n]):
        column, row, columns, rows = (int(value) for value in stats[n, :4])
        upright = Box(
            x0 + (left + column) * across,
            y0 + (top + row) * down,
            x0 + (left + column + columns) * across,
            y0 + (top + row + rows) * down,
        )
        regions.append(HotRegion(frame.stored(upright), float(heats[n]) / total))
    return tuple(regions)
