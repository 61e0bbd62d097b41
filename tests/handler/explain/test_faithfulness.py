"""The figures of faithfulness, by hand, and beside those of other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import road  # type: ignore[import-untyped]
from pytorch_grad_cam.metrics.cam_mult_image import (  # type: ignore[import-untyped]
    DropInConfidence,
    IncreaseInConfidence,
)
from pytorch_grad_cam.utils.model_targets import (  # type: ignore[import-untyped]
    ClassifierOutputSoftmaxTarget,
)
from torch import Tensor, nn

from camserve.errors import RequestError
from camserve.explain import (
    DecisionRule,
    ExplainedScore,
    Faithfulness,
    MeasuredPhoto,
    faithfulness,
    forward_count,
    imputation,
    masking,
    measure_faithfulness,
)
from camserve.options import FaithfulnessMetric
from tests.support.small_networks import photo, with_batchnorm_statistics

METRICS: tuple[FaithfulnessMetric, ...] = get_args(FaithfulnessMetric)
RULE = DecisionRule()
#: Twelve pixels in a row, so that a sixth is two of them.
ROW = torch.linspace(0.1, 1.2, 12).view(1, 1, 12)


class TwoClasses(nn.Module):
    """Logits (mean, 0) of a picture's mean value."""

    def forward(self, inputs: Tensor) -> Tensor:
        mean = inputs.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], 1)


def measured(
    network: Callable[[Tensor], Tensor],
    picture: Tensor,
    scores: Sequence[ExplainedScore],
    *metrics: FaithfulnessMetric,
    grid: tuple[int, int] = (7, 7),
    rule: DecisionRule = RULE,
    batch_size: int = 8,
) -> list[dict[FaithfulnessMetric, Faithfulness]]:
    with torch.no_grad():
        request = MeasuredPhoto(picture, network(picture[None]), scores, grid, metrics, seed=3)
        (figures,) = measure_faithfulness([request], network, batch_size, rule)
    assert isinstance(figures, list)
    return figures


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def descending() -> Tensor:
    return torch.linspace(1, 0, 12).view(1, 12)


def test_drop_and_increase_by_hand() -> None:
    map = descending()
    (figures,) = measured(TwoClasses(), ROW, [ExplainedScore(0, None, map)], "drop", "increase")
    full = sigmoid(float(ROW.mean()))
    left = sigmoid(float((ROW[0] * map).mean()))
    assert figures["drop"].value == pytest.approx((full - left) / full, rel=1e-5)
    assert figures["increase"].value == 0
    # Of the other class what is left is more.
    (figures,) = measured(TwoClasses(), ROW, [ExplainedScore(1, None, map)], "drop", "increase")
    assert figures["drop"].value == 0
    assert figures["increase"].value == 1


def test_deletion_and_insertion_by_hand() -> None:
    map = descending()
    score = ExplainedScore(0, None, map)
    (figures,) = measured(TwoClasses(), ROW, [score], "deletion", "insertion")
    values, blurred = ROW.flatten().tolist(), masking.blur(ROW).flatten().tolist()
    deleted = [sigmoid(sum(values[2 * step :]) / 12) for step in range(7)]
    inserted = [sigmoid(sum(values[: 2 * step] + blurred[2 * step :]) / 12) for step in range(7)]
    assert figures["deletion"].value == pytest.approx(np.trapezoid(deleted, dx=1 / 6), rel=1e-5)
    assert figures["insertion"].value == pytest.approx(np.trapezoid(inserted, dx=1 / 6), rel=1e-5)


def test_a_contrasts_confidence_is_that_of_two_classes() -> None:
    logits = torch.tensor([[2.0, 1.0, 5.0]])
    assert RULE.confidence(logits, 0, 1).tolist() == pytest.approx([sigmoid(1.0)])
    assert RULE.confidence(logits, 0).tolist() == pytest.approx(logits.softmax(1)[:, 0].tolist())
    multilabel = DecisionRule("multilabel")
    assert multilabel.confidence(logits, 0).tolist() == pytest.approx([sigmoid(2.0)])


def test_the_reference_maps() -> None:
    grid = (5, 4)
    random = faithfulness.random_map(grid, 7)
    assert torch.equal(random, faithfulness.random_map(grid, 7))
    assert not torch.equal(random, faithfulness.random_map(grid, 8))
    centre = faithfulness.centre_map((3, 3))
    assert centre[1, 1] == 1
    assert centre[0, 0] == centre[2, 2] == 0
    assert torch.equal(faithfulness.centre_map((6, 4)), faithfulness.centre_map((6, 4)).flip(0, 1))
    # A distance of 1 where the corners have that of the square root of 2.
    assert float(centre[0, 1]) == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-5)
    assert torch.equal(faithfulness.centre_map((1, 1)), torch.zeros(1, 1))


