"""Classes that a model recognizes by something that can be taken from photo to photo: shortcuts.

Donors of a class give one thing, such as a corner, to photos of other classes. Where the model's
score for the class rises in most of them, and by more than with donors of other classes, the model
has learned that thing. No look at the maps alone could tell: they show where, not what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from camserve_cli.report.explained_photos import ExplainedPhotos, Pixels, Predict, ReadSeen
from camserve_cli.report.findings import Finding
from camserve_cli.report.shortcuts.candidates import (
    less_sharp,
    most_different,
    of_other_colours,
    of_other_tint,
)
from camserve_cli.report.shortcuts.kinds import SHARED, Hit, findings_of_class
from camserve_cli.report.shortcuts.shared_pixels import find_shared_pixels
from camserve_cli.report.shortcuts.transplants import (
    COLOURS,
    PROPERTIES,
    SHARPNESS,
    TINT,
    Mask,
    Transplant,
    copy_where,
    corner_masks,
    edge_masks,
    property_transplants,
)
from camserve_cli.report.shortcuts.trials import DONORS, RECIPIENTS, Outcome, Trials

#: From this share of recipients on, whose score rises by more than in the control, it is a finding.
LIMIT: Final = 0.65
#: All tests together accuse by chance at most this often.
LEVEL: Final = 0.01
#: A second round is worth its predictions where the first promises this much.
PROMISE: Final = 0.55
#: The first rounds ask for so many predictions at most; where there are more classes than these are
#: enough for, the ones that differ most from the others are tried.
MOST_PREDICTIONS: Final = 20_000
#: What is tried for some classes alone.
_CANDIDATES: Final[Mapping[str, Callable[[Mapping[int, Sequence[Pixels]]], list[int]]]] = {
    COLOURS: of_other_colours,
    TINT: of_other_tint,
    SHARPNESS: less_sharp,
}


@dataclass(frozen=True)
class ShortcutSearch:
    """What a search found, and where it looked.

    Attributes:
        findings: of the kinds ``corner``, ``border``, ``cluster`` (a place in the picture that
            shows the same pixels) and ``image_property``, the clearest first.
        tried: the labels of the classes that were tried.
        untried: how many other classes are predicted.
    """

    findings: Sequence[Finding]
    tried: Sequence[str]
    untried: int


def find_shortcuts(
    photos: ExplainedPhotos,
    read_seen: ReadSeen,
    predict: Predict,
    tell: Callable[[int, int], None] = lambda done, of: None,
    *,
    seed: int = 0,
) -> ShortcutSearch:
    """The shortcuts of each class.

    Tried are the four corners, the four sides, the border along all of them, pixels that the
    photos of a class share anywhere, and six properties of a photo: colours and contrast, tint and
    brightness, sharpness, grain, shading, background. Classes with fewer than 6 photos are not
    tried. The same seed gives the same findings.

    Args:
        photos: that were explained.
        read_seen: reads the pixels of one, as the network saw them.
        predict: the model.
        tell: is called with how many of the things are tried, and of how many.
        seed: for the choice of photos.
    """
    places: dict[str, Mask] = {**corner_masks(), **edge_masks()}
    each = (len(places) + len(PROPERTIES)) * RECIPIENTS * DONORS
    classes = most_different(photos, MOST_PREDICTIONS // each)
    trials = Trials(photos, read_seen, predict, classes, np.random.default_rng(seed))
    predicted = len(np.unique(photos.predicted))
    if len(trials.donors) < 2:
        return ShortcutSearch((), (), predicted)
    seen = {label: [trials.seen(int(one)) for one in some] for label, some in trials.donors.items()}
    shared = find_shared_pixels(seen, seed)
    transplants = {
        **{name: copy_where(mask) for name, mask in places.items()},
        **property_transplants([one for some in seen.values() for one in some]),
    }
    tried = [
        (name, transplant, _CANDIDATES.get(name, list)(seen))
        for name, transplant in transplants.items()
    ]
    tried += [(SHARED, copy_where(mask), [label]) for label, mask in shared.items()]
    outcomes = []
    for done, (name, transplant, labels) in enumerate(tried):
        tell(done, len(tried))
        outcomes += [(name, label, outcome) for label, outcome in _try(trials, transplant, labels)]
    tests = sum(len(labels) for _, _, labels in tried)
    hits = [
        Hit(name, label, outcome)
        for name, label, outcome in outcomes
        if outcome.share >= LIMIT and outcome.p_value * tests < LEVEL
    ]
    findings = [
        finding
        for label in sorted({hit.label for hit in hits}, key=lambda one: _clearest(hits, one))
        for finding in findings_of_class(
            photos, [hit for hit in hits if hit.label == label], shared.get(label), LIMIT
        )
    ]
    names = [photos.classes[label] for label in trials.donors]
    return ShortcutSearch(findings, names, predicted - len(names))


def _try(
    trials: Trials, transplant: Transplant, labels: Sequence[int]
) -> list[tuple[int, Outcome]]:
    """The outcomes of one transplant for the classes that promise one."""
    if not labels:
        return []
    first = {label: trials.first_round(transplant, label) for label in trials.donors}
    return [
        (label, trials.second_round(transplant, label, first))
        for label in labels
        if trials.promise(label, first) >= PROMISE
    ]


def _clearest(hits: Sequence[Hit], label: int) -> float:
    return -max(hit.outcome.gain for hit in hits if hit.label == label)
