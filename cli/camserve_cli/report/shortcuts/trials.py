"""Transplants tried on a model: how much the recipients' score for the donors' class rises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import (
    ExplainedPhotos,
    Floats,
    Integers,
    Pixels,
    Predict,
    ReadSeen,
)
from camserve_cli.report.shortcuts.transplants import Recipient, Transplant, resize_to

#: Donors of each class at most, and recipients of each in the first round.
DONORS: Final = 40
RECIPIENTS: Final = 2
#: The part of the donors that the second round takes: those that raised the score most.
BEST: Final = 0.45
#: Recipients of the second round at most, and how many donors give to each.
CONFIRMED: Final = 144
GROUP: Final = 9
#: A class with fewer donors, or with fewer recipients of other classes, is not tried.
FEWEST: Final = 6
#: A recipient counts where its score rises by this much more than in the control, in logits: the
#: class becomes 2.7 times as likely, compared with the others. Where logits are small, it is this
#: part of what lies between the recipients and the class, in the median.
RISE: Final = 1.0
PART_OF_DISTANCE: Final = 0.15
#: Photos that are predicted at once.
CHUNK: Final = 64


@dataclass(frozen=True)
class Gift:
    """Some donors and the recipient of what they give, as places among the columns."""

    donors: tuple[int, ...]
    recipient: int


@dataclass(frozen=True)
class FirstRound:
    """The gifts of a class's donors, and (n, C) the recipients' logits after them."""

    gifts: tuple[Gift, ...]
    logits: Floats


@dataclass(frozen=True)
class Outcome:
    """What became of recipients of the second round.

    Attributes:
        donors: the class's best, the first raised the score most.
        gains: (n,) how much more the score of the class rose than with donors of another class, in
            logits.
        rise: the gain from which on a recipient counts.
        changed, control_changed: how many of the n became the class, and with the other donors.
    """

    donors: tuple[int, ...]
    gains: Floats
    rise: float
    changed: int
    control_changed: int

    @property
    def raised(self) -> int:
        """How many recipients count."""
        return int((self.gains > self.rise).sum())

    @property
    def share(self) -> float:
        """The share of the recipients that count."""
        return self.raised / max(1, len(self.gains))

    @property
    def gain(self) -> float:
        """The median of the gains, in logits."""
        return float(np.median(self.gains)) if len(self.gains) else 0.0

    @property
    def p_value(self) -> float:
        """How likely so many are where either of the two donors may win: the sign test."""
        from scipy.stats import binomtest

        count = len(self.gains)
        return float(binomtest(self.raised, count, alternative="greater").pvalue) if count else 1.0


class Trials:
    """The photos that take part, and what becomes of those that receive something.

    Args:
        photos: explained.
        read_seen, predict: as of the report.
        classes: that are tried; those with too few donors are left out.
        generator: chooses donors and recipients.
    """

    def __init__(
        self,
        photos: ExplainedPhotos,
        read_seen: ReadSeen,
        predict: Predict,
        classes: Sequence[int],
        generator: np.random.Generator,
    ) -> None:
        self._photos = photos
        self._read_seen = read_seen
        self._predict = predict
        order = generator.permutation(len(photos))
        predicted, true = photos.predicted, photos.true
        right = (predicted == true) | (true < 0)
        self._recipients = order[right[order]]
        donors = {label: order[predicted[order] == label][:DONORS] for label in classes}
        #: Of each class that is tried, its donors.
        self.donors: dict[int, Integers] = {
            label: chosen
            for label, chosen in donors.items()
            if len(chosen) >= FEWEST and len(self._others(label)) >= FEWEST
        }
        self._seen: dict[int, Pixels] = {}
        self._before: dict[int, Floats] = {}

    def seen(self, index: int) -> Pixels:
        """What the network saw of a photo; kept, since it takes part several times."""
        if index not in self._seen:
            self._seen[index] = self._read_seen(index)
        return self._seen[index]

    def first_round(self, transplant: Transplant, label: int) -> FirstRound:
        """Each donor of a class gives to some recipients of others.

        Where there are two classes, it gives to as many of its own: that is the other's control.
        """
        donors = self.donors[label]
        predicted = self._photos.predicted[self._recipients]
        pools = [self._others(label)]
        if len(np.unique(predicted)) == 2:
            pools.append(self._recipients[predicted == label])
        gifts = tuple(
            Gift((int(donors[turn % len(donors)]),), int(pool[turn % len(pool)]))
            for pool in pools
            for turn in range(RECIPIENTS * len(donors))
        )
        return FirstRound(gifts, self._given(transplant, gifts))

    def promise(self, label: int, first: Mapping[int, FirstRound]) -> float:
        """How often the best donors of a class raise its score more than the best of others do.

        Returns:
            The share of all pairs of both, in [0, 1]; 0.5 where there is no difference.
        """
        rises = {one: self._best(round_, label)[1] for one, round_ in first.items()}
        own = rises.pop(label)
        control = np.concatenate([*rises.values()]) if rises else np.zeros(0)
        if own.size == 0 or control.size == 0:
            return 0.0
        return float((own[:, None] > control).mean())

    def second_round(
        self, transplant: Transplant, label: int, first: Mapping[int, FirstRound]
    ) -> Outcome:
        """The best donors of a class give to recipients that had no part before, where there are.

        As the control, each recipient receives the same from the best donors of another class:
        those that raised the score of ``label`` most. Two classes may share a mark: where leaving
        out one class makes the difference, it takes no part.

        Args:
            first: of each class that is tried, its first round.
        """
        best, _ = self._best(first[label], label)
        others = self._others(label)
        count = min(CONFIRMED, max(len(others) - RECIPIENTS * DONORS, len(others) // 2))
        chosen = [int(others[(RECIPIENTS * DONORS + turn) % len(others)]) for turn in range(count)]
        gifts = [Gift(_group(best, turn), recipient) for turn, recipient in enumerate(chosen)]
        of_others = {other: self._best(first[other], label)[0] for other in first if other != label}
        classes, controls = [], []
        for turn, recipient in enumerate(chosen):
            # The recipient's own class would strengthen what it is.
            own = int(self._photos.predicted[recipient])
            choice = [other for other in of_others if other != own] or [*of_others]
            classes.append(choice[turn % len(choice)])
            controls.append(Gift(_group(of_others[classes[-1]], turn), recipient))
        logits, control = self._given(transplant, gifts), self._given(transplant, controls)
        gains = self._margins(logits, gifts, label) - self._margins(control, gifts, label)
        before = self._margins(self._logits_before(gifts), gifts, label)
        distance = -float(np.median(before))
        rise = min(RISE, PART_OF_DISTANCE * max(0.0, distance))
        kept = _without_sharing_class(
            np.array(classes, np.int64), self._photos.predicted[chosen], gains > rise
        )
        return Outcome(
            tuple(best.tolist()),
            gains[kept],
            rise,
            int((logits[kept].argmax(axis=1) == label).sum()),
            int((control[kept].argmax(axis=1) == label).sum()),
        )

    def _others(self, label: int) -> Integers:
        """The recipients that are of another class."""
        others: Integers = self._recipients[self._photos.predicted[self._recipients] != label]
        return others

    def _best(self, first: FirstRound, label: int) -> tuple[Integers, Floats]:
        """The donors that raised the score of a class most, the best first, and their rises."""
        before = self._logits_before(first.gifts)
        rises = self._margins(first.logits, first.gifts, label)
        rises -= self._margins(before, first.gifts, label)
        other = np.array([self._photos.predicted[gift.recipient] != label for gift in first.gifts])
        givers = np.array([gift.donors[0] for gift in first.gifts])[other]
        rises = rises[other]
        donors = np.unique(givers)
        mean = np.array([rises[givers == donor].mean() for donor in donors])
        best = donors[np.argsort(-mean, kind="stable")][: max(3, round(BEST * len(donors)))]
        return best, rises[np.isin(givers, best)]

    def _margins(self, logits: Floats, gifts: Sequence[Gift], label: int) -> Floats:
        """(n, C) -> (n,) how far a class is above the class that the recipient was, in logits."""
        # What a model does not tell is far below what it does.
        told = np.nan_to_num(logits, nan=-100.0, neginf=-100.0, posinf=100.0)
        own = self._photos.predicted[[gift.recipient for gift in gifts]]
        return np.asarray(told[:, label] - told[np.arange(len(told)), own], np.float64)

    def _logits_before(self, gifts: Sequence[Gift]) -> Floats:
        """(n, C) of the recipients as they are."""
        new = [
            *dict.fromkeys(gift.recipient for gift in gifts if gift.recipient not in self._before)
        ]
        rows = self._logits(self.seen(index) for index in new)
        self._before.update(zip(new, rows, strict=True))
        return np.stack([self._before[gift.recipient] for gift in gifts])

    def _given(self, transplant: Transplant, gifts: Sequence[Gift]) -> Floats:
        """(n, C) of the recipients after they received."""
        return self._logits(self._receive(transplant, gift) for gift in gifts)

    def _receive(self, transplant: Transplant, gift: Gift) -> Pixels:
        recipient = Recipient(self.seen(gift.recipient), self._photos.maps[gift.recipient])
        donors = [resize_to(self.seen(donor), recipient.pixels) for donor in gift.donors]
        return transplant(donors, recipient)

    def _logits(self, photos: Iterator[Pixels]) -> Floats:
        """(n, C), a chunk of photos at a time."""
        rows, chunk = [np.zeros((0, len(self._photos.classes)))], list[Pixels]()
        for photo in photos:
            chunk.append(photo)
            if len(chunk) == CHUNK:
                rows.append(self._predict(chunk))
                chunk = []
        if chunk:
            rows.append(self._predict(chunk))
        return np.concatenate(rows)


def _group(donors: Integers, turn: int) -> tuple[int, ...]:
    """Some donors that stand beside each other, others in each turn."""
    return tuple(int(donors[(turn + place) % len(donors)]) for place in range(GROUP))


def _without_sharing_class(
    controls: Integers, recipients: Integers, raised: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which recipients stay where a class that has the same mark takes no part.

    As a control it raises the score as much, and as a recipient it has the mark already.

    Args:
        controls, recipients: (n,) the classes of the control's donors, and of the recipients.
        raised: (n,) whether the recipient counts.
    """
    everyone = np.ones(len(raised), np.bool_)
    classes = np.union1d(controls, recipients)
    if len(classes) < 3:
        return everyone
    parts: list[NDArray[np.bool_]] = [
        (controls == label) | (recipients == label) for label in classes
    ]
    with_it = min(parts, key=lambda part: float(raised[part].mean()))
    apart = bool(with_it.any() and not with_it.all())
    if apart and raised[with_it].mean() <= 0.3 and raised[~with_it].mean() >= 0.95:
        return ~with_it
    return everyone
