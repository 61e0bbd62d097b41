"""COCO JSON: which photo has which categories, boxes and masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camserve_cli.errors import CommandError

#: No photo has so many pixels on a side; NaN and infinity are not below it either.
_FARTHEST = 1e6
_ACCEPTED = "accepted: COCO JSON with images, annotations and categories"


class AnnotationError(CommandError):
    """A file of labels or boxes cannot be read."""

    exit_status = 2


@dataclass(frozen=True)
class CocoAnnotation:
    """One annotation of a photo.

    Attributes:
        photo: the image's ``file_name``.
        category: the category's name.
        box: x, y, width, height in pixels of the file; None where it has none.
        segmentation: polygons or a run-length code as the file has them; None where it has none.
    """

    photo: str
    category: str
    box: tuple[float, float, float, float] | None
    segmentation: Any


def read_coco(path: Path) -> list[CocoAnnotation]:
    """The annotations of a file, in its order.

    Raises:
        AnnotationError: it is not COCO JSON.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
        photos = {one["id"]: str(one["file_name"]) for one in content["images"]}
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        return [
            CocoAnnotation(
                photo=photos[one["image_id"]],
                category=categories[one["category_id"]],
                box=_box(one.get("bbox")),
                segmentation=_segmentation(one.get("segmentation")),
            )
            for one in content["annotations"]
        ]
    except OSError as failure:
        raise AnnotationError(f"{path}: {failure.strerror}") from None
    except KeyError as failure:
        raise AnnotationError(
            f"{path}: {failure} is missing or names nothing; {_ACCEPTED}"
        ) from None
    except RecursionError:
        raise AnnotationError(f"{path}: nested too deeply; {_ACCEPTED}") from None
    except (ValueError, TypeError) as failure:
        raise AnnotationError(f"{path}: {failure}; {_ACCEPTED}") from None


def _box(given: Any) -> tuple[float, float, float, float] | None:
    if not given:
        return None
    x, y, width, height = map(float, given)
    if not all(abs(edge) < _FARTHEST for edge in (x, y, width, height)):
        raise ValueError(f"bbox {given!r:.80} is no box of pixels")
    if min(width, height) < 0:
        raise ValueError(f"bbox {given!r:.80} has a negative size")
    return x, y, width, height


def _segmentation(given: Any) -> Any:
    """Polygons or a run-length code that can be drawn; None where there is none.

    Raises:
        ValueError, TypeError, KeyError: it is neither.
    """
    if not given:
        return None
    if isinstance(given, dict):
        decode_runs(given)
        return given
    for polygon in given:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                f"segmentation {given!r:.80} is no list of polygons, each x, y, x, y, .. of three "
                "points or more"
            )
        if not all(abs(float(edge)) < _FARTHEST for edge in polygon):
            raise ValueError(f"segmentation {given!r:.80} has no pixels")
    return given


def decode_runs(segmentation: dict[str, Any]) -> NDArray[np.uint8]:
    """The mask of a run-length code, (H, W), 0 or 1.

    COCO's two forms: a list of counts, and the same in its text. The runs go down the columns, of
    zeros first.

    Raises:
        ValueError: the runs do not have so many pixels.
    """
    height, width = map(int, segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = _counts_from_text(counts)
    runs = np.asarray(counts, np.int64)
    if runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise ValueError(f"a mask's runs have {runs.sum()} pixels, not {height} x {width}")
    values = np.arange(len(runs)) % 2
    return np.repeat(values, runs).astype(np.uint8).reshape(width, height).T


def _counts_from_text(text: str) -> list[int]:
    """Each number in characters of five bits; from the fourth on, they add to the one two before.

    As COCO's ``maskApi.c`` writes them: a character is 48 + 5 bits + 32 where more follow, the
    lowest bits first, with the sign in the highest bit of the last.
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place == len(text):
                raise ValueError("a mask's text ends within a number")
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            place += 1
            shift += 5
            if not more and bits & 0x10:
                value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts
