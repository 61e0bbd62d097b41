"""A heatmap -> the boxes around its hot regions, in pixels of the photo's file."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from camserve.images.geometry import Box, InputFrame
from camserve.images.heatmap import Heatmap
from camserve.preprocess_settings import InputSize


@dataclass(frozen=True)
class HotRegion:
    """A connected hot region.

    Attributes:
        box: around the region, in pixels of the photo's file.
        share: of the sum of the heatmap over the photo, in [0, 1].
    """

    box: Box
    share: float


def find_hot_regions(
    heatmap: Heatmap, frame: InputFrame, input_size: InputSize, threshold: float
) -> tuple[HotRegion, ...]:
    """The connected regions above ``threshold``, the one with the largest share first.

    They are searched for at the size of the network's input, without what was padded, so that they
    do not depend on the size of a reply's pictures.

    Args:
        heatmap: of the explanation.
        frame: of the photo.
        input_size: of the network's input.
        threshold: in [0, 1).
    """
    rows, columns = input_size
    values = heatmap.resample(InputFrame.full(columns, rows))
    x0, y0, x1, y1 = frame.input_box
    scale_x, scale_y = (x1 - x0) / columns, (y1 - y0) / rows
    width, height = frame.upright_size
    # Without the bars beside a padded photo.
    left, right = max(0, round(-x0 / scale_x)), min(columns, round((width - x0) / scale_x))
    top, bottom = max(0, round(-y0 / scale_y)), min(rows, round((height - y0) / scale_y))
    values = values[top:bottom, left:right]
    total = float(values.sum(dtype=np.float64))
    # Label 0 is what is not above the threshold.
    label_count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (values > threshold).astype(np.uint8), connectivity=8
    )
    sums = np.bincount(labels.ravel(), weights=values.ravel(), minlength=label_count)
    regions = []
    for label in sorted(range(1, label_count), key=lambda label: -sums[label]):
        column, row, region_columns, region_rows = (int(value) for value in stats[label, :4])
        upright_box = Box(
            x0 + (left + column) * scale_x,
            y0 + (top + row) * scale_y,
            x0 + (left + column + region_columns) * scale_x,
            y0 + (top + row + region_rows) * scale_y,
        )
        regions.append(HotRegion(frame.to_file_box(upright_box), float(sums[label]) / total))
    return tuple(regions)
