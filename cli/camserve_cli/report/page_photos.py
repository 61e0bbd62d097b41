"""The photos that the page has: which, and their data for its script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.box_agreement import is_outside
from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.content import ReportContent
from camserve_cli.report.page_pictures import map_bytes, pack_map
from camserve_cli.report.store import LINES, read_line, read_thumbnails

#: The page has at most so many photos.
MOST_PHOTOS: Final = 10_000


@dataclass(frozen=True)
class PagePhotos:
    """The photos of the page.

    Attributes:
        rows: their places among the columns, ascending.
        data: for the script, in JSON's types.
        thumbnails: their WebP files in base64, one after another; ``data["thumbnails"]`` has the
            place where each begins, and the end.
    """

    rows: NDArray[np.int64]
    data: dict[str, Any]
    thumbnails: str

    def index(self, row: int) -> int:
        """The place among the page's photos of one of the columns' photos."""
        return int(np.searchsorted(self.rows, row))


def choose_photos(content: ReportContent) -> NDArray[np.int64]:
    """The most telling photos: those that the page shows elsewhere, then errors and doubts."""
    columns, analysis = content.columns, content.analysis
    count = len(columns.photos)
    if count <= MOST_PHOTOS:
        return np.arange(count)
    interest = (
        4.0 * columns.wrong
        + 3.0 * ~columns.photos.evidence
        + 2.0 * is_outside(columns)
        + (1 - np.nan_to_num(columns.margin, nan=1.0))
    )
    interest[list(_shown_elsewhere(content))] = np.inf
    if analysis.comparison is not None:
        interest[list(analysis.comparison.regressions)] += 4
    return np.sort(np.argsort(-interest, kind="stable")[:MOST_PHOTOS])


def gather_photos(content: ReportContent, out: Path, rows: NDArray[np.int64]) -> PagePhotos:
    """The data of these photos.

    Args:
        content: of the report.
        out: its folder, with the lines and the thumbnails.
        rows: the photos' places among the columns, ascending.
    """
    columns, analysis = content.columns, content.analysis
    photos = columns.photos
    top, true_maps, true_all = _read_lines(columns, out, rows)
    thumbnails, places = [], [0]
    slots = [(int(begin), int(length)) for begin, length in columns.thumbnails[rows]]
    for picture in read_thumbnails(out, slots):
        thumbnails.append(base64.b64encode(picture).decode())
        places.append(places[-1] + len(thumbnails[-1]))
    drop = columns.faithfulness.get("drop")
    comparison, other_maps = analysis.comparison, columns.compared_maps
    data = {
        "classes": list(photos.classes),
        "shape": list(photos.maps.shape[1:]),
        "paths": [photos.paths[row] for row in rows],
        "true": photos.true[rows].tolist(),
        "trueAll": true_all if columns.task == "multilabel" else None,
        "predicted": photos.predicted[rows].tolist(),
        "probability": numbers(photos.probability[rows]),
        "margin": numbers(columns.margin[rows]),
        "evidence": photos.evidence[rows].astype(int).tolist(),
        "border": numbers(photos.border[rows]),
        "corners": numbers(photos.corners[rows]),
        "cluster": analysis.cluster_of[rows].tolist(),
        "mass": numbers(columns.boxes["mass"][rows]) if columns.boxes else None,
        "outside": is_outside(columns)[rows].astype(int).tolist() if columns.boxes else None,
        "drop": numbers(drop[rows, 0]) if drop is not None else None,
        "inputBox": numbers(columns.input_box[rows].ravel(), 4),
        "top": top,
        "properties": {name: numbers(column[rows]) for name, column in photos.properties.items()},
        "cameras": list(columns.camera_names),
        "camera": columns.cameras[rows].tolist(),
        "maps": base64.b64encode(map_bytes(photos.maps[rows])).decode(),
        "trueMaps": true_maps,
        "compared": columns.compared[rows].tolist() if comparison is not None else None,
        "distance": numbers(comparison.distance[rows]) if comparison is not None else None,
        "comparedMaps": base64.b64encode(map_bytes(other_maps[rows])).decode()
        if other_maps is not None
        else None,
        "comparedShape": list(other_maps.shape[1:]) if other_maps is not None else None,
        "thumbnails": places,
    }
    return PagePhotos(rows, data, "".join(thumbnails))


def numbers(values: Iterable[float], digits: int = 3) -> list[float | None]:
    """With so many significant digits; null where there is no number."""
    return [float(f"{one:.{digits}g}") if np.isfinite(one) else None for one in values]


def _read_lines(
    columns: ReportColumns, out: Path, rows: NDArray[np.int64]
) -> tuple[list[list[float]], dict[int, str], list[list[int]]]:
    """Of each photo the best classes with their probabilities; the true class's map; all labels."""
    top, true_maps, true_all = [], {}, []
    wrong, true = columns.wrong[rows], columns.photos.true[rows]
    lines = read_line(out / LINES, [int(place) for place in columns.places[rows]])
    for index, line in enumerate(lines):
        predictions = line["reply"]["predictions"]
        top.append(
            [
                number
                for one in predictions
                for number in (one["class_id"], float(f"{one['probability']:.3g}"))
            ]
        )
        true_all.append([label["class_id"] for label in line.get("true", ())])
        if wrong[index]:
            for explanation in line["reply"]["explanations"]:
                if explanation["class_id"] == true[index]:
                    true_maps[index] = pack_map(np.asarray(explanation["map"]["values"]))
    return top, true_maps, true_all


def _shown_elsewhere(content: ReportContent) -> set[int]:
    """The rows that findings, pairs, clusters and the comparison name."""
    analysis, columns = content.analysis, content.columns
    row_of = {path: row for row, path in enumerate(columns.photos.paths)}
    rows = {row_of[path] for finding in analysis.findings for path in finding.photos}
    rows |= {one.row for contrasts in content.contrasts for one in contrasts}
    for of_class in analysis.clusters:
        rows |= {row for cluster in of_class.clusters for row in cluster.nearest}
    if analysis.comparison is not None:
        rows |= set(shown_of_comparison(analysis.comparison.regressions))
        rows |= set(shown_of_comparison(analysis.comparison.improvements))
        rows |= set(shown_of_comparison(analysis.comparison.furthest))
    return rows


def shown_of_comparison(rows: Sequence[int]) -> Sequence[int]:
    """Those of the photos of a list that the page shows in its section."""
    return rows[:24]
