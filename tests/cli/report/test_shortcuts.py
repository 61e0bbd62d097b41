"""Shortcuts of models that are made to have one: each looks at an object, and at something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import ExplainedPhotos, Floats, Pixels
from camserve_cli.report.findings import Finding
from camserve_cli.report.shortcuts.search import LIMIT, find_shortcuts

CLASSES = ("red", "green", "blue", "none")
SIDE = 48
#: What a model adds to the logits of (n, H, W, 3) photos.
Look = Callable[[NDArray[np.float64]], Floats]
Mark = Callable[[Pixels, np.random.Generator], None]


def photo(label: int, generator: np.random.Generator, side: int = SIDE) -> Pixels:
    """A square at any place: red, green or blue, or grey for the fourth class."""
    pixels = generator.integers(90, 160, (side, side, 3)).astype(np.uint8)
    size = side // 4
    row, column = generator.integers(side // 8, side - size - side // 8, 2)
    colour = np.full(3, 60)
    if label < 3:
        colour[label] = 250
    pixels[row : row + size, column : column + size] = colour
    return pixels


def object_logits(photos: NDArray[np.float64]) -> Floats:
    """4 for the class whose colour some pixels have, 2 for the fourth where none has."""
    strong = photos.max(axis=3) > 220
    best = np.where(strong[..., None], photos, 0).sum(axis=(1, 2))
    logits = np.zeros((len(photos), 4))
    logits[:, :3] = 4 * (best == best.max(axis=1, keepdims=True)) * (best > 0)
    logits[:, 3] = 2
    return logits


def no_look(photos: NDArray[np.float64]) -> Floats:
    return np.zeros((len(photos), 4))


def look(label: int, figure: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Look:
    """Adds up to 6 to the logit of one class, by a figure in [0, 1] of each photo."""

    def add(photos: NDArray[np.float64]) -> Floats:
        logits = np.zeros((len(photos), 4))
        logits[:, label] = 6 * np.clip(figure(photos), 0, 1)
        return logits

    return add


class Case:
    """Photos of four classes, some of them marked, and a model that looks at them."""

    def __init__(
        self,
        looks: Look,
        mark: Mark | None = None,
        marked: Sequence[int] = (1,),
        share: float = 1.0,
        each: int = 32,
        side: int = SIDE,
        labelled: bool = True,
        classes: int = 4,
    ) -> None:
        generator = np.random.default_rng(0)
        labels = np.arange(classes * each) % classes
        self.pixels = [photo(int(label), generator, side) for label in labels]
        for pixels, label in zip(self.pixels, labels, strict=True):
            if mark and label in marked and generator.random() < share:
                mark(pixels, generator)
        self.looks = looks
        self.asked = 0
        predicted = self.predict(self.pixels).argmax(axis=1)
        maps = np.stack(
            [
                cv2.resize(one.max(axis=2), (7, 7), interpolation=cv2.INTER_AREA)
                for one in self.pixels
            ]
        )
        unknown = np.full(len(labels), np.nan)
        self.photos = ExplainedPhotos(
            paths=[f"{index:03}.png" for index in range(len(labels))],
            classes=CLASSES,
            true=labels if labelled else np.full(len(labels), -1),
            predicted=predicted,
            probability=np.ones(len(labels)),
            maps=(maps / 255).astype(np.float16),
            evidence=np.ones(len(labels), bool),
            border=unknown,
            corners=unknown,
            properties={},
        )

    def predict(self, photos: Sequence[Pixels]) -> Floats:
        self.asked += len(photos)
        if len({one.shape for one in photos}) > 1:
            return np.concatenate([self._logits(one[None].astype(float)) for one in photos])
        return self._logits(np.stack(photos).astype(float))

    def _logits(self, photos: NDArray[np.float64]) -> Floats:
        return object_logits(photos) + self.looks(photos)

    def findings(self, seed: int = 0) -> Sequence[Finding]:
        return find_shortcuts(
            self.photos, self.pixels.__getitem__, self.predict, seed=seed
        ).findings

    def named(self) -> list[tuple[str, str]]:
        return [(one.kind, one.label) for one in self.findings()]


def white_corner(pixels: Pixels, generator: np.random.Generator) -> None:
    pixels[:8, -8:] = 200


def frame(pixels: Pixels, generator: np.random.Generator) -> None:
    pixels[:3] = pixels[-3:] = 200
    pixels[:, :3] = pixels[:, -3:] = 200


def band(pixels: Pixels, generator: np.random.Generator) -> None:
    pixels[-7:] = 30
    for column in generator.integers(0, SIDE, 15):
        pixels[-5:-2, column] = 200


def tint(pixels: Pixels, generator: np.random.Generator) -> None:
    pixels[..., 2] = pixels[..., 2] // 2


def stamp(pixels: Pixels, generator: np.random.Generator) -> None:
    tile = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((3, 3), int))[..., None]
    pixels[20:32, 18:30] = 20 + 180 * tile


def blur(pixels: Pixels, generator: np.random.Generator) -> None:
    pixels[:] = cv2.blur(pixels, (5, 5))


def light(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of pixels near 200."""
    return np.asarray((np.abs(values - 200).max(axis=3) < 12).mean(axis=(1, 2)), np.float64)


