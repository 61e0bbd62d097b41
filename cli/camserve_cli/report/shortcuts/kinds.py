"""What a class's shortcut is called: one mark shows in several tests, and is one finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from camserve_cli.report.explained_photos import ExplainedPhotos
from camserve_cli.report.findings import Finding, FindingKind
from camserve_cli.report.shortcuts.transplants import (
    PROPERTIES,
    Mask,
    corner_masks,
    edge_masks,
)
from camserve_cli.report.shortcuts.trials import Outcome

#: The name of what the photos of a class share anywhere.
SHARED: Final = "the same pixels"
#: A place is told where it raises the score by this part of what the strongest place does: a corner
#: that holds a part of a frame raises it by less.
PART_OF_PLACE: Final = 0.6
#: The same of a place beside a property, since a patch of a tinted photo is tinted, too; and of a
#: property beside a place, since a frame changes the colours of the whole.
PLACE_BESIDE_PROPERTY: Final = 0.25
PROPERTY_BESIDE_PLACE: Final = 0.6
#: Shared pixels are called a corner's or a border's where this part of them lies there.
MOSTLY: Final = 0.7


@dataclass(frozen=True)
class Hit:
    """Something that raises the score of a class wherever it is copied to.

    Attributes:
        name: of the transplant.
        label: index of the class.
        outcome: of the second round.
    """

    name: str
    label: int
    outcome: Outcome


def findings_of_class(
    photos: ExplainedPhotos, hits: Sequence[Hit], shared: Mask | None, limit: float
) -> list[Finding]:
    """The findings of one class, the clearest first: a place at most once for each kind.

    Args:
        hits: of this class, at least one.
        shared: where its photos show the same pixels, if anywhere.
        limit: that each hit has reached.
    """
    places = [hit for hit in hits if hit.name not in PROPERTIES]
    properties = [hit for hit in hits if hit.name in PROPERTIES]
    of_place, of_property = _strongest(places), _strongest(properties)
    if of_place < PLACE_BESIDE_PROPERTY * of_property:
        places = []
    if of_property < PROPERTY_BESIDE_PLACE * of_place:
        properties = []
    named: list[tuple[FindingKind, Hit]] = _named_places(places, shared) if places else []
    if properties:
        named.append(("image_property", max(properties, key=lambda hit: hit.outcome.gain)))
    named.sort(key=lambda pair: -pair[1].outcome.gain)
    return [_finding(photos, kind, hit, limit) for kind, hit in named]


def _strongest(hits: Sequence[Hit]) -> float:
    return max((hit.outcome.gain for hit in hits), default=0.0)


def _named_places(places: Sequence[Hit], shared: Mask | None) -> list[tuple[FindingKind, Hit]]:
    """The kind of the place that explains all others, and its hit."""
    strongest = _strongest(places)
    strong = [hit for hit in places if hit.outcome.gain >= PART_OF_PLACE * strongest]
    corners = [hit for hit in strong if hit.name in corner_masks()]
    edges = [hit for hit in strong if hit.name in edge_masks()]
    same = [hit for hit in strong if hit.name == SHARED]
    if len(corners) == 1 and not (same and shared is not None and _kind_of(shared) == "cluster"):
        return [("corner", corners[0])]
    if same and shared is not None:
        return [(_kind_of(shared), same[0])]
    return [("border", max([*edges, *corners], key=lambda hit: hit.outcome.gain))]


def _kind_of(shared: Mask) -> FindingKind:
    """Where most of some pixels lie: in one corner, along the border, or elsewhere."""
    y, x = (np.mgrid[0 : shared.shape[0], 0 : shared.shape[1]] + 0.5) / shared.shape[0]
    down, across = y[shared], x[shared]
    corner = max(
        float(((rows < 1 / 3) & (columns < 1 / 3)).mean())
        for rows in (down, 1 - down)
        for columns in (across, 1 - across)
    )
    if corner >= MOSTLY:
        return "corner"
    edge = np.minimum(np.minimum(down, 1 - down), np.minimum(across, 1 - across))
    return "border" if float((edge < 0.2).mean()) >= MOSTLY else "cluster"


def _finding(photos: ExplainedPhotos, kind: FindingKind, hit: Hit, limit: float) -> Finding:
    outcome = hit.outcome
    label, count = photos.classes[hit.label], len(outcome.gains)
    if hit.name == SHARED:
        given = f"the pixels that photos of {label!r} share are copied into them"
    elif hit.name in PROPERTIES:
        given = f"they get the {hit.name} of photos of {label!r}"
    else:
        given = f"{hit.name} of photos of {label!r} is copied into them"
    text = (
        f"Photos of other classes come nearer to {label!r} once {given}: in {outcome.raised} of "
        f"{count} its score rises by more than with the same from photos of other classes, by "
        f"{outcome.gain:.1f} logits more in the median. {outcome.changed} become {label!r}; with "
        f"the same from other classes, {outcome.control_changed} do."
    )
    paths = tuple(photos.paths[donor] for donor in outcome.donors)
    return Finding(kind, label, outcome.share, count, limit, paths, text)
