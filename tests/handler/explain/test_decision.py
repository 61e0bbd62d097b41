"""What logits say of a photo, by task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from camserve.explain import DecisionRule

LOGITS = [[3.0, 3.0, -4.0], [-1.0, -2.0, -0.5], [0.0, 1000.0, -1000.0]]


def test_multiclass_probabilities_are_a_softmax() -> None:
    found = DecisionRule("multiclass").probabilities(torch.tensor(LOGITS[:2]))
    exponentials = np.exp(LOGITS[:2])
    np.testing.assert_allclose(
        found, exponentials / exponentials.sum(1, keepdims=True), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("task", ["multilabel", "binary"])
def test_other_probabilities_are_sigmoids(task: Any) -> None:
    found = DecisionRule(task).probabilities(torch.tensor(LOGITS))
    np.testing.assert_allclose(
        found,
        [[0.952574, 0.952574, 0.017986], [0.268941, 0.119203, 0.377541], [0.5, 1, 0]],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("task", "threshold", "counts"),
    [
        ("multiclass", 0.5, [1, 1, 1]),
        ("binary", 0.5, [1, 1, 1]),
        # A probability of the threshold itself is not above it.
        ("multilabel", 0.5, [2, 1, 1]),
        ("multilabel", 0.49, [2, 1, 2]),
        ("multilabel", 0.2, [2, 2, 2]),
        ("multilabel", 0.99, [1, 1, 1]),
        ("multilabel", 0.01, [3, 3, 2]),
    ],
)
def test_as_many_classes_are_predicted_as_are_above_the_threshold(
    task: Any, threshold: float, counts: list[int]
) -> None:
    rule = DecisionRule(task, threshold)
    assert rule.predicted_counts(rule.probabilities(torch.tensor(LOGITS))) == counts
