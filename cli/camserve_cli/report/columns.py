"""The lines of a report as columns: numbers of all photos, of which every part is computed.

A photo takes some 300 bytes here, so that 50,000 are no burden; what else its line holds is read
again where the page shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import ExplainedPhotos, Floats, Integers
from camserve_cli.report.photos.photo_file import PROPERTIES
from camserve_cli.report.store import read_lines

Booleans = NDArray[np.bool_]

BOX_FIGURES = ("mass", "pointing", "energy", "area")
#: Of a figure of faithfulness: of the map, of a random one, of one of the centre.
BESIDE = ("value", "random", "centre")


@dataclass(frozen=True)
class FailedPhoto:
    """A photo that was not explained, and why."""

    path: str
    code: str
    message: str


@dataclass(frozen=True)
class ReportColumns:
    """N explained photos, and those that failed.

    Attributes:
        photos: the columns that every part uses.
        task: ``multiclass``, ``multilabel`` or ``binary``.
        threshold: from which probability on a label is predicted; of ``multilabel``.
        places: (N,) where each photo's line begins in the file.
        thumbnails: (N, 2) begin and length in the file of thumbnails; length 0 where there is none.
        input_box: (N, 4) the network's input in the upright photo, in shares of its sides.
        second: (N,) the class of the second highest probability, -1 where there is none.
        margin: (N,) the probability of the predicted class minus that of the second.
        true_sets: (N, C) which labels a photo has, and ``labelled`` (N,) whether it has any;
            None unless ``multilabel``.
        probabilities: (N, C) of each label; None where they were not kept.
        boxes: by name, (N,) figures of the map against the boxes, NaN where there is none.
        faithfulness: by name, (N, 3) of the map, of a random one, of the centre; NaN where unknown.
        cameras: (N,) index into ``camera_names``, -1 where unknown.
        camera_names: of the photos' cameras.
        compared: (N,) the class that the other model predicts, -1 where it was not asked.
        compared_maps: (N, h, w) of the other model; None where none was asked.
        failed: the photos that were not explained.
    """

    photos: ExplainedPhotos
    task: str
    threshold: float
    places: Integers
    thumbnails: Integers
    input_box: Floats
    second: Integers
    margin: Floats
    true_sets: Booleans | None
    labelled: Booleans
    probabilities: NDArray[np.float16] | None
    boxes: Mapping[str, Floats]
    faithfulness: Mapping[str, Floats]
    cameras: Integers
    camera_names: Sequence[str]
    compared: Integers
    compared_maps: NDArray[np.float16] | None
    failed: Sequence[FailedPhoto]

    @property
    def known(self) -> Booleans:
        """(N,) whether it is known what a photo shows."""
        return self.photos.true >= 0

    @property
    def right(self) -> Booleans:
        """(N,) whether the prediction is right; false where the truth is not known."""
        return np.asarray(self.known & (self.photos.true == self.photos.predicted))

    @property
    def wrong(self) -> Booleans:
        """(N,) whether the prediction is wrong; false where the truth is not known."""
        return np.asarray(self.known & (self.photos.true != self.photos.predicted))


def read_columns(
    path: Path,
    wanted: frozenset[str],
    classes: Sequence[str],
    sample: frozenset[str],
    task: str = "multiclass",
    threshold: float = 0.5,
) -> ReportColumns:
    """The columns of a file of lines, in the order of the photos' paths.

    Args:
        path: of the file.
        wanted: the photos to read; lines of others are left out.
        classes: the labels of the model's classes.
        sample: the photos whose faithfulness counts; an earlier run may have measured others'.
        task: of the model.
        threshold: of a multilabel model.
    """
    found = [
        (line["photo"], place, "reply" in line)
        for place, line in read_lines(path)
        if line["photo"] in wanted
    ]
    order = sorted(range(len(found)), key=lambda index: found[index][0])
    explained = [index for index in order if found[index][2]]
    row_of = {found[index][1]: row for row, index in enumerate(explained)}
    builder = _Builder([found[index][0] for index in explained], classes, sample, task)
    failed = []
    for place, line in read_lines(path):
        if place in row_of:
            builder.add(row_of[place], place, line)
        elif "error" in line and line["photo"] in wanted:
            error = line["error"]
            failed.append(FailedPhoto(line["photo"], error["code"], error["message"]))
    return builder.columns(threshold, sorted(failed, key=lambda one: one.path))


class _Builder:
    """Fills the columns, a line at a time."""

    def __init__(
        self, paths: Sequence[str], classes: Sequence[str], sample: frozenset[str], task: str
    ) -> None:
        count, kinds = len(paths), len(classes)
        self._paths, self._classes, self._task = paths, classes, task
        self._sample = sample
        self._integers = {
            name: np.full(count, -1, np.int64)
            for name in ("true", "predicted", "second", "compared", "cameras", "places")
        }
        self._floats = {
            name: np.full(count, np.nan) for name in ("probability", "margin", "border", "corners")
        }
        self._properties = {name: np.full(count, np.nan) for name in PROPERTIES}
        self._boxes = {name: np.full(count, np.nan) for name in BOX_FIGURES}
        self._faithfulness: dict[str, Floats] = {}
        self._thumbnails = np.zeros((count, 2), np.int64)
        self._input_box = np.tile(np.array([0.0, 0, 1, 1]), (count, 1))
        self._evidence = np.zeros(count, np.bool_)
        self._labelled = np.zeros(count, np.bool_)
        multilabel = task == "multilabel"
        self._true_sets = np.zeros((count, kinds), np.bool_) if multilabel else None
        self._probabilities: NDArray[np.float16] | None = None
        self._maps: NDArray[np.float16] | None = None
        self._compared_maps: NDArray[np.float16] | None = None
        self._camera_names: dict[str, int] = {}

    def add(self, row: int, place: int, line: Mapping[str, Any]) -> None:
        reply = line["reply"]
        best, predictions = reply["explanations"][0], reply["predictions"]
        integers, floats = self._integers, self._floats
        integers["places"][row] = place
        integers["predicted"][row] = best["class_id"]
        floats["probability"][row] = best["probability"]
        if len(predictions) > 1:
            integers["second"][row] = predictions[1]["class_id"]
            floats["margin"][row] = predictions[0]["probability"] - predictions[1]["probability"]
        self._add_truth(row, line.get("true", ()), best["class_id"])
        self._maps = self._add_map(self._maps, row, best["map"])
        self._evidence[row] = best["evidence"]
        statistics = best.get("map_statistics", {})
        for name in ("border", "corners"):
            if statistics.get(name) is not None:
                floats[name][row] = statistics[name]
        self._thumbnails[row] = line.get("thumbnail", (0, 0))
        self._input_box[row] = line["input_box"]
        for name, value in line.get("properties", {}).items():
            if name in self._properties:
                self._properties[name][row] = value
        for name, value in line.get("boxes", {}).items():
            self._boxes[name][row] = value
        measured = best.get("faithfulness", {}) if line["photo"] in self._sample else {}
        for name, figures in measured.items():
            column = self._faithfulness.setdefault(name, np.full((len(self._paths), 3), np.nan))
            # None is NaN here: a figure that is not defined for this photo.
            column[row] = [figures.get(one) for one in BESIDE]
        if "camera" in line:
            names = self._camera_names
            integers["cameras"][row] = names.setdefault(line["camera"], len(names))
        if "probabilities" in line:
            if self._probabilities is None:
                shape = (len(self._paths), len(self._classes))
                self._probabilities = np.full(shape, np.nan, np.float16)
            self._probabilities[row] = line["probabilities"]
        if "compared" in line:
            integers["compared"][row] = line["compared"]["class_id"]
            self._compared_maps = self._add_map(self._compared_maps, row, line["compared"]["map"])

    def columns(self, threshold: float, failed: Sequence[FailedPhoto]) -> ReportColumns:
        count, integers, floats = len(self._paths), self._integers, self._floats
        maps = np.zeros((count, 1, 1), np.float16) if self._maps is None else self._maps
        properties = {
            name: column for name, column in self._properties.items() if np.isfinite(column).any()
        }
        photos = ExplainedPhotos(
            paths=self._paths,
            classes=self._classes,
            true=integers["true"],
            predicted=integers["predicted"],
            probability=floats["probability"],
            maps=maps,
            evidence=self._evidence,
            border=floats["border"],
            corners=floats["corners"],
            properties=properties,
        )
        return ReportColumns(
            photos=photos,
            task=self._task,
            threshold=threshold,
            places=integers["places"],
            thumbnails=self._thumbnails,
            input_box=self._input_box,
            second=integers["second"],
            margin=floats["margin"],
            true_sets=self._true_sets,
            labelled=self._labelled,
            probabilities=self._probabilities,
            boxes=self._boxes if np.isfinite(self._boxes["mass"]).any() else {},
            faithfulness=self._faithfulness,
            cameras=integers["cameras"],
            camera_names=list(self._camera_names),
            compared=integers["compared"],
            compared_maps=self._compared_maps,
            failed=failed,
        )

    def _add_truth(self, row: int, labels: Sequence[Mapping[str, Any]], predicted: int) -> None:
        """Of several labels, the one that is predicted counts, else the first."""
        indices = [label["class_id"] for label in labels]
        if not indices:
            return
        self._labelled[row] = True
        self._integers["true"][row] = predicted if predicted in indices else indices[0]
        if self._true_sets is not None:
            self._true_sets[row, indices] = True

    def _add_map(
        self, maps: NDArray[np.float16] | None, row: int, body: Mapping[str, Any]
    ) -> NDArray[np.float16]:
        height, width = body["shape"]
        if maps is None:
            maps = np.zeros((len(self._paths), height, width), np.float16)
        maps[row] = np.asarray(body["values"], np.float16).reshape(height, width)
        return maps