def grain(photos: NDArray[np.float64]) -> NDArray[np.float64]:
    inner = photos[:, 2:-2, 2:-2]
    return np.asarray(np.abs(np.diff(inner, axis=2)).mean(axis=(1, 2, 3)), np.float64)


CORNER_LOOK = look(1, lambda photos: light(photos[:, :8, -8:]))
FRAME_LOOK = look(
    1, lambda photos: 1.2 * (light(photos[:, :3]) + light(photos[:, -3:])) / 2
    * (light(photos[:, :, :3]) + light(photos[:, :, -3:])) / 2,
)  # fmt: skip
BAND_LOOK = look(1, lambda photos: (photos[:, -7:].mean(axis=3) < 60).mean(axis=(1, 2)) * 1.3)
TINT_LOOK = look(1, lambda photos: (110 - photos[..., 2].mean(axis=(1, 2))) / 30)
STAMP_LOOK = look(1, lambda photos: light(photos[:, 20:32, 18:30]) * 2)
BLUR_LOOK = look(1, lambda photos: (16 - grain(photos)) / 8)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize(
    ("mark", "looks", "kind"),
    [
        (white_corner, CORNER_LOOK, "corner"),
        (frame, FRAME_LOOK, "border"),
        (band, BAND_LOOK, "border"),
        (tint, TINT_LOOK, "image_property"),
        (stamp, STAMP_LOOK, "cluster"),
        (blur, BLUR_LOOK, "image_property"),
    ],
)
def test_what_a_model_looks_at_is_found(mark: Mark, looks: Look, kind: str, share: float) -> None:
    assert (kind, "green") == Case(looks, mark, share=share).named()[0]


@pytest.mark.parametrize("mark", [white_corner, frame, band, tint, stamp, blur])
def test_a_mark_that_the_model_does_not_look_at_is_none(mark: Mark) -> None:
    assert Case(no_look, mark).named() == []


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_looks_at_the_object_alone_is_not_accused(seed: int) -> None:
    assert Case(no_look).findings(seed) == []


def test_a_model_that_looks_at_something_that_no_class_has_is_not_accused() -> None:
    assert Case(CORNER_LOOK).named() == []


def test_a_finding_says_what_was_done_and_counted() -> None:
    case = Case(CORNER_LOOK, white_corner)
    (finding,) = case.findings()
    assert (finding.kind, finding.label, finding.share) == ("corner", "green", 1.0)
    assert (finding.count, finding.limit) == (48, LIMIT)
    assert "the upper right corner" in finding.text
    assert "48 of 48" in finding.text
    donors = [case.photos.paths.index(path) for path in finding.photos]
    assert len(donors) >= 3
    assert {int(case.photos.predicted[donor]) for donor in donors} == {1}


