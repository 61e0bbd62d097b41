"""The photos and maps as a folder in the layout of FiftyOneDataset.

``metadata.json``, ``samples.json`` and ``data/``, as FiftyOne's user guide lays a FiftyOneDataset
out. Without a ``version`` in its metadata, FiftyOne's importer reads a sample's fields from the
JSON as they stand, and finds out their types. FiftyOne itself is not installed where this project
is tested: the folder is held to the documented layout, not to the program.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve.images import Box, upright_size
from camserve.images.geometry import to_upright_box
from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.photos.boxes import ObjectPlace
from camserve_cli.report.photos.dataset import Photos
from camserve_cli.report.store import LINES, read_line

FOLDER = "fiftyone"
#: The longest side of a heatmap's picture, which FiftyOne stretches over the photo.
_SIDE = 224


def export_fiftyone(columns: ReportColumns, name: str, photos: Photos, out: Path) -> None:
    """Write the folder ``fiftyone``; one of an earlier run is replaced.

    Args:
        columns: of the photos.
        name: of the model, for the dataset's.
        photos: which are copied, with their objects.
        out: of the report.

    Raises:
        OSError: a photo cannot be copied, or a file not be written.
    """
    target = out.absolute() / FOLDER
    if target.exists():
        shutil.rmtree(target)
    (target / "data").mkdir(parents=True)
    metadata = {
        "name": f"camserve-{name}",
        "media_type": "image",
        "info": {"model": name, "writer": "camserve report"},
        "default_classes": list(columns.photos.classes),
    }
    (target / "metadata.json").write_text(json.dumps(metadata, indent=2), "utf-8")
    lines = read_line(out / LINES, [int(place) for place in columns.places])
    with (target / "samples.json").open("w", encoding="utf-8") as samples:
        samples.write('{"samples": [')
        for row, line in enumerate(lines):
            samples.write(",\n" if row else "\n")
            json.dump(_sample(row, line, columns, photos, target), samples)
        samples.write("\n]}\n")


def _sample(
    row: int, line: Mapping[str, Any], columns: ReportColumns, photos: Photos, target: Path
) -> dict[str, Any]:
    """A sample, whose photo is copied and whose heatmap is written."""
    path = line["photo"]
    copy = target / "data" / path
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photos.folder / path, copy)
    best = line["reply"]["explanations"][0]
    sample: dict[str, Any] = {
        "filepath": f"data/{path}",
        "tags": [tag for tag, has in _tags(row, columns).items() if has],
        "prediction": {
            "_cls": "Classification",
            "label": best["label"],
            "confidence": best["probability"],
        },
        "evidence": best["evidence"],
    }
    truth = [{"_cls": "Classification", "label": label["label"]} for label in line.get("true", ())]
    if columns.task == "multilabel":
        sample["ground_truth"] = {"_cls": "Classifications", "classifications": truth}
    elif truth:
        sample["ground_truth"] = truth[0]
    if path in photos.places:
        detections = _detections(photos.places[path], line["reply"]["image"])
        sample["objects"] = {"_cls": "Detections", "detections": detections}
    if best["evidence"]:
        picture = target / "fields" / "heatmap" / f"{path}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(".png", _over_photo(row, columns))[1]
        picture.write_bytes(encoded.tobytes())
        # Absolute: the importer completes the path of the photo alone.
        sample["heatmap"] = {"_cls": "Heatmap", "map_path": str(picture)}
    figures = {**line.get("boxes", {}), **(best.get("map_statistics") or {})}
    for name in ("mass", "border", "corners", "entropy", "gini"):
        if figures.get(name) is not None:
            sample[name] = figures[name]
    return sample


def _detections(places: Sequence[ObjectPlace], image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects' boxes: left, top, width and height in shares of the upright photo."""
    orientation = image.get("orientation", 1)
    width, height = upright_size(image["width"], image["height"], orientation)
    found = []
    for place in places:
        # A mask may have no box.
        if not all(map(math.isfinite, place.box)):
            continue
        x0, y0, x1, y1 = to_upright_box(Box(*place.box), width, height, orientation)
        left, right = (min(max(x / width, 0.0), 1.0) for x in (x0, x1))
        top, bottom = (min(max(y / height, 0.0), 1.0) for y in (y0, y1))
        box = [left, top, right - left, bottom - top]
        found.append({"_cls": "Detection", "label": place.label, "bounding_box": box})
    return found


def _tags(row: int, columns: ReportColumns) -> dict[str, bool]:
    return {
        "wrong": bool(columns.wrong[row]),
        "no_evidence": not columns.photos.evidence[row],
    }


def _over_photo(row: int, columns: ReportColumns) -> NDArray[np.uint8]:
    """A map as it lies in the upright photo, 0 to 255, zero where the network saw nothing."""
    properties = columns.photos.properties
    width, height = (
        float(np.nan_to_num(properties[side][row], nan=1.0)) if side in properties else 1.0
        for side in ("width", "height")
    )
    scale = _SIDE / max(width, height)
    columns_of, rows_of = max(1, round(width * scale)), max(1, round(height * scale))
    x0, y0, x1, y1 = columns.input_box[row]
    heat = columns.photos.maps[row].astype(np.float32)
    # The place in the map, counted in cells, of each of the picture's pixels.
    across = ((np.arange(columns_of) + 0.5) / columns_of - x0) / (x1 - x0) * heat.shape[1] - 0.5
    down = ((np.arange(rows_of) + 0.5) / rows_of - y0) / (y1 - y0) * heat.shape[0] - 0.5
    x, y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    drawn = cv2.remap(heat, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside_x = (across > -0.5) & (across < heat.shape[1] - 0.5)
    inside_y = (down > -0.5) & (down < heat.shape[0] - 0.5)
    drawn = drawn * (inside_y[:, None] & inside_x)
    return np.asarray(np.round(drawn.clip(0, 1) * 255), np.uint8)
