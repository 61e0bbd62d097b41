"""The short backward passes: gradients worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from camserve.explain import HookedNetwork, backward
from tests.support.small_networks import (
    BY_HAND,
    GRIDS,
    Squares,
    gradients_of,
    one_hot,
)


@pytest.mark.parametrize("samples", [[0, 1, 2], [2, 0], [1]])
def test_a_gradient_is_that_of_its_sample(samples: list[int]) -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    output = hooked.forward(torch.cat([GRIDS, 10 * GRIDS, -GRIDS]), ["pick"])
    gradients = gradients_of(output, samples, [0] * len(samples))["pick"]
    of_class_0 = torch.tensor(BY_HAND[0][0]).double()
    assert_close(gradients, torch.stack([of_class_0 * (1, 10, -1)[n] for n in samples]))


@pytest.mark.parametrize(
    ("samples", "passes"),
    [
        ([], []),
        ([1], [[0]]),
        ([0, 1, 2], [[0, 1, 2]]),
        ([2, 2, 2], [[0], [1], [2]]),
        ([0, 0, 1, 0, 2, 1], [[0, 2, 4], [1, 5], [3]]),
    ],
)
def test_a_samples_second_score_is_in_the_second_backward_pass(
    samples: list[int], passes: list[list[int]]
) -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    output = hooked.forward(torch.cat([GRIDS, 10 * GRIDS, -GRIDS]), ["pick"])
    classes = [index % 3 for index in range(len(samples))]
    weights = one_hot(output, classes)
    results = list(backward.score_gradients(output, samples, weights, [["pick"]] * len(samples)))

    assert [indices for indices, _ in results] == passes
    for indices, gradients in results:
        expected = [
            torch.tensor(BY_HAND[classes[index]][0]) * (1, 10, -1)[samples[index]]
            for index in indices
        ]
        assert_close(gradients["pick"], torch.stack(expected).double())


def test_a_difference_of_two_scores_has_the_difference_of_their_gradients() -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    output = hooked.forward(GRIDS, ["pick"])
    weights = one_hot(output, [0]) - one_hot(output, [2])
    ((_, gradients),) = backward.score_gradients(output, [0], weights, [["pick"]])
    by_hand = torch.tensor(BY_HAND[0][0]) - torch.tensor(BY_HAND[2][0])
    assert_close(gradients["pick"], by_hand.double()[None])
