"""The targets of a batch -> the scores that they stand for, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camserve.explain.decision import DecisionRule
from camserve.explain.targets import ClassRef, Target, TopRank


@dataclass(frozen=True)
class TargetScores:
    """The M scores to explain: of all photos, each photo's targets in their order.

    Attributes:
        counts: how many scores each photo's targets stand for; where these are more than may be
            explained, none of the photo's is among the M.
        samples: the photo index of each.
        class_ids: (M,) the class index of each.
        contrast_indices: the indices of those that are contrasts.
        against_ids: for each contrast the index of the class that it is against.
    """

    counts: list[int]
    samples: list[int]
    class_ids: Tensor
    contrast_indices: list[int]
    against_ids: Tensor


def select_scores(
    order: Tensor,
    targets_of_photos: Sequence[Sequence[Target]],
    probabilities: Tensor,
    rule: DecisionRule,
) -> TargetScores:
    """The scores that targets stand for.

    Args:
        order: (N, C) class indices of each photo, the highest score first.
        targets_of_photos: for each of N photos its targets.
        probabilities: (N, C).
        rule: which classes are predicted, and how many scores of a photo may be explained.
    """
    expanded = [list(targets) for targets in targets_of_photos]
    if any(target.every_predicted for targets in expanded for target in targets):
        predicted = rule.predicted_counts(probabilities)
        expanded = [
            [one for target in targets for one in _expand(target, count)]
            for targets, count in zip(expanded, predicted, strict=True)
        ]
    counts = [len(targets) for targets in expanded]
    targets = [
        (sample, target)
        for sample, of_photo in enumerate(expanded)
        if len(of_photo) <= rule.max_targets
        for target in of_photo
    ]
    contrasts = [
        (index, sample, target.against)
        for index, (sample, target) in enumerate(targets)
        if target.against is not None
    ]
    class_ids = _class_indices(
        order,
        [(sample, target.class_ref) for sample, target in targets]
        + [(sample, against) for _, sample, against in contrasts],
    )
    return TargetScores(
        counts,
        [sample for sample, _ in targets],
        class_ids[: len(targets)],
        [index for index, _, _ in contrasts],
        class_ids[len(targets) :],
    )


def _expand(target: Target, predicted: int) -> list[Target]:
    """The targets that one stands for, for a photo of which so many classes are predicted."""
    if not target.every_predicted:
        return [target]
    return [Target(TopRank(rank)) for rank in range(predicted)]


def _class_indices(order: Tensor, refs: Sequence[tuple[int, ClassRef]]) -> Tensor:
    """The class index of each pair of sample and reference; a rank is looked up in ``order``."""
    classes = order.shape[1]
    is_rank = [isinstance(ref, TopRank) for _, ref in refs]
    # The class index itself, or the position of a rank in the flattened order.
    positions = torch.tensor(
        [sample * classes + ref.rank if isinstance(ref, TopRank) else ref for sample, ref in refs],
        dtype=torch.long,
        device=order.device,
    )
    if not any(is_rank):
        return positions
    ranked = order.take(positions)
    if all(is_rank):
        return ranked
    return torch.where(torch.tensor(is_rank, device=order.device), ranked, positions)


def score_weights(logits: Tensor, scores: TargetScores) -> Tensor:
    """(M, C): each score as a weighted sum of its photo's logits.

    The weight is 1 for the score's class, and -1 for the class that a contrast is against.
    """
    class_ids = scores.class_ids
    weights = logits.new_zeros(len(class_ids), logits.shape[1])
    weights.scatter_(1, class_ids.unsqueeze(1), 1)
    if scores.contrast_indices:
        rows = torch.tensor(scores.contrast_indices, device=logits.device)
        # Accumulated, so that a class against itself has weight 0.
        weights.index_put_((rows, scores.against_ids), weights.new_tensor(-1), accumulate=True)
    return weights
