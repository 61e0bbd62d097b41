"""What is said of a model: only what reaches its limit, and is not chance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from camserve_cli.report.accuracy import measure_accuracy
from camserve_cli.report.calibration import measure_calibration
from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.confusion import confused_pairs
from camserve_cli.report.findings import Finding
from camserve_cli.report.property_effects import camera_effects, property_effects
from camserve_cli.report.verdict import exit_status, judge
from tests.support.report_columns import report_columns


def findings(columns: ReportColumns) -> dict[str, Finding]:
    """The findings by kind; of several of a kind the first."""
    found = judge(
        columns,
        measure_accuracy(columns),
        measure_calibration(columns),
        confused_pairs(columns),
        property_effects(columns),
        camera_effects(columns),
    )
    return {one.kind: one for one in reversed(found)}


def test_a_model_that_is_right_for_the_right_reason() -> None:
    assert findings(report_columns([0, 1, 2] * 20, [0, 1, 2] * 20, probability=0.99)) == {}


def test_photos_without_evidence() -> None:
    evidence = np.arange(40) >= 8
    finding = findings(report_columns([1] * 40, evidence=evidence))["no_evidence"]
    assert (finding.label, finding.share, finding.count) == ("dog", 0.2, 40)
    assert finding.photos == tuple(f"{index}.png" for index in range(8))
    assert finding.text.startswith("8 of 40 photos that are predicted 'dog' have a map without")


@pytest.mark.parametrize(
    ("missing", "count"),
    # One of nine reaches the limit of a tenth, but may be chance; 3 of 100 do not reach it.
    [(1, 9), (3, 100), (0, 40)],
)
def test_few_photos_without_evidence_accuse_nobody(missing: int, count: int) -> None:
    assert "no_evidence" not in findings(
        report_columns([1] * count, evidence=np.arange(count) >= missing)
    )


def boxed(outside: int, count: int, right: bool = True) -> ReportColumns:
    mass = np.where(np.arange(count) < outside, 0.05, 0.8)
    boxes = {"mass": mass, "pointing": mass, "energy": mass, "area": np.full(count, 0.3)}
    return report_columns([0] * count, [0 if right else 1] * count, boxes=boxes, probability=0.99)


def test_heat_outside_of_the_boxes() -> None:
    finding = findings(boxed(12, 30))["outside_box"]
    assert (finding.label, finding.share, finding.limit) == ("cat", 0.4, 0.3)
    assert finding.text.startswith("In 12 of 30 photos that are rightly predicted 'cat'")


def test_heat_outside_of_the_boxes_of_wrong_predictions_is_no_finding() -> None:
    assert "outside_box" not in findings(boxed(12, 30, right=False))
    assert "outside_box" not in findings(boxed(2, 30))


def test_a_class_that_is_often_wrong_and_confused() -> None:
    # 15 of 30 cats are predicted as dogs.
    found = findings(
        report_columns([1] * 15 + [0] * 15 + [1] * 30, [0] * 30 + [1] * 30, probability=0.75)
    )
    assert (found["accuracy"].label, found["accuracy"].share) == ("cat", 0.5)
    assert (found["confusion"].label, found["confusion"].share) == ("cat", 0.5)
    assert found["confusion"].text == "15 of 30 photos that show 'cat' are predicted 'dog'."
    assert len(found["accuracy"].photos) == 12
    assert "calibration" not in found


def test_one_wrong_photo_of_two_accuses_nobody() -> None:
    assert findings(report_columns([0, 1], [0, 0])) == {}


def test_a_model_that_is_too_sure() -> None:
    # Half of 100 are right at 0.95.
    found = findings(report_columns([0] * 100, [0, 1] * 50, probability=0.95))
    assert found["calibration"].share == pytest.approx(0.45)
    assert found["calibration"].text.startswith("The model is surer than it is right")


def test_errors_that_go_with_a_property() -> None:
    columns = report_columns(
        [1] * 20 + [0] * 40, [0] * 60, properties={"brightness": np.linspace(0, 1, 60)}
    )
    finding = findings(columns)["image_property"]
    assert finding.share == 1
    assert "the darker the photos are: it is wrong on 100% of the fifth of each" in finding.text
    # The darkest first.
    assert finding.photos[0] == "0.png"


def test_errors_that_go_with_a_camera() -> None:
    columns = report_columns(
        [1] * 15 + [0] * 45,
        [0] * 60,
        cameras=np.array([0] * 15 + [1] * 45),
        camera_names=["Old 1", "New 2"],
    )
    assert findings(columns)["image_property"].text == (
        "The model is wrong on 15 of 15 photos of the camera 'Old 1', and on 0 of 45 others."
    )


def test_chance_accuses_at_most_one_model_in_a_hundred() -> None:
    random = np.random.default_rng(3)
    accused = 0
    for _ in range(100):
        true = random.integers(0, 3, 150)
        probability = random.uniform(0.9, 1, 150)
        right = random.random(150) < probability
        predicted = np.where(right, true, (true + 1) % 3)
        properties = {name: random.normal(size=150) for name in ("brightness", "blur", "red")}
        columns = report_columns(
            predicted.tolist(),
            true.tolist(),
            probability=probability,
            evidence=random.random(150) > 0.01,
            properties=properties,
            cameras=random.integers(0, 3, 150),
            camera_names=["a", "b", "c"],
        )
        accused += bool(findings(columns))
    assert accused <= 1


@pytest.mark.parametrize(
    ("kinds", "strict", "status"),
    [
        ([], True, 0),
        (["accuracy", "calibration", "confusion"], False, 0),
        (["accuracy"], True, 3),
        (["accuracy", "corner"], False, 3),
        (["no_evidence"], False, 3),
    ],
)
def test_the_exit_status(kinds: list[Any], strict: bool, status: int) -> None:
    made = [Finding(kind, "", 0.5, 10, 0.1, (), "") for kind in kinds]
    assert exit_status(made, strict) == status


def test_a_finding_as_json() -> None:
    finding = Finding("corner", "cat", 0.5, 10, 0.25, ("a.png",), "words")
    assert json.loads(json.dumps(finding.to_json())) == {
        "kind": "corner", "class": "cat", "share": 0.5, "count": 10, "limit": 0.25,
        "photos": ["a.png"], "text": "words",
    }  # fmt: skip
