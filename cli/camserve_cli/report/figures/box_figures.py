"""How much of a map's heat lies on the object: its mass inside, its peak, its energy.

- ``mass``: the share of heat in the object's mask (or box, where there is no mask), each cell of
  the map by the part of it that the object covers. Relevance mass accuracy: Arras, Osman and Samek
  2022, arXiv 2003.07258.
- ``pointing``: whether the hottest cell's centre lies in the object's box. Pointing game: Zhang et
  al. 2016, arXiv 1608.00507, without its tolerance of 15 pixels.
- ``energy``: the share of the heat of the map, upsampled bilinearly, in the object's box.
  Energy-based pointing game: Wang et al. 2020, arXiv 1910.01279.
- ``area``: the share of the network's input that the object covers: what ``mass`` would be if the
  heat were spread evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve.images import Box, InputFrame
from camserve.images.geometry import apply_orientation, to_upright_box
from camserve_cli.report.explained_photos import Floats
from camserve_cli.report.photos.boxes import ObjectPlace
from camserve_cli.report.photos.coco import decode_runs

#: How many pixels of the raster on which objects are drawn go to a cell of the map, a side.
_PER_CELL = 32


@dataclass(frozen=True)
class BoxFigures:
    """See the module; each in [0, 1], ``pointing`` 0 or 1."""

    mass: float
    pointing: float
    energy: float
    area: float

    def to_json(self) -> dict[str, float]:
        """The figures by name, rounded."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def box_figures(
    heat: Floats, frame: InputFrame, places: Sequence[ObjectPlace]
) -> BoxFigures | None:
    """The figures of a map.

    Args:
        heat: (h, w), from 0.
        frame: where it lies in the photo.
        places: the objects.

    Returns:
        None where there is no heat, or the network saw nothing of the objects.

    Raises:
        ValueError: a mask is none.
    """
    rows, columns = heat.shape
    size = (columns * _PER_CELL, rows * _PER_CELL)
    objects, boxes = np.zeros(size[::-1], np.uint8), np.zeros(size[::-1], np.uint8)
    for place in places:
        boxes |= _draw_box(place, frame, size)
        objects |= _draw(place, frame, size)
    area = float(objects.mean())
    if heat.sum() <= 0 or area == 0:
        return None
    covered = objects.reshape(rows, _PER_CELL, columns, _PER_CELL).mean((1, 3))
    top, left = np.unravel_index(int(heat.argmax()), heat.shape)
    centre = (int(top) * _PER_CELL + _PER_CELL // 2, int(left) * _PER_CELL + _PER_CELL // 2)
    fine = cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return BoxFigures(
        mass=float((heat * covered).sum() / heat.sum()),
        pointing=float(boxes[centre]),
        energy=float((fine * boxes).sum() / fine.sum()),
        area=area,
    )


def _draw(place: ObjectPlace, frame: InputFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An object's mask in the network's input, 0 or 1, of the size (width, height)."""
    if place.segmentation is None:
        return _draw_box(place, frame, size)
    if isinstance(place.segmentation, dict):
        return _draw_mask(decode_runs(place.segmentation), frame, size)
    canvas = np.zeros(size[::-1], np.uint8)
    for polygon in place.segmentation:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        upright = [_upright_point(x, y, frame) for x, y in points]
        # Of fillPoly's fixed-point coordinates, so that an edge is not moved by half a pixel.
        scaled = [_to_raster(x, y, frame, size) for x, y in upright]
        cv2.fillPoly(canvas, [np.round(np.asarray(scaled) * 16).astype(np.int32)], 1, shift=4)
    return canvas


def _draw_box(place: ObjectPlace, frame: InputFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = place.box
    inside = Box(max(x0, 0), max(y0, 0), min(x1, frame.width), min(y1, frame.height))
    upright = to_upright_box(inside, *frame.upright_size, frame.orientation)
    left, top = _to_raster(upright.x0, upright.y0, frame, size)
    right, bottom = _to_raster(upright.x1, upright.y1, frame, size)
    canvas = np.zeros(size[::-1], np.uint8)
    rows = slice(max(0, round(top)), max(0, round(bottom)))
    canvas[rows, max(0, round(left)) : max(0, round(right))] = 1
    return canvas


def _draw_mask(
    mask: NDArray[np.uint8], frame: InputFrame, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A mask in pixels of the file, drawn in the network's input."""
    upright = apply_orientation(np.ascontiguousarray(mask), frame.orientation)
    width, height = frame.upright_size
    across, down = upright.shape[1] / width, upright.shape[0] / height
    x0, y0, x1, y1 = frame.input_box
    # The pixel that each of the raster's centres lies in.
    columns = np.floor((x0 + (np.arange(size[0]) + 0.5) * (x1 - x0) / size[0]) * across)
    rows = np.floor((y0 + (np.arange(size[1]) + 0.5) * (y1 - y0) / size[1]) * down)
    seen_columns = (columns >= 0) & (columns < upright.shape[1])
    seen_rows = (rows >= 0) & (rows < upright.shape[0])
    canvas = np.zeros(size[::-1], np.uint8)
    picked = upright[np.ix_(rows[seen_rows].astype(int), columns[seen_columns].astype(int))]
    canvas[np.ix_(seen_rows, seen_columns)] = picked
    return canvas


def _upright_point(x: float, y: float, frame: InputFrame) -> tuple[float, float]:
    point = to_upright_box(Box(x, y, x, y), *frame.upright_size, frame.orientation)
    return point.x0, point.y0


def _to_raster(x: float, y: float, frame: InputFrame, size: tuple[int, int]) -> tuple[float, float]:
    x0, y0, x1, y1 = frame.input_box
    return (x - x0) / (x1 - x0) * size[0], (y - y0) / (y1 - y0) * size[1]
