"""Where the objects of photos are: boxes and masks of COCO JSON, CSV or Pascal VOC.

All are in pixels of the photo's file, as the file stores them, whatever its EXIF orientation; so
are the boxes of replies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from camserve_cli.report.photos.coco import AnnotationError, read_coco
from camserve_cli.report.photos.labels import PhotoNames, read_rows

_CORNERS = ("x0", "y0", "x1", "y1")
#: A file of Pascal VOC is small; a larger one is something else.
_MAX_XML = 4_000_000


@dataclass(frozen=True)
class ObjectPlace:
    """One object in a photo.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the file, x1 and y1 exclusive.
        label: as the file of boxes names it; empty where it names none.
        segmentation: COCO's polygons or run-length code, where there is a mask.
    """

    box: tuple[float, float, float, float]
    label: str = ""
    segmentation: Any = None


@dataclass(frozen=True)
class ObjectPlaces:
    """The objects of the photos.

    Attributes:
        by_photo: of each photo that has any.
        missing: how many photos are listed that are not in the folder.
    """

    by_photo: Mapping[str, list[ObjectPlace]]
    missing: int


def read_boxes(path: Path, photos: PhotoNames) -> ObjectPlaces:
    """The objects of a COCO JSON, a CSV with photo,x0,y0,x1,y1[,label], or a folder of Pascal VOC.

    Raises:
        AnnotationError: it cannot be read, or a box is none.
    """
    if path.is_dir():
        listed = _read_voc(path, photos)
    elif path.suffix.lower() == ".json":
        listed = _read_coco(path)
    else:
        listed = _read_csv(path)
    found: dict[str, list[ObjectPlace]] = {}
    missing = set()
    for name, photo, place in ((name, photos.find(name), place) for name, place in listed):
        if photo is None:
            missing.add(name)
        else:
            found.setdefault(photo, []).append(place)
    return ObjectPlaces(found, len(missing))


def _read_coco(path: Path) -> list[tuple[str, ObjectPlace]]:
    listed = []
    for one in read_coco(path):
        if one.box is None:
            # COCO computes an area's box where it has a mask; a file may lack it.
            if one.segmentation is None:
                continue
            box = (0.0, 0.0, math.inf, math.inf)
        else:
            x, y, width, height = one.box
            box = (x, y, x + width, y + height)
        listed.append((one.photo, ObjectPlace(box, one.category, one.segmentation)))
    return listed


def _read_csv(path: Path) -> list[tuple[str, ObjectPlace]]:
    listed = []
    for number, row in enumerate(read_rows(path, ("photo", *_CORNERS)), 2):
        try:
            x0, y0, x1, y1 = (float(row[name]) for name in _CORNERS)
        except ValueError:
            raise AnnotationError(
                f"{path}, line {number}: x0, y0, x1 and y1 are to be numbers of pixels"
            ) from None
        box = _checked((x0, y0, x1, y1), f"{path}, line {number}")
        listed.append((row["photo"], ObjectPlace(box, row.get("label", "").strip())))
    return listed


def _read_voc(folder: Path, photos: PhotoNames) -> list[tuple[str, ObjectPlace]]:
    """Of each XML file the objects; Pascal VOC counts pixels from 1, both ends included."""
    listed = []
    files = sorted(folder.glob("*.xml"))
    if not files:
        raise AnnotationError(f"{folder}: no XML file in it; accepted: a folder of Pascal VOC")
    for file in files:
        try:
            text = file.read_text("utf-8")
            # Entities, with which XML of a few lines takes all memory, stand in a DOCTYPE.
            if len(text) > _MAX_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
                raise AnnotationError(f"{file}: no Pascal VOC; accepted: XML without a DOCTYPE")
            root = ElementTree.fromstring(text)  # noqa: S314  # without a DOCTYPE
            named = root.findtext("filename") or ""
            photo = named if photos.find(named) else (photos.find_stem(file.stem) or named)
            for found in root.iter("object"):
                corners = found.find("bndbox")
                if corners is None:
                    continue
                x0, y0, x1, y1 = (
                    float(corners.findtext(name, "nan"))
                    for name in ("xmin", "ymin", "xmax", "ymax")
                )
                box = _checked((x0 - 1, y0 - 1, x1, y1), str(file))
                listed.append((photo, ObjectPlace(box, found.findtext("name", "").strip())))
        except (OSError, ValueError, ElementTree.ParseError) as failure:
            raise AnnotationError(f"{file}: {failure}; accepted: XML of Pascal VOC") from None
    return listed


def _checked(
    box: tuple[float, float, float, float], where: str
) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    if not (all(map(math.isfinite, box)) and x0 < x1 and y0 < y1):
        raise AnnotationError(
            f"{where}: {list(box)} is no box; accepted: x0 < x1 and y0 < y1, in pixels"
        )
    return box
