"""What the photos of a report show: folders, CSV and COCO JSON against the model's labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camserve_cli.engines.engine import ModelDescription
from camserve_cli.report.photos.coco import AnnotationError
from camserve_cli.report.photos.label_names import LabelNames
from camserve_cli.report.photos.labels import PhotoNames, labels_of_folders, read_labels

NAMES = LabelNames(
    ModelDescription(
        "pets", "1.0", ("tabby", "tiger cat", "crane", "crane"), ("n1", "n2", "n3", "n4")
    )
)
PHOTOS = PhotoNames(["a/x.jpg", "a/y.jpg", "b/x.jpg"], Path("photos"))


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tabby", 0), ("Tabby", 0), ("tiger cat", 1), ("tiger_cat", 1), (" tabby ", 0),
        # Two classes have one label: it means neither; their IDs tell them apart.
        ("crane", None), ("Crane", None), ("n3", 2), ("n4", 3), ("3", 3), ("4", None),
        ("lion", None), ("-1", None), ("", None),
    ],
)  # fmt: skip
def test_what_a_name_means(name: str, index: int | None) -> None:
    assert NAMES.find(name) == index


def test_the_names_of_folders() -> None:
    found = labels_of_folders(["tabby/1.jpg", "deep/tiger_cat/2.jpg", "n3/3.jpg"], NAMES)
    assert found.by_photo == {"tabby/1.jpg": (0,), "deep/tiger_cat/2.jpg": (1,), "n3/3.jpg": (2,)}
    assert found.source == "folder names"


@pytest.mark.parametrize(("other", "folder"), [("holiday/2.jpg", "holiday"), ("2.jpg", ".")])
def test_what_lies_elsewhere_than_in_a_classs_folder_has_no_label(other: str, folder: str) -> None:
    found = labels_of_folders(["tabby/1.jpg", other], NAMES)
    assert found.by_photo == {"tabby/1.jpg": (0,)}
    assert found.unnamed == [folder]
    none = labels_of_folders([other], NAMES)
    assert (none.by_photo, none.source) == ({}, "")


def test_a_csv(tmp_path: Path) -> None:
    path = csv(tmp_path, "Photo, Label\na/x.jpg,tabby\ny.jpg,tiger cat\nnowhere.jpg,tabby\n")
    found = read_labels(path, PHOTOS, NAMES)
    assert found.by_photo == {"a/x.jpg": (0,), "a/y.jpg": (1,)}
    assert found.missing == 1


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_of_a_spreadsheet(tmp_path: Path, separator: str) -> None:
    rows = ("label,photo,", "tabby,a/x.jpg,", '"tabby;n2",a/y.jpg,x')
    text = "\ufeff" + "\r\n".join(row.replace(",", separator) for row in rows)
    found = read_labels(csv(tmp_path, text), PHOTOS, NAMES)
    assert found.by_photo == {"a/x.jpg": (0,), "a/y.jpg": (0, 1)}


def test_several_labels_of_a_photo(tmp_path: Path) -> None:
    rows = "photo,label\na/x.jpg,tabby; n2\na/y.jpg,tabby\na/y.jpg,n3\na/y.jpg,tabby\n"
    found = read_labels(csv(tmp_path, rows), PHOTOS, NAMES)
    assert found.by_photo == {"a/x.jpg": (0, 1), "a/y.jpg": (0, 2)}


def test_a_name_that_two_folders_have_is_no_photo(tmp_path: Path) -> None:
    found = read_labels(csv(tmp_path, "photo,label\nx.jpg,tabby\n"), PHOTOS, NAMES)
    assert found.by_photo == {}
    assert found.missing == 1


def test_an_absolute_path(tmp_path: Path) -> None:
    photos = PhotoNames(["a/x.jpg"], tmp_path)
    assert photos.find(str(tmp_path.resolve() / "a" / "x.jpg")) == "a/x.jpg"
    assert photos.find("/elsewhere/a/x.jpg") == "a/x.jpg"


@pytest.mark.parametrize("name", ["/elsewhere/x.jpg", "b/x.jpg", "b/a/y.jpg", "x/a"])
def test_a_photo_of_another_folder_is_another_photo(tmp_path: Path, name: str) -> None:
    assert PhotoNames(["a/x.jpg"], tmp_path).find(name) is None


def test_a_part_of_a_dataset_is_found_by_the_datasets_paths(tmp_path: Path) -> None:
    photos = PhotoNames(["a/x.jpg", "y.jpg"], tmp_path)
    assert photos.find("val/a/x.jpg") == "a/x.jpg"
    assert photos.find("val/y.jpg") == "y.jpg"
    assert photos.find("x.jpg") == "a/x.jpg"


def test_coco_categories(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    content = {
        "images": [{"id": 7, "file_name": "y.jpg"}, {"id": 8, "file_name": "b/x.jpg"}],
        "categories": [{"id": 1, "name": "tabby"}, {"id": 2, "name": "n3"}],
        "annotations": [
            {"image_id": 7, "category_id": 1},
            {"image_id": 7, "category_id": 2},
            {"image_id": 8, "category_id": 2},
        ],
    }
    path.write_text(json.dumps(content))
    assert read_labels(path, PHOTOS, NAMES).by_photo == {"a/y.jpg": (0, 2), "b/x.jpg": (2,)}


def test_a_label_that_the_model_does_not_have_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no label 'taby'; did you mean 'tabby'"):
        read_labels(csv(tmp_path, "photo,label\na/x.jpg,taby\n"), PHOTOS, NAMES)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,class\n", "no column photo, label; accepted: a first row with photo,label"),
        ("l.csv", "", "no column photo, label"),
        ("l.csv", "photo,label,label\nx.jpg,tabby,crane\n", "two columns label; accepted: one"),
        ("l.csv", "photo,label\n\na/x.jpg,tabby, cat\n", "line 3: more cells than the first row"),
        ("l.csv", "photo,label\na/x.jpg,crane\n", "'crane' is the label of the classes 2, 3"),
        ("l.json", "[]", "accepted: COCO JSON"),
        ("l.json", "{", "accepted: COCO JSON"),
        ("l.json", '{"images": [], "annotations": []}', "'categories' is missing"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_labels(path, PHOTOS, NAMES)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="No such file"):
        read_labels(tmp_path / "labels.csv", PHOTOS, NAMES)
