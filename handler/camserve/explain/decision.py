"""How a network's scores become probabilities, and which classes it predicts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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

    def predicted_counts(self, probabilities: Tensor) -> list[int]:
        """How many classes each photo is predicted to show, 1 or more: those of highest score."""
        if self.task != "multilabel":
            return [1] * len(probabilities)
        above = (probabilities > self.threshold).sum(dim=1)
        return [int(count) for count in above.clamp_min(1)]
