"""The columns of a report over a few made photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import ExplainedPhotos

CLASSES = ("cat", "dog", "owl")


def report_columns(
    predicted: Sequence[int],
    true: Sequence[int] | None = None,
    *,
    probability: ArrayLike = 0.9,
    maps: ArrayLike | None = None,
    evidence: ArrayLike = True,
    border: ArrayLike = 0.2,
    corners: ArrayLike = 0.1,
    properties: Mapping[str, ArrayLike] | None = None,
    classes: Sequence[str] = CLASSES,
    **more: Any,
) -> ReportColumns:
    """Columns of photos ``0.png``, ``1.png``, ..; what is not given is the same for all.

    ``more`` are fields of :class:`ReportColumns`.
    """
    count = len(predicted)

    def column(values: ArrayLike, kind: type = float) -> Any:
        return np.broadcast_to(np.asarray(values, kind), (count,)).copy()

    shown = column(-1 if true is None else np.asarray(true), int)
    photos = ExplainedPhotos(
        paths=[f"{index}.png" for index in range(count)],
        classes=classes,
        true=shown,
        predicted=np.asarray(predicted, int),
        probability=column(probability),
        maps=np.ones((count, 7, 7), np.float16) if maps is None else np.asarray(maps, np.float16),
        evidence=column(evidence, bool),
        border=column(border),
        corners=column(corners),
        properties={name: column(values) for name, values in (properties or {}).items()},
    )
    fields: dict[str, Any] = {
        "task": "multiclass",
        "threshold": 0.5,
        "places": np.zeros(count, int),
        "thumbnails": np.zeros((count, 2), int),
        "input_box": np.tile([0.0, 0, 1, 1], (count, 1)),
        "second": column(-1, int),
        "margin": column(0.5),
        "true_sets": None,
        "labelled": shown >= 0,
        "probabilities": None,
        "boxes": {},
        "faithfulness": {},
        "cameras": column(-1, int),
        "camera_names": [],
        "compared": column(-1, int),
        "compared_maps": None,
        "failed": [],
        **more,
    }
    return ReportColumns(photos=photos, **fields)
