"""The figures of a report, each against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camserve_cli.report.accuracy import measure_accuracy
from camserve_cli.report.box_agreement import is_outside, measure_box_agreement
from camserve_cli.report.calibration import calibrate, measure_calibration
from camserve_cli.report.chance import p_above, p_sign, rank_correlation, share_interval
from camserve_cli.report.comparison import compare, map_distance
from camserve_cli.report.confusion import confused_pairs
from camserve_cli.report.faithfulness import summarise_faithfulness
from camserve_cli.report.location import centre_share, locate_heat
from camserve_cli.report.property_effects import camera_effects, property_effects
from tests.support.report_columns import report_columns

NAN = float("nan")


def test_chance() -> None:
    # Of 10 throws of a coin, 9 or 10 heads: 11 of 1024.
    assert p_above(9, 10, 0.5) == pytest.approx(11 / 1024)
    assert p_above(0, 0, 0.5) == 1
    assert p_sign(np.array([1.0, 2, 3, -1, 0, 0])) == pytest.approx(5 / 16)
    low, high = share_interval(0, 10)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert share_interval(0, 0) == (0, 1)


def test_a_correlation_of_ranks() -> None:
    rising = np.array([1.0, 2, 3, 4, 5, NAN])
    found = rank_correlation(rising, rising**3)
    assert found.rho == pytest.approx(1)
    assert found.photos == 5
    assert rank_correlation(rising, np.ones(6)) == (0, 1, 5)
    assert rank_correlation(rising[:3], rising[:3]) == (0, 1, 3)


# Accuracy


def test_accuracy_by_class() -> None:
    # Cats: 2 of 3 found. Dogs: 1 of 1, predicted twice. One photo is not labelled.
    columns = report_columns([0, 0, 1, 1, 0], [0, 0, 0, 1, -1], probability=[0.9, 0.7, 0.6, 1, 0.5])
    accuracy = measure_accuracy(columns)
    assert (accuracy.labelled, accuracy.right) == (4, 3)
    assert accuracy.share == 0.75
    cat, dog = accuracy.classes
    assert (cat.label, cat.photos, cat.predicted, cat.right) == ("cat", 3, 3, 2)
    assert cat.accuracy == pytest.approx(2 / 3)
    assert cat.precision == 1
    assert cat.confidence == pytest.approx(0.7)
    assert (dog.label, dog.accuracy, dog.precision) == ("dog", 1, 0.5)
    assert math.isnan(cat.average_precision)


def test_accuracy_without_labels() -> None:
    accuracy = measure_accuracy(report_columns([0, 1]))
    assert accuracy.labelled == 0
    assert math.isnan(accuracy.share)


def test_accuracy_by_label_where_a_photo_has_several() -> None:
    probabilities = np.array([[0.9, 0.8, 0.1], [0.7, 0.2, 0.6], [0.2, 0.4, 0.3]], np.float16)
    sets = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]], bool)
    columns = report_columns(
        [0, 0, 1],
        [0, 0, 1],
        task="multilabel",
        probabilities=probabilities,
        true_sets=sets,
        labelled=np.ones(3, bool),
    )
    by_label = {one.label: one for one in measure_accuracy(columns).classes}
    cat, dog, owl = (by_label[label] for label in ("cat", "dog", "owl"))
    assert (cat.photos, cat.predicted, cat.right) == (2, 2, 2)
    # The third photo's best label counts as predicted although it is below the threshold.
    assert (dog.photos, dog.predicted, dog.right) == (2, 2, 2)
    assert (owl.photos, owl.predicted, owl.right) == (1, 1, 0)
    assert (owl.accuracy, owl.precision) == (0, 0)
    # In the order of their scores: wrong, right, wrong. Precision at the right one is 1/2.
    assert owl.average_precision == pytest.approx(0.5)
    assert cat.average_precision == pytest.approx(1)


# Calibration


def test_the_calibration_error_by_hand() -> None:
    # 4 predictions of 0.75 with 3 right: no error. 2 of 0.95 with 1 right: 0.45.
    calibration = calibrate(np.array([0.75] * 4 + [0.95] * 2), np.array([1, 1, 1, 0, 1, 0], bool))
    assert calibration.error == pytest.approx(2 / 6 * 0.45)
    assert calibration.overconfident == pytest.approx(4.9 / 6 - 4 / 6)
    counts = [one.count for one in calibration.bins]
    assert counts == [0, 0, 0, 0, 0, 0, 0, 4, 0, 2]
    assert calibration.bins[7].accuracy == 0.75
    assert calibration.bins[9].confidence == pytest.approx(0.95)


def test_the_ends_of_the_tenths() -> None:
    calibration = calibrate(np.array([0.0, 0.1, 0.1001, 1.0]), np.zeros(4, bool))
    assert [one.count for one in calibration.bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_what_error_chance_gives() -> None:
    random = np.random.default_rng(1)
    probability = random.uniform(0.3, 1, 400)
    exact = [calibrate(probability, random.random(400) < probability) for _ in range(20)]
    below = [one.error <= one.by_chance for one in exact]
    assert sum(below) >= 16
    assert calibrate(probability, np.zeros(400, bool)).error > 5 * exact[0].by_chance


def test_calibration_of_every_label_of_a_multilabel_model() -> None:
    columns = report_columns(
        [0],
        [0],
        task="multilabel",
        probabilities=np.array([[0.9, 0.1, 0.1]], np.float16),
        true_sets=np.array([[1, 0, 0]], bool),
        labelled=np.ones(1, bool),
    )
    assert measure_calibration(columns).count == 3
    assert measure_calibration(columns).error == pytest.approx(0.1, abs=0.001)


# Confusion


def test_the_most_confused_pairs() -> None:
    columns = report_columns(
        [1, 1, 0, 0, 2], [0, 0, 0, 1, -1], probability=[0.5, 0.9, 0.9, 0.9, 0.9]
    )
    first, second = confused_pairs(columns)
    assert (first.true, first.predicted, first.count, first.of) == (0, 1, 2, 3)
    assert first.share == pytest.approx(2 / 3)
    # That of higher probability first.
    assert first.photos == (1, 0)
    assert (second.true, second.predicted, second.count, second.share) == (1, 0, 1, 1)
    assert len(confused_pairs(columns, most=1)) == 1


# Where


def test_where_the_heat_is() -> None:
    maps = np.zeros((3, 7, 7))
    maps[0, 0, 0] = 1
    maps[1, 3, 3] = 1
    columns = report_columns(
        [0, 0, 1],
        maps=maps,
        evidence=[True, True, False],
        border=[1, 0, NAN],
        corners=[1, 0, NAN],
    )
    location = locate_heat(columns)
    cat, dog = location.classes
    assert (cat.label, cat.photos, cat.without_evidence) == ("cat", 2, 0)
    assert cat.mean_map[0, 0] == cat.mean_map[3, 3] == 0.5
    assert (cat.border, cat.corners, cat.centre) == (0.5, 0.5, 0.5)
    assert (dog.photos, dog.without_evidence) == (1, 1)
    assert math.isnan(dog.border)
    assert dog.mean_map.max() == 0
    assert location.overall.without_evidence == 1


def test_the_heat_in_the_middle_ninth() -> None:
    # Of 4 cells a side, the middle third takes two thirds of each of the two in the middle.
    assert centre_share(np.ones((1, 4, 4)))[0] == pytest.approx(1 / 9)
    middle = np.zeros((1, 4, 4))
    middle[0, 1:3, 1:3] = 1
    assert centre_share(middle)[0] == pytest.approx(4 / 9)
    assert centre_share(np.zeros((1, 4, 4)))[0] == 0


# Boxes


def test_right_for_the_wrong_reason() -> None:
    boxes = {
        # Inside; outside; less than a quarter, but more than even heat would have; no box.
        "mass": np.array([0.8, 0.1, 0.2, NAN, 0.1]),
        "pointing": np.array([1.0, 0, 0, NAN, 0]),
        "energy": np.array([0.7, 0.2, 0.2, NAN, 0.1]),
        "area": np.array([0.4, 0.3, 0.1, NAN, 0.3]),
    }
    columns = report_columns([0, 0, 0, 0, 0], [0, 0, 0, 0, 1], boxes=boxes)
    assert is_outside(columns).tolist() == [False, True, False, False, True]
    overall, cat = measure_box_agreement(columns)
    assert (overall.label, overall.photos, overall.outside) == ("", 4, 2)
    assert (overall.right, overall.right_outside) == (3, 1)
    assert overall.mass == pytest.approx(0.3)
    assert overall.pointing == 0.25
    assert cat.label == "cat"


def test_without_boxes_there_is_no_agreement() -> None:
    columns = report_columns([0, 1])
    assert measure_box_agreement(columns) == []
    assert not is_outside(columns).any()


# Faithfulness


def test_faithfulness_beside_random_and_centre() -> None:
    figures = np.array([[0.1, 0.5, 0.1]] * 10 + [[NAN, 0.5, 0.1]])
    columns = report_columns([0] * 11, faithfulness={"drop": figures, "increase": figures})
    drop, increase = summarise_faithfulness(columns)
    assert (drop.name, drop.photos, drop.more_is_better) == ("drop", 10, False)
    assert drop.value == pytest.approx(0.1)
    assert drop.random == pytest.approx(0.5)
    assert drop.better_than_random == 10
    assert drop.p_random == pytest.approx(0.5**10)
    assert drop.beats_random
    # As good as the centre: nothing says that it is better.
    assert (drop.better_than_centre, drop.p_centre) == (0, 1)
    assert not drop.beats_centre
    # More of an increase is better: these are worse than random maps.
    assert (increase.better_than_random, increase.p_random) == (0, 1)


# Properties


def test_a_property_that_goes_with_errors() -> None:
    brightness = np.linspace(0, 1, 60)
    # The darkest third is predicted wrong.
    predicted = [1] * 20 + [0] * 40
    columns = report_columns(
        predicted,
        [0] * 60,
        probability=np.linspace(1, 0.5, 60),
        properties={"brightness": brightness, "width": 320},
    )
    effects = {(one.name, one.outcome): one for one in property_effects(columns)}
    error = effects["brightness", "error"]
    assert error.rho < -0.7
    assert error.p < 1e-6
    assert (error.low, error.high) == (1, 0)
    assert effects["brightness", "confidence"].rho == pytest.approx(-1)
    # The same for all photos: no correlation.
    assert effects["width", "error"].p == 1
    assert property_effects(columns)[0].p <= property_effects(columns)[-1].p


def test_a_class_that_is_dark_and_wrong_does_not_make_darkness_a_cause() -> None:
    # Owls are dark, and always predicted wrong; among photos of one class, nothing goes with it.
    random = np.random.default_rng(0)
    brightness = np.concatenate([random.uniform(0, 0.2, 40), random.uniform(0.5, 1, 80)])
    columns = report_columns(
        [0] * 80 + [1] * 40, [2] * 40 + [0] * 40 + [1] * 40, properties={"brightness": brightness}
    )
    (error,) = [one for one in property_effects(columns) if one.outcome == "error"]
    assert error.p > 0.05
    assert error.low == pytest.approx(error.high, abs=0.05)


def test_properties_of_photos_without_labels() -> None:
    columns = report_columns([0] * 20, properties={"blur": np.arange(20.0)})
    assert {one.outcome for one in property_effects(columns)} == {"confidence", "border"}


def test_errors_by_camera() -> None:
    cameras = np.array([0] * 12 + [1] * 12 + [2])
    predicted = [1] * 12 + [0] * 13
    columns = report_columns(
        predicted, [0] * 25, cameras=cameras, camera_names=["first", "second", "rare"]
    )
    first, second = camera_effects(columns)
    assert (first.camera, first.photos, first.wrong) == ("first", 12, 12)
    assert (first.other_photos, first.other_wrong) == (13, 0)
    assert first.p < 1e-5
    assert second.camera == "second"


# Comparison


def test_the_distance_of_two_maps() -> None:
    one, other = np.zeros((4, 2, 2), np.float16), np.zeros((4, 2, 2), np.float16)
    one[0, 0, 0] = other[0, 0, 0] = 1
    one[1, 0, 0] = other[1, 1, 1] = 1
    one[2] = 1
    other[2, 0, 0] = 1
    one[3, 0, 0] = 1
    distance = map_distance(one, other)
    assert distance[:3] == pytest.approx([0, 1, 0.5])
    assert math.isnan(distance[3])


def test_maps_of_two_sizes_are_compared() -> None:
    fine = np.zeros((1, 4, 4), np.float16)
    fine[0, :2, :2] = 1
    coarse = np.zeros((1, 2, 2), np.float16)
    coarse[0, 0, 0] = 1
    assert map_distance(coarse, fine)[0] == pytest.approx(0)
    assert map_distance(fine, coarse)[0] == pytest.approx(0)


def test_regressions_and_improvements() -> None:
    maps = np.zeros((4, 2, 2))
    maps[:, 0, 0] = 1
    other = np.zeros((4, 2, 2), np.float16)
    other[:2, 0, 0] = other[2:, 1, 1] = 1
    columns = report_columns(
        [0, 1, 0, 0], [0, 0, 0, -1], maps=maps, compared=np.array([1, 0, 0, 1]), compared_maps=other
    )
    comparison = compare(columns, "second")
    assert comparison is not None
    assert (comparison.photos, comparison.labelled) == (4, 3)
    assert (comparison.right, comparison.other_right) == (2, 2)
    assert comparison.regressions == (0,)
    assert comparison.improvements == (1,)
    # Where they look furthest apart comes first.
    assert comparison.changed == (3, 0, 1)
    assert comparison.furthest[:2] == (2, 3)


def test_without_a_second_model_there_is_no_comparison() -> None:
    assert compare(report_columns([0]), "") is None
