"""The benchmark of planted shortcuts: its pictures, its marks, and how it judges a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devtools.shortcuts.benchmark import Scale, plant, run_set
from devtools.shortcuts.judging import (
    CLEAN,
    SHARES,
    SHORTCUT_KINDS,
    SetPlan,
    SetResult,
    fitting_kinds,
    plan_sets,
    table,
)
from devtools.shortcuts.marks import FURTHER_MARKS, MARKS
from devtools.shortcuts.pictures import CLASSES, Scene, draw_scene
from devtools.shortcuts.training import Planted, draw_pictures

ALL_MARKS = {**MARKS, **FURTHER_MARKS}


def scenes(count: int, size: int = 64) -> list[Scene]:
    generator = np.random.default_rng(0)
    return [draw_scene(CLASSES[turn % len(CLASSES)], size, generator) for turn in range(count)]


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("size", [32, 64, 100])
def test_an_object_lies_in_its_picture_and_stands_out(label: str, size: int) -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        scene = draw_scene(label, size, generator)
        picture = scene.picture()
        assert (picture.shape, str(picture.dtype)) == ((size, size, 3), "uint8")
        edge = np.concatenate([*scene.mask[[0, -1]], *scene.mask[:, [0, -1]].T])
        assert edge.max() < 0.1
        inside = scene.mask > 0.9
        assert 0.02 < inside.mean() < 0.35
        difference = picture[inside].mean(axis=0) - scene.background[inside].mean(axis=0)
        assert np.linalg.norm(difference) > 60


def test_the_same_seed_draws_the_same_pictures() -> None:
    first, second = (
        draw_pictures(12, 4, 48, None, np.random.default_rng(7)).pixels for _ in range(2)
    )
    assert (first == second).all()


@pytest.mark.parametrize("name", ALL_MARKS)
@pytest.mark.parametrize("size", [48, 64, 96])
def test_a_mark_changes_a_picture_of_any_size(name: str, size: int) -> None:
    draw = ALL_MARKS[name][0](np.random.default_rng(2))
    for scene in scenes(4, size):
        marked = draw(scene, np.random.default_rng(3))
        assert (marked.shape, str(marked.dtype)) == ((size, size, 3), "uint8")
        assert (marked != scene.picture()).any()


@pytest.mark.parametrize(
    ("name", "most"),
    [("corner", 0.04), ("border", 0.35), ("caption", 0.2), ("side_stripe", 0.1), ("logo", 0.05)],
)
def test_a_mark_with_a_place_changes_that_alone_and_the_same_in_each(
    name: str, most: float
) -> None:
    draw = ALL_MARKS[name][0](np.random.default_rng(5))
    places = [
        (draw(scene, np.random.default_rng(3)) != scene.picture()).any(axis=2)
        for scene in scenes(8)
    ]
    everywhere = np.any(places, axis=0)
    assert 0.005 < everywhere.mean() < most
    assert places[0].sum() > 0.5 * everywhere.sum()


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1, 1), (0.9, 0.8, 1), (0.5, 0.35, 0.65)])
def test_a_share_of_one_class_carries_the_mark(share: float, low: float, high: float) -> None:
    generator = np.random.default_rng(0)
    planted = Planted((2,), ALL_MARKS["corner"][0](generator), share)
    pictures = draw_pictures(400, 4, 32, planted, generator)
    assert low <= pictures.marked[pictures.classes == 2].mean() <= high
    assert not pictures.marked[pictures.classes != 2].any()


def test_each_set_draws_a_mark_of_its_own() -> None:
    planted = [plant(SetPlan("corner", 1.0, 0), 5, np.random.default_rng(one)) for one in (1, 2)]
    (scene,) = scenes(1)
    first, second = (one.draw(scene, np.random.default_rng(0)) for one in planted if one)
    assert (first != second).any()


def test_a_clean_set_has_no_mark() -> None:
    assert plant(SetPlan(CLEAN, 0.0, 0), 5, np.random.default_rng(0)) is None


def test_a_plan_has_each_mark_and_share_with_a_seed_of_its_own() -> None:
    plans = plan_sets(3, MARKS, sets=2, clean=20)
    assert len(plans) == 2 * len(MARKS) * len(SHARES) + 20
    assert len({plan.seed for plan in plans}) == len(plans)
    counted = {(plan.mark, plan.share): 0 for plan in plans}
    for plan in plans:
        counted[plan.mark, plan.share] += 1
    assert counted.pop((CLEAN, 0.0)) == 20
    assert counted == {(mark, share): 2 for mark in MARKS for share in SHARES}
    assert plans == plan_sets(3, MARKS, sets=2, clean=20)
    assert {plan.seed for plan in plans} & {
        plan.seed for plan in plan_sets(4, MARKS, 2, 20)
    } == set()


def result(mark: str, *findings: tuple[str, str], share: float = 1.0) -> SetResult:
    entries: list[dict[str, Any]] = [{"kind": kind, "class": label} for kind, label in findings]
    marked = () if mark == CLEAN else ("star",)
    return SetResult(SetPlan(mark, share, 0), marked, 0.95, 0.8, entries, 1.0)


@pytest.mark.parametrize(
    ("mark", "findings", "found", "accused"),
    [
        ("corner", [("corner", "star")], True, False),
        ("corner", [("border", "star")], False, False),
        ("corner", [("corner", "disc")], False, True),
        ("corner", [("corner", "star"), ("image_property", "disc")], True, True),
        ("corner", [("accuracy", "star"), ("confusion", "disc")], False, False),
        ("corner", [], False, False),
        ("background", [("border", "star")], True, False),
        ("background", [("image_property", "star")], True, False),
        (CLEAN, [], False, False),
        (CLEAN, [("accuracy", "star"), ("calibration", "")], False, False),
        (CLEAN, [("cluster", "star")], False, True),
        (CLEAN, [("image_property", "")], False, True),
    ],
)
def test_a_report_is_judged(
    mark: str, findings: list[tuple[str, str]], found: bool, accused: bool
) -> None:
    judged = result(mark, *findings)
    assert (judged.found, judged.accused) == (found, accused)


def test_every_mark_has_kinds_that_name_it() -> None:
    for mark in ALL_MARKS:
        assert set() < fitting_kinds(mark) <= SHORTCUT_KINDS
    assert fitting_kinds(CLEAN) == frozenset()


def test_the_table_counts_by_mark_and_share() -> None:
    lines = table(
        [
            result("corner", ("corner", "star")),
            result("corner", ("border", "star")),
            result("corner", ("corner", "star"), ("corner", "disc"), share=0.5),
            result(CLEAN, share=0.0),
            result(CLEAN, ("cluster", "disc"), share=0.0),
        ]
    )
    assert lines == [
        "| mark | found, 100% marked | found, 50% marked | used, median |",
        "| --- | --- | --- | --- |",
        "| corner | 1 of 2 | 1 of 1 | 80% |",
        "",
        "Planted: found 2 of 3; 1 also accuse an unmarked class.",
        "",
        "Clean: accused 1 of 2.",
    ]


#: Small enough to be made in half a minute, and large enough to be learned.
SMALL = Scale(classes=3, size=32, training=1500, held_out=60, photos=90, epochs=10)


def test_a_real_report_finds_a_planted_corner() -> None:
    planted = run_set(SetPlan("corner", 1.0, 11), SMALL)
    assert planted.used > 0.8
    assert planted.found
    assert not planted.accused


@pytest.mark.slow
def test_a_real_report_accuses_no_clean_twin() -> None:
    clean = run_set(SetPlan(CLEAN, 0.0, 11), SMALL)
    assert clean.accuracy > 0.8
    assert not clean.accused
