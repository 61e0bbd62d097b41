"""Boxes and masks of COCO JSON, CSV and Pascal VOC, and a map's heat in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camserve.images import Box, InputFrame
from camserve_cli.report.figures.box_figures import box_figures
from camserve_cli.report.photos.boxes import ObjectPlace, read_boxes
from camserve_cli.report.photos.coco import AnnotationError, decode_runs, read_coco
from camserve_cli.report.photos.labels import PhotoNames

PHOTOS = PhotoNames(["a/x.jpg", "a/y.jpg"], Path("photos"))
#: The network sees all of a photo of 400 x 400, with a map of 4 x 4.
FRAME = InputFrame(400, 400, 1, Box(0, 0, 400, 400))


def heat(*cells: tuple[int, int, float]) -> Any:
    """A map of 4 x 4 with (row, column, heat)."""
    values = np.zeros((4, 4))
    for row, column, value in cells:
        values[row, column] = value
    return values


def test_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("photo,x0,y0,x1,y1,label\na/x.jpg,10,20,30.5,40,cat\ngone.jpg,0,0,1,1,cat\n")
    found = read_boxes(path, PHOTOS)
    assert found.by_photo == {"a/x.jpg": [ObjectPlace((10, 20, 30.5, 40), "cat")]}
    assert found.missing == 1


def test_coco_boxes_are_corner_and_size(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    polygon = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0]]
    content = {
        "images": [{"id": 1, "file_name": "x.jpg"}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "bbox": [10, 20, 5, 6], "segmentation": polygon}
        ],
    }
    path.write_text(json.dumps(content))
    (place,) = read_boxes(path, PHOTOS).by_photo["a/x.jpg"]
    assert place == ObjectPlace((10, 20, 15, 26), "cat", polygon)


def test_pascal_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    xml = (
        "<annotation><filename>{}</filename><object><name>cat</name><bndbox><xmin>1</xmin>"
        "<ymin>2</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "first.xml").write_text(xml.format("x.jpg"))
    # Its name says which photo it is of, where the file does not.
    (tmp_path / "y.xml").write_text(xml.format("renamed.jpg"))
    found = read_boxes(tmp_path, PHOTOS)
    place = ObjectPlace((0, 1, 10, 20), "cat")
    assert found.by_photo == {"a/x.jpg": [place], "a/y.jpg": [place]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a/x.jpg,5,5,5,9", "line 2.*no box; accepted: x0 < x1 and y0 < y1"),
        ("a/x.jpg,5,5,nan,9", "no box"),
        ("a/x.jpg,5,5,,9", "to be numbers of pixels"),
    ],
)
def test_a_row_that_is_no_box(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(f"photo,x0,y0,x1,y1\n{row}\n")
    with pytest.raises(AnnotationError, match=message):
        read_boxes(path, PHOTOS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "accepted: XML of Pascal VOC"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "accepted: XML without a DOCTYPE"),
    ],
)
def test_xml_that_is_no_pascal_voc(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_boxes(tmp_path, PHOTOS)


def test_a_folder_without_xml(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no XML file in it"):
        read_boxes(tmp_path, PHOTOS)


@pytest.mark.parametrize(
    "counts",
    # Runs go down the columns, of zeros first. From the fourth on, the text has the difference to
    # the one two before: 5 - 2 = 3, and 0 - 1 = -1, which is "O".
    [[1, 2, 1, 5, 0], "1213O"],
)
def test_the_runs_of_a_mask(counts: Any) -> None:
    mask = decode_runs({"size": [3, 3], "counts": counts})
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1], [1, 1, 1]]


def test_a_run_of_more_than_five_bits() -> None:
    # 100 is 3 * 32 + 4: "T" is 48 + 32 + 4, "3" is 48 + 3.
    mask = decode_runs({"size": [10, 11], "counts": "T3:"})
    assert mask.sum() == 10
    assert mask[:, 10].tolist() == [1] * 10


@pytest.mark.parametrize("counts", [[1, 2], "12T", [-1, 10]])
def test_runs_that_are_no_mask(counts: Any) -> None:
    with pytest.raises(ValueError, match="mask"):
        decode_runs({"size": [3, 3], "counts": counts})


def test_the_figures_of_a_box_by_hand() -> None:
    # The box covers the second cell of the first row, and half of the third.
    figures = box_figures(heat((0, 1, 1.0), (0, 2, 0.5), (3, 3, 0.5)), FRAME, [
        ObjectPlace((100, 0, 250, 100))
    ])  # fmt: skip
    assert figures is not None
    assert figures.mass == pytest.approx((1.0 + 0.5 * 0.5) / 2)
    assert figures.pointing == 1
    assert figures.area == pytest.approx(1.5 / 16)
    # The upsampled heat spreads beyond the cell.
    assert 0.2 < figures.energy < figures.mass


def test_the_hottest_cell_outside_of_the_box() -> None:
    figures = box_figures(heat((3, 3, 1.0)), FRAME, [ObjectPlace((0, 0, 200, 200))])
    assert figures is not None
    assert (figures.mass, figures.pointing) == (0, 0)
    assert figures.energy == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0, 0, 100, 0, 100, 100, 0, 100]],
        {"size": [400, 400], "counts": [0, 100, *[300, 100] * 99, 300 + 300 * 400]},
    ],
)
def test_a_mask_counts_for_mass_and_its_box_for_energy(segmentation: Any) -> None:
    place = ObjectPlace((0, 0, 400, 400), "", segmentation)
    figures = box_figures(heat((0, 0, 1.0), (1, 1, 1.0)), FRAME, [place])
    assert figures is not None
    assert figures.mass == pytest.approx(0.5, abs=0.01)
    assert figures.area == pytest.approx(1 / 16, rel=0.1)
    assert figures.energy == pytest.approx(1)


def test_the_part_that_the_network_does_not_see_is_left_out() -> None:
    frame = InputFrame(600, 400, 1, Box(100, 0, 500, 400))
    # In the network's input the box is that from x = 0 on.
    figures = box_figures(heat((0, 0, 1.0)), frame, [ObjectPlace((0, 0, 200, 100))])
    assert figures is not None
    assert figures.mass == pytest.approx(1)
    assert figures.area == pytest.approx(1 / 16)
    assert box_figures(heat((0, 0, 1.0)), frame, [ObjectPlace((0, 0, 90, 100))]) is None


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_in_pixels_of_the_file(orientation: int) -> None:
    width, height = (400, 300) if orientation in (1, 3) else (300, 400)
    whole = Box(0, 0, 400, 300)
    frame = InputFrame(width, height, orientation, whole)
    # What is at the upper left of the upright photo, in the file: 1 there, 3 at the lower right,
    # 6 at the lower left, 8 at the upper right.
    corner = {
        1: (0, 0, 100, 75), 3: (300, 225, 400, 300), 6: (0, 300, 75, 400), 8: (225, 0, 300, 100),
    }[orientation]  # fmt: skip
    runs = np.zeros((height, width), np.uint8)
    runs[corner[1] : corner[3], corner[0] : corner[2]] = 1
    for segmentation in (None, mask_of(runs)):
        place = ObjectPlace(tuple(map(float, corner)), "", segmentation)  # type: ignore[arg-type]
        figures = box_figures(heat((0, 0, 1.0)), frame, [place])
        assert figures is not None
        assert figures.mass == pytest.approx(1, abs=0.02)
        assert figures.pointing == 1


def mask_of(pixels: Any) -> dict[str, Any]:
    """A mask as runs."""
    values = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(values)) + 1
    runs = np.diff([0, *edges, len(values)]).tolist()
    return {"size": list(pixels.shape), "counts": runs if values[0] == 0 else [0, *runs]}


def test_a_map_without_heat_has_no_figures() -> None:
    assert box_figures(heat(), FRAME, [ObjectPlace((0, 0, 400, 400))]) is None


@pytest.mark.parametrize(
    "annotation",
    [
        {"bbox": [float("nan"), 0, 5, 5]},
        {"bbox": [0, 0, float("inf"), 5]},
        {"bbox": [5, 5, -3, 5]},
        {"bbox": [0, 0, 5]},
        {"segmentation": [[1, 1, 5]]},
        {"segmentation": [[]]},
        {"segmentation": [1, 2, 3, 4, 5, 6]},
        {"segmentation": "text"},
        {"segmentation": [[0, 0, 1e12, 0, 5, 5]]},
        {"segmentation": {"size": [4, 4], "counts": [3]}},
        {"segmentation": {"size": [4, 4]}},
        {"segmentation": {"size": [4, 4], "counts": "~"}},
    ],
)
def test_annotations_that_cannot_be_drawn_are_refused(
    tmp_path: Path, annotation: dict[str, Any]
) -> None:
    path = tmp_path / "boxes.json"
    content = {
        "images": [{"id": 1, "file_name": "x.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, **annotation}],
    }
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"boxes.json: .*accepted: COCO JSON"):
        read_coco(path)
