"""What the photos of a report show, where that is known: by folders, a CSV, or COCO JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from camserve_cli.report.photos.coco import AnnotationError, read_coco
from camserve_cli.report.photos.label_names import LabelNames


@dataclass(frozen=True)
class TrueLabels:
    """The classes that the photos show.

    Attributes:
        by_photo: of each photo that has any, the indices of its classes, each once.
        source: where they come from, for a person; empty where there are none.
        missing: how many photos a file of labels lists that are not in the folder.
        unnamed: the folders that are named as no class, where others are.
    """

    by_photo: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    source: str = ""
    missing: int = 0
    unnamed: Sequence[str] = ()


class PhotoNames:
    """The photos of a folder, by the names that files of labels and boxes give them.

    Args:
        photos: their paths, relative to the folder.
        folder: it.
    """

    def __init__(self, photos: Sequence[str], folder: Path) -> None:
        self._photos = frozenset(photos)
        self._folder = folder
        self._by_name: dict[str, str | None] = {}
        for photo in photos:
            name = PurePath(photo).name
            # A name that two folders have means neither.
            self._by_name[name] = None if name in self._by_name else photo
        self._by_stem: dict[str, str | None] = {}
        for photo in photos:
            stem = PurePath(photo).stem
            self._by_stem[stem] = None if stem in self._by_stem else photo

    def find(self, name: str) -> str | None:
        """The photo of a path that is relative to the folder, absolute, or a name alone.

        A path that lies elsewhere is that of a photo where it ends as the photo's whole path does:
        the folder may be a part of the dataset that was listed, or a copy of it.
        """
        path = PurePath(name.strip())
        if path.is_absolute():
            try:
                path = path.relative_to(self._folder.resolve())
            except ValueError:
                return self._ending(path)
        if str(path) in self._photos:
            return str(path)
        return self._by_name.get(path.name) if len(path.parts) == 1 else self._ending(path)

    def _ending(self, path: PurePath) -> str | None:
        """The photo whose path a longer one ends with."""
        endings = (str(PurePath(*path.parts[first:])) for first in range(1, len(path.parts)))
        return next((ending for ending in endings if ending in self._photos), None)

    def find_stem(self, stem: str) -> str | None:
        """The photo whose name without its suffix is this, where only one is."""
        return self._by_stem.get(stem)


def labels_of_folders(photos: Sequence[str], names: LabelNames) -> TrueLabels:
    """The class of each photo by the folder that it lies in, if these are named as classes.

    What lies in a folder that is named otherwise, or in none, has no label.
    """
    by_photo: dict[str, tuple[int, ...]] = {}
    unnamed: dict[str, None] = {}
    for photo in photos:
        parent = PurePath(photo).parent
        index = names.find(parent.name) if parent.name else None
        if index is None:
            unnamed[str(parent)] = None
        else:
            by_photo[photo] = (index,)
    return TrueLabels(by_photo, "folder names", unnamed=[*unnamed]) if by_photo else TrueLabels()


def read_labels(path: Path, photos: PhotoNames, names: LabelNames) -> TrueLabels:
    """The labels of a file: CSV with the columns photo and label, or COCO JSON.

    Several labels of a photo are separated by ";", or stand in rows of their own.

    Raises:
        AnnotationError: it cannot be read, or has a label that the model does not.
    """
    pairs: Iterable[tuple[str, str]]
    if path.suffix.lower() == ".json":
        pairs = [(one.photo, one.category) for one in read_coco(path)]
    else:
        pairs = [
            (row["photo"], label)
            for row in read_rows(path, ("photo", "label"))
            for label in _split(row["label"], names)
        ]
    found: dict[str, dict[int, None]] = {}
    missing = set()
    for name, label in pairs:
        index = names.find(label)
        if index is None:
            raise AnnotationError(f"{path}: {names.problem(label)}")
        photo = photos.find(name)
        if photo is None:
            missing.add(name)
        else:
            found.setdefault(photo, {})[index] = None
    return TrueLabels({photo: tuple(of) for photo, of in found.items()}, path.name, len(missing))


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV that has these columns, in any order and case, among others.

    Raises:
        AnnotationError: it cannot be read, lacks a column or has one twice, or a row has more cells
            than the first.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = _separator(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator, skipinitialspace=True)
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            rows = []
            for row in reader:
                if any(row.pop(None, ())):  # DictReader's key of the rest
                    raise AnnotationError(
                        f"{path}, line {reader.line_num}: more cells than the first row has; "
                        f"accepted: a label with {separator!r} in it in double quotes"
                    )
                rows.append({key: value or "" for key, value in row.items()})
    except OSError as failure:
        raise AnnotationError(f"{path}: {failure.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as failure:
        raise AnnotationError(f"{path}: {failure}; accepted: CSV in UTF-8") from None
    if absent := [name for name in columns if name not in header]:
        raise AnnotationError(
            f"{path}: no column {', '.join(absent)}; accepted: a first row with {','.join(columns)}"
        )
    if twice := [name for name in columns if header.count(name) > 1]:
        raise AnnotationError(
            f"{path}: two columns {twice[0]}; accepted: one, and a row for each label of a photo"
        )
    return rows


def _separator(header: str) -> str:
    """What parts the cells of a first row: spreadsheets write any of these."""
    return max(",;\t", key=header.count)


def _split(text: str, names: LabelNames) -> list[str]:
    """The labels of a cell; a label may itself hold a ";"."""
    if names.find(text) is not None:
        return [text]
    return [label.strip() for label in text.split(";") if label.strip()]
