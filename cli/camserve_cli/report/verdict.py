"""The findings: what is worth saying of a model, with evidence that is not chance.

A share is a finding where it reaches a fixed limit, and an exact test says that so many photos are
not chance: where the true share were at the limit of what is normal, they would be less likely than
1 in 100, over all classes that are tested (Bonferroni). The limits are fixed; docs/report.md lists
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.figures.accuracy import Accuracy
from camserve_cli.report.figures.box_agreement import OUTSIDE_MASS, is_outside
from camserve_cli.report.figures.calibration import Calibration
from camserve_cli.report.figures.chance import p_above
from camserve_cli.report.figures.confusion import ConfusedPair
from camserve_cli.report.figures.property_effects import CameraEffect, PropertyEffect
from camserve_cli.report.findings import Finding

#: All tests of one kind together accuse by chance at most this often.
LEVEL: Final = 0.01
#: What is normal, and from what share on it is a finding.
NO_EVIDENCE_NORMAL, NO_EVIDENCE_LIMIT = 0.02, 0.1
OUTSIDE_NORMAL, OUTSIDE_LIMIT = 0.1, 0.3
ERROR_LIMIT: Final = 0.2
CONFUSION_LIMIT: Final = 0.1
CALIBRATION_LIMIT: Final = 0.1
#: Of the difference of two shares of wrong predictions.
ERROR_DIFFERENCE_LIMIT: Final = 0.4
#: Classes of fewer photos are not judged.
LEAST_PHOTOS: Final = 8
#: How many photos a finding names.
SHOWN: Final = 12
#: These kinds alone leave the exit status at 0, unless with --strict.
MILD: Final = frozenset({"accuracy", "calibration", "confusion"})

_PROPERTY_WORDS: Final = {
    "brightness": ("darker", "brighter"),
    "contrast": ("flatter", "richer in contrast"),
    "saturation": ("paler", "more colourful"),
    "blur": ("more blurred", "sharper"),
    "width": ("narrower", "wider"),
    "height": ("lower", "taller"),
    "bytes": ("smaller as files", "larger as files"),
}


def judge(
    columns: ReportColumns,
    accuracy: Accuracy,
    calibration: Calibration,
    pairs: Sequence[ConfusedPair],
    effects: Sequence[PropertyEffect],
    cameras: Sequence[CameraEffect],
) -> list[Finding]:
    """The findings of these figures, by kind."""
    return [
        *_without_evidence(columns),
        *_outside_boxes(columns),
        *_property_findings(columns, effects),
        *_camera_findings(columns, cameras),
        *_accuracy_findings(columns, accuracy),
        *_calibration_findings(columns, calibration),
        *_confusion_findings(columns, pairs),
    ]


def exit_status(findings: Sequence[Finding], strict: bool) -> int:
    """0 where nothing is found, else 3; mild findings count with ``strict`` alone."""
    counted = [one for one in findings if strict or one.kind not in MILD]
    return 3 if counted else 0


def _without_evidence(columns: ReportColumns) -> list[Finding]:
    photos = columns.photos
    missing = ~photos.evidence
    found = []
    for label, chosen, count, hits in _suspicious(
        columns, missing, np.ones(len(photos), np.bool_), NO_EVIDENCE_NORMAL, NO_EVIDENCE_LIMIT
    ):
        text = (
            f"{hits} of {count} photos that are predicted {label!r} have a map without evidence: "
            "nothing at the layer speaks for the class, so the map does not say why it is "
            f"predicted. Normal are up to {NO_EVIDENCE_NORMAL:.0%}."
        )
        found.append(
            Finding(
                "no_evidence", label, hits / count, count, NO_EVIDENCE_LIMIT,
                _paths(columns, chosen), text,
            )
        )  # fmt: skip
    return found


def _outside_boxes(columns: ReportColumns) -> list[Finding]:
    if not columns.boxes:
        return []
    judged = np.isfinite(columns.boxes["mass"]) & (columns.right | ~columns.known)
    found = []
    for label, chosen, count, hits in _suspicious(
        columns, is_outside(columns), judged, OUTSIDE_NORMAL, OUTSIDE_LIMIT
    ):
        text = (
            f"In {hits} of {count} photos that are rightly predicted {label!r}, at most "
            f"{OUTSIDE_MASS:.0%} of the heat lies on the object: the prediction is right, but "
            "what it depends on is elsewhere."
        )
        found.append(
            Finding(
                "outside_box", label, hits / count, count, OUTSIDE_LIMIT,
                _paths(columns, chosen, columns.boxes["mass"]), text,
            )
        )  # fmt: skip
    return found


def _suspicious(
    columns: ReportColumns,
    hit: NDArray[np.bool_],
    judged: NDArray[np.bool_],
    normal: float,
    limit: float,
) -> list[tuple[str, NDArray[np.bool_], int, int]]:
    """The predicted classes whose share reaches the limit, and is above normal beyond chance.

    Returns:
        Of each the label, (N,) the photos that show it, how many were judged, how many show it.
    """
    photos = columns.photos
    classes = np.unique(photos.predicted[judged])
    found = []
    for index in classes:
        chosen = judged & (photos.predicted == index)
        count, hits = int(chosen.sum()), int((hit & chosen).sum())
        surely = p_above(hits, count, normal) * len(classes) < LEVEL
        if count >= LEAST_PHOTOS and hits >= limit * count and surely:
            found.append((photos.classes[index], hit & chosen, count, hits))
    return sorted(found, key=lambda one: -one[3] / one[2])


def _property_findings(columns: ReportColumns, effects: Sequence[PropertyEffect]) -> list[Finding]:
    """Of the surest property alone: others often go with it, as contrast does with brightness."""
    for effect in effects:
        difference = abs(effect.high - effect.low)
        if effect.outcome != "error" or effect.p >= LEVEL or difference < ERROR_DIFFERENCE_LIMIT:
            continue
        rises = effect.high > effect.low
        words = _PROPERTY_WORDS.get(effect.name, ("lower in {}", "higher in {}"))
        more = words[rises].format(effect.name.replace("_", " "))
        text = (
            f"The model errs more often the {more} the photos are: it is wrong on "
            f"{effect.low:.0%} of the fifth of each class with the lowest {effect.name}, and on "
            f"{effect.high:.0%} of that with the highest (rank correlation {effect.rho:+.2f})."
        )
        values = columns.photos.properties[effect.name]
        paths = _paths(columns, columns.wrong, -values if rises else values)
        limit = ERROR_DIFFERENCE_LIMIT
        return [Finding("image_property", "", difference, effect.count, limit, paths, text)]
    return []


def _camera_findings(columns: ReportColumns, cameras: Sequence[CameraEffect]) -> list[Finding]:
    found = []
    for one in cameras:
        difference = one.wrong / one.photos - one.other_wrong / one.other_photos
        if one.p >= LEVEL or difference < ERROR_DIFFERENCE_LIMIT:
            continue
        text = (
            f"The model is wrong on {one.wrong} of {one.photos} photos of the camera "
            f"{one.camera!r}, and on {one.other_wrong} of {one.other_photos} others."
        )
        chosen = columns.wrong & (columns.cameras == columns.camera_names.index(one.camera))
        found.append(
            Finding(
                "image_property", "", difference, one.photos, ERROR_DIFFERENCE_LIMIT,
                _paths(columns, chosen), text,
            )
        )  # fmt: skip
    return found


def _accuracy_findings(columns: ReportColumns, accuracy: Accuracy) -> list[Finding]:
    photos = columns.photos
    found = []
    tested = [one for one in accuracy.classes if one.photos >= LEAST_PHOTOS]
    for one in tested:
        wrong = one.photos - one.right
        surely = p_above(wrong, one.photos, ERROR_LIMIT) * len(tested) < LEVEL
        if not surely:
            continue
        text = (
            f"{wrong} of {one.photos} photos that show {one.label!r} are not predicted so; the "
            f"model finds {one.accuracy:.0%} of them (95% interval {one.interval.low:.0%} to "
            f"{one.interval.high:.0%})."
        )
        of_class = columns.wrong & (photos.true == one.class_id)
        paths = _paths(columns, of_class, -photos.probability)
        found.append(
            Finding("accuracy", one.label, wrong / one.photos, one.photos, ERROR_LIMIT, paths, text)
        )
    return found


def _calibration_findings(columns: ReportColumns, calibration: Calibration) -> list[Finding]:
    beyond = calibration.error >= max(CALIBRATION_LIMIT, calibration.by_chance)
    if not beyond or calibration.count < 30:
        return []
    sure = "surer" if calibration.overconfident > 0 else "less sure"
    text = (
        f"The model is {sure} than it is right: its probabilities and its accuracy are "
        f"{calibration.error:.2f} apart (expected calibration error over {calibration.count} "
        f"predictions; chance alone gives up to {calibration.by_chance:.2f})."
    )
    paths = _paths(columns, columns.wrong, -columns.photos.probability)
    return [
        Finding(
            "calibration", "", calibration.error, calibration.count, CALIBRATION_LIMIT, paths, text
        )
    ]


def _confusion_findings(columns: ReportColumns, pairs: Sequence[ConfusedPair]) -> list[Finding]:
    photos = columns.photos
    found = []
    tests = max(1, len(np.unique(photos.true[columns.known])) * len(np.unique(photos.predicted)))
    for pair in pairs:
        surely = p_above(pair.count, pair.of, CONFUSION_LIMIT) * tests < LEVEL
        if pair.of < LEAST_PHOTOS or not surely:
            continue
        true, predicted = photos.classes[pair.true], photos.classes[pair.predicted]
        text = f"{pair.count} of {pair.of} photos that show {true!r} are predicted {predicted!r}."
        paths = tuple(photos.paths[row] for row in pair.photos[:SHOWN])
        found.append(Finding("confusion", true, pair.share, pair.of, CONFUSION_LIMIT, paths, text))
    return found


def _paths(
    columns: ReportColumns, chosen: NDArray[np.bool_], by: NDArray[np.float64] | None = None
) -> tuple[str, ...]:
    """The photos of some rows, those with the lowest value first."""
    rows = np.flatnonzero(chosen)
    if by is not None:
        rows = rows[np.argsort(by[rows], kind="stable")]
    return tuple(columns.photos.paths[row] for row in rows[:SHOWN])
