"""The photos of a report's folder, with what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from camserve_cli.errors import CommandError
from camserve_cli.explain_files import SUFFIXES, FoundPhotos, find_photos
from camserve_cli.report.photos.boxes import ObjectPlace, ObjectPlaces, read_boxes
from camserve_cli.report.photos.label_names import LabelNames
from camserve_cli.report.photos.labels import PhotoNames, TrueLabels, labels_of_folders, read_labels

#: How many names are told of many.
_NAMED = 3


class DatasetError(CommandError):
    """There are no photos to report on."""

    exit_status = 2


@dataclass(frozen=True)
class Photos:
    """The photos of a report, and what is known of them beforehand.

    Attributes:
        folder: that they lie in.
        paths: relative to it, sorted.
        true: of a photo that is labelled, the indices of its classes.
        places: of a photo with boxes, its objects.
    """

    folder: Path
    paths: Sequence[str]
    true: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    places: Mapping[str, list[ObjectPlace]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Photos, and what is to be said about them once.

    Attributes:
        photos: of the folder.
        labels: where the truth comes from.
        notes: lines for the person who runs the command.
    """

    photos: Photos
    labels: TrueLabels
    notes: Sequence[str]


def list_photos(folder: Path, out: Path, *files: Path | None) -> FoundPhotos:
    """The photos of a folder, before a model is loaded for them.

    Args:
        folder: searched to the bottom, without hidden files.
        out: of the report; what lies there is no photo.
        files: further ones that were named, if any.

    Raises:
        DatasetError: there is no photo, or a file is not there.
    """
    for file in files:
        if file is not None and not file.exists():
            raise DatasetError(f"{file}: No such file or directory")
    if folder.resolve().is_relative_to(out.resolve()):
        raise DatasetError(
            f"--out {out} holds the photos; accepted: a folder of its own, which may lie in theirs"
        )
    search = find_photos([str(folder)], out)
    if not search.photos:
        passed_over = search.describe_passed_over()
        raise DatasetError(
            f"no photo in {folder}; looked for {', '.join(sorted(SUFFIXES))} files"
            + (f"; {passed_over}" if passed_over else "")
        )
    return search


def describe_photos(
    folder: Path,
    search: FoundPhotos,
    names: LabelNames,
    labels: Path | None,
    boxes: Path | None,
) -> Dataset:
    """What is known of the photos: their true classes and their objects.

    Args:
        folder: that they lie in.
        search: the photos, at least one.
        names: of the model's classes.
        labels, boxes: files that were named, if any.

    Raises:
        AnnotationError: labels or boxes cannot be read.
    """
    passed_over = search.describe_passed_over()
    paths = sorted(str(photo.path.relative_to(folder)) for photo in search.photos)
    notes = [passed_over] if passed_over else []
    listed = PhotoNames(paths, folder)
    true = (
        read_labels(labels, listed, names)
        if labels is not None
        else labels_of_folders(paths, names)
    )
    if labels is not None:
        notes += _counts(labels, true.missing, len(true.by_photo), "labels", len(paths))
    elif not true.source:
        notes.append(
            "no labels: the photos' folders are not named as the model's classes, and there is no "
            "--labels; the report says nothing about accuracy"
        )
    elif true.unnamed:
        notes.append(
            f"labels of {len(true.by_photo)} of {len(paths)} photos, by their folders; not named "
            f"as one class: {', '.join(map(repr, true.unnamed[:_NAMED]))}"
            + (", .." if len(true.unnamed) > _NAMED else "")
        )
    if boxes is None:
        return Dataset(Photos(folder, paths, true.by_photo), true, notes)
    places = read_boxes(boxes, listed)
    notes += _counts(boxes, places.missing, len(places.by_photo), "boxes", len(paths))
    by_photo, foreign = _with_model_labels(places, names)
    if foreign:
        notes.append(
            f"{boxes}: no class of the model is named {', '.join(map(repr, foreign[:_NAMED]))}"
            + (", .." if len(foreign) > _NAMED else "")
        )
    return Dataset(Photos(folder, paths, true.by_photo, by_photo), true, notes)


def _with_model_labels(
    places: ObjectPlaces, names: LabelNames
) -> tuple[dict[str, list[ObjectPlace]], list[str]]:
    """The objects with the model's own labels, and the labels that it does not have."""
    foreign: dict[str, None] = {}

    def named(place: ObjectPlace) -> ObjectPlace:
        index = names.find(place.label) if place.label else None
        if index is None:
            foreign.update(dict.fromkeys([place.label] if place.label else []))
            return place
        return replace(place, label=names.classes[index])

    found = {photo: [named(place) for place in of] for photo, of in places.by_photo.items()}
    return found, [*foreign]


def digest(path: Path | None) -> str:
    """The SHA-256 of a file, or of a folder's XML files; empty where none is named."""
    if path is None:
        return ""
    total = hashlib.sha256()
    files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


def _counts(path: Path, missing: int, found: int, what: str, photos: int) -> list[str]:
    notes = [f"{path}: {what} of {found} of {photos} photos"]
    if missing:
        notes.append(f"{path}: {missing} photos that it lists are not in the folder")
    return notes
