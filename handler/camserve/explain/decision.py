"""How a network's scores become probabilities, and which classes it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from camserve.explain.conditions import Condition, Verdict
from camserve.settings import Task


@dataclass(frozen=True)
class DecisionRule:
    """The task of a network: what its logits (N, C) say about a photo.

    Attributes:
        task: ``multiclass``: one of the classes is right; ``multilabel`` and ``binary``: each has a
            probability of its own.
        threshold: the probability above which a multilabel network predicts a class.
        max_targets: how many scores of one photo may be explained.
    """

    task: Task = "multiclass"
    threshold: float = 0.5
    max_targets: int = 16

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, C) logits -> (N, C) in [0, 1]."""
        return logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()

    def confidence(self, logits: Tensor, class_id: int, against: int | None = None) -> Tensor:
        """(N, C) logits -> (N,) in [0, 1]: the probability of a class.

        Of a contrast it is the probability of the class where only it and the other are possible.
        """
        if against is not None:
            return (logits[:, class_id] - logits[:, against]).sigmoid()
        return self.probabilities(logits)[:, class_id]

    def judge(
        self, probabilities: Tensor, order: Tensor, conditions: Sequence[Condition | None]
    ) -> list[Verdict | None]:
        """For each of N photos what its condition judged where that does not hold; else None.

        Args:
            probabilities: (N, C).
            order: (N, C) class indices of each photo, the highest score first.
            conditions: None for a photo without one.
        """
        if not any(conditions):
            return [None] * len(conditions)
        # Copied at once: on a GPU every figure would wait for the device by itself.
        verdicts = map(self.verdict, probabilities.cpu(), order.cpu())
        return [
            verdict if condition and not condition.holds(verdict) else None
            for condition, verdict in zip(conditions, verdicts, strict=True)
        ]

    def verdict(self, probabilities: Tensor, order: Tensor) -> Verdict:
        """What a photo's probabilities (C,) and classes in order (C,), the best first, say.

        The margin of a multiclass network is that to the second class. Of a binary one it is the
        distance from even odds, and of a multilabel one the smallest distance of a class from the
        threshold.
        """
        best = probabilities[order[0]]
        if self.task == "multilabel":
            margin = (probabilities - self.threshold).abs().min()
        elif self.task == "binary":
            margin = (best - 0.5).abs()
        else:
            margin = best - probabilities[order[1]] if len(order) > 1 else best
        return Verdict(float(best), float(margin), int(order[0]))

    def predicted_counts(self, probabilities: Tensor) -> list[int]:
        """How many classes each photo is predicted to show, 1 or more: those of highest score."""
        if self.task != "multilabel":
            return [1] * len(probabilities)
        above = (probabilities > self.threshold).sum(dim=1)
        return [int(count) for count in above.clamp_min(1)]