def test_a_map_without_evidence_has_no_figure_but_the_references_have() -> None:
    (figures,) = measured(TwoClasses(), ROW, [ExplainedScore(0, None, None)], *METRICS)
    for figure in figures.values():
        assert figure.value is None
        assert figure.random is not None
        assert figure.centre is not None


def test_a_drop_from_zero_is_not_defined() -> None:
    def certain(inputs: Tensor) -> Tensor:
        return torch.tensor([[-1e4, 1e4]]).repeat(len(inputs), 1)

    (figures,) = measured(certain, ROW, [ExplainedScore(0, None, descending())], "drop")
    assert figures["drop"] == Faithfulness(None, None, None)


def test_scores_that_are_not_finite_are_an_error_of_their_photo_alone() -> None:
    def network(inputs: Tensor) -> Tensor:
        # NaN where a picture is all zeros, as the end of deletion is.
        mean = inputs.mean(dim=(1, 2, 3))
        return torch.stack([mean / mean, torch.zeros_like(mean)], 1)

    score = ExplainedScore(0, None, descending())
    photos = [
        MeasuredPhoto(ROW, network(ROW[None]), [score], (1, 3), metrics, seed=0)
        for metrics in (("drop",), ("deletion",), ("drop",))
    ]
    first, second, third = measure_faithfulness(photos, network, 4, RULE)
    assert isinstance(second, RequestError)
    assert second.code == "non_finite_scores"
    assert first == third
    assert isinstance(first, list)


@pytest.mark.parametrize(
    ("metrics", "one", "two"),
    [
        (("drop",), 3, 4),
        (("drop", "increase"), 3, 4),
        (("insertion",), 16, 21),
        (("deletion",), 16, 21),
        (("road",), 24, 32),
        (METRICS, 59, 78),
        ((), 0, 0),
    ],
)
def test_the_forwards_are_counted_as_they_are_run(
    metrics: tuple[FaithfulnessMetric, ...], one: int, two: int
) -> None:
    assert forward_count(metrics, 0) == 0
    sizes: list[int] = []

    def network(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        logits: Tensor = TwoClasses()(inputs)
        return logits

    for targets, expected in ((1, one), (2, two)):
        assert forward_count(metrics, targets) == expected
    for targets, expected in ((1, one), (2, two)):
        if not metrics:
            continue
        sizes.clear()
        scores = [ExplainedScore(0, None, descending())] * targets
        measured(network, ROW, scores, *metrics)
        # The first is that of the whole photo; all but the last batch are full.
        assert sum(sizes[1:]) == expected
        assert set(sizes[1:-1]) <= {8}


def test_photos_share_batches_and_are_measured_as_each_alone() -> None:
    network, picture = with_batchnorm_statistics("resnet18", 10), photo()[0]
    scores = [ExplainedScore(3, None, torch.rand(224, 224, generator=torch.Generator()))]
    requests: list[Any] = [
        MeasuredPhoto(shown, network(shown[None]).detach(), scores, (7, 7), metrics, seed=seed)
        for seed, (shown, metrics) in enumerate(
            [(picture, ("drop", "road")), (picture.flip(2), ("deletion",)), (-picture, METRICS)]
        )
    ]
    with torch.no_grad():
        together = measure_faithfulness(requests, network, 7, RULE)
        for request, figures in zip(requests, together, strict=True):
            (alone,) = measure_faithfulness([request], network, 3, RULE)
            assert isinstance(alone, list)
            assert isinstance(figures, list)
            for name, figure in figures[0].items():
                assert figure.value == pytest.approx(alone[0][name].value, abs=1e-5)


# Of pytorch-grad-cam's imputer, which asks NumPy for the places in a tensor.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("class_id", [0, 3, 7])
def test_drop_increase_and_road_equal_pytorch_grad_cams(
    monkeypatch: pytest.MonkeyPatch, class_id: int
) -> None:
    monkeypatch.setattr(imputation, "NOISE", 0)
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", (0, None))
    network, picture = with_batchnorm_statistics("resnet18", 10), photo()
    # Values that are all different, so that no pixels tie at a threshold.
    map = torch.rand(7, 7, generator=torch.Generator().manual_seed(class_id))
    cams = nn.functional.interpolate(map[None, None], (224, 224), mode="bilinear")[0]
    (figures,) = measured(
        network, picture[0], [ExplainedScore(class_id, None, cams[0])], "drop", "increase", "road"
    )
    targets = [ClassifierOutputSoftmaxTarget(class_id)]
    with torch.no_grad():
        full = float(network(picture).softmax(1)[0, class_id])
    arguments = (picture, cams.numpy(), targets, network)
    drop = float(DropInConfidence()(*arguments)[0])
    assert figures["drop"].value == pytest.approx(drop / full, abs=1e-5)
    assert figures["increase"].value == float(IncreaseInConfidence()(*arguments)[0])
    expected = float(road.ROADCombined([20, 40, 60, 80])(*arguments)[0])
    assert abs(expected) > 1e-4
    assert figures["road"].value == pytest.approx(expected, abs=2e-4)