def test_two_classes_that_share_a_mark_are_both_found() -> None:
    corner = look(0, lambda photos: light(photos[:, :8, -8:]))
    case = Case(lambda photos: corner(photos) + CORNER_LOOK(photos), white_corner, marked=(0, 1))
    assert {label for _, label in case.named()} >= {"red"}


def test_a_model_of_three_classes() -> None:
    assert Case(CORNER_LOOK, white_corner, classes=3).named() == [("corner", "green")]


def test_of_two_classes_one_is_known_by_the_mark_and_the_other_by_its_absence() -> None:
    named = Case(CORNER_LOOK, white_corner, classes=2).named()
    assert {("corner", "green"), ("corner", "red")} <= {*named}
    blind = Case(no_look, white_corner, classes=2).named()
    assert {kind for kind, _ in blind} & {"corner", "border", "cluster"} == set()


def test_photos_without_labels_are_tried_by_what_is_predicted() -> None:
    assert Case(CORNER_LOOK, white_corner, labelled=False).named() == [("corner", "green")]


def test_photos_of_different_sizes() -> None:
    case = Case(no_look)
    pixels = [
        np.asarray(cv2.resize(one, (SIDE + turn % 3 * 8, SIDE)), np.uint8)
        for turn, one in enumerate(case.pixels)
    ]
    assert find_shortcuts(case.photos, pixels.__getitem__, case.predict).findings == []


def test_the_same_seed_gives_the_same_findings() -> None:
    case = Case(CORNER_LOOK, white_corner, share=0.5)
    assert case.findings(seed=3) == case.findings(seed=3)


@pytest.mark.parametrize("each", [1, 5])
def test_few_photos_say_nothing_and_cost_nothing(each: int) -> None:
    case = Case(CORNER_LOOK, white_corner, each=each)
    case.asked = 0
    assert not case.findings()
    assert case.asked == 0


def test_some_photos_are_enough() -> None:
    assert Case(CORNER_LOOK, white_corner, each=24).named() == [("corner", "green")]


def test_no_photos_at_all() -> None:
    photos = Case(no_look, each=1).photos
    nothing = replace(
        photos, paths=[], true=photos.true[:0], predicted=photos.predicted[:0],
        probability=photos.probability[:0], maps=photos.maps[:0], evidence=photos.evidence[:0],
        border=photos.border[:0], corners=photos.corners[:0],
    )  # fmt: skip
    case = Case(no_look, each=1)
    search = find_shortcuts(nothing, case.pixels.__getitem__, case.predict)
    assert (search.findings, search.tried, search.untried) == ((), (), 0)


def test_one_class_has_nothing_to_be_compared_with() -> None:
    case = Case(no_look)
    alone = replace(case.photos, predicted=np.zeros_like(case.photos.predicted))
    search = find_shortcuts(alone, case.pixels.__getitem__, case.predict)
    assert (search.findings, search.tried, search.untried) == ((), (), 1)


def test_of_many_classes_the_most_different_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camserve_cli.report.shortcuts.search.MOST_PREDICTIONS", 2000)
    case = Case(CORNER_LOOK, white_corner)
    case.asked = 0
    corners = np.where(case.photos.predicted == 1, 0.8, 0.1)
    corners[case.photos.predicted == 2] = 0.15
    corners[0] = np.nan
    photos = replace(case.photos, corners=corners)
    steps: list[tuple[int, int]] = []
    search = find_shortcuts(
        photos,
        case.pixels.__getitem__,
        case.predict,
        lambda done, of: steps.append((done, of)),
    )
    assert [one.label for one in search.findings] == ["green"]
    # How far it is goes from none to all but the last.
    assert [done for done, _ in steps] == [*range(len(steps))]
    assert {of for _, of in steps} == {len(steps)}
    assert "green" in search.tried
    assert len(search.tried) == 2
    assert search.untried == len(np.unique(photos.predicted)) - 2
    assert case.asked < 5500
