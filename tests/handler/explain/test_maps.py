"""Normalised maps: by hand, and the same in a batch as alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from camserve.explain import HookedNetwork, methods
from camserve.explain.maps import Maps, normalise_maps
from camserve.networks import GridLayout
from tests.support.small_networks import (
    BY_HAND,
    GRIDS,
    LOGITS,
    Squares,
    gradients_of,
    photo,
    with_batchnorm_statistics,
)


def maps_of(hooked: HookedNetwork, name: str, inputs: Tensor, classes: Sequence[int]) -> Maps:
    """The map of class ``classes[n]`` for input ``n``."""
    output = hooked.forward(inputs, [name])
    gradients = gradients_of(output, range(len(classes)), classes)
    activations = output.activations[name].detach()
    return normalise_maps(methods.gradcam(activations, gradients[name]))


@pytest.mark.parametrize("classes", [[0], [1], [2], [0, 1, 2], [2, 0]])
def test_a_map_is_the_one_worked_out_by_hand(classes: list[int]) -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    output = hooked.forward(GRIDS.expand(3, -1, -1, -1), ["pick"])
    assert hooked.layouts == {"pick": GridLayout("grid", 2, 2, 2)}
    assert output.logits.tolist() == [LOGITS] * 3

    gradients = gradients_of(output, range(len(classes)), classes)["pick"]
    activations = output.activations["pick"][: len(classes)].detach()
    maps = normalise_maps(methods.gradcam(activations, gradients))

    expected = [BY_HAND[c] for c in classes]
    assert gradients.tolist() == [gradient for gradient, _, _ in expected]
    assert maps.peak.tolist() == [peak for _, _, peak in expected]
    assert maps.evidence.tolist() == [peak > 0 for _, _, peak in expected]
    assert maps.values.dtype == torch.float64
    values = torch.tensor([values for _, values, _ in expected], dtype=torch.float64)
    assert_close(maps.values, values, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("raw", "values", "evidence"),
    [
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], False),
        ([[3, 3], [3, 3]], [[0, 0], [0, 0]], False),
        ([[7]], [[0]], False),
        ([[1, 3], [2, 5]], [[0, 0.5], [0.25, 1]], True),
        ([[0, 1e-30], [2e-30, 0]], [[0, 0.5], [1, 0]], True),
        ([[0, 1e-44], [0, 0]], [[0, 1], [0, 0]], True),
        ([[0, 1e38], [3e38, 2e38]], [[0, 1 / 3], [1, 2 / 3]], True),
        ([[1e38, 1e38], [1e38, 1e38]], [[0, 0], [0, 0]], False),
    ],
)
def test_normalisation_scales_a_map_to_0_to_1(
    raw: list[list[float]], values: list[list[float]], evidence: bool
) -> None:
    single = torch.tensor([raw], dtype=torch.float32)
    maps = normalise_maps(single)
    assert_close(maps.values, torch.tensor([values], dtype=torch.float32), rtol=0, atol=1e-6)
    assert maps.evidence.tolist() == [evidence]
    assert maps.peak.tolist() == [single.max().item()]


def test_normalisation_is_per_map_and_never_over_the_batch() -> None:
    grid = torch.tensor([[1.0, 2], [3, 5]])
    maps = normalise_maps(torch.stack([grid, 1e6 * grid, torch.zeros(2, 2), 1e-20 * grid]))
    expected = torch.tensor([[0, 0.25], [0.5, 1]])
    assert_close(maps.values, torch.stack([expected, expected, torch.zeros(2, 2), expected]))
    assert maps.evidence.tolist() == [True, True, False, True]
    assert_close(maps.peak, torch.tensor([5, 5e6, 0, 5e-20]), rtol=1e-6, atol=0)


def test_a_photos_map_does_not_depend_on_its_batch() -> None:
    cat = photo()
    hooked = HookedNetwork(with_batchnorm_statistics("resnet18"), ["layer4.1"], cat)
    torch.manual_seed(1)
    inputs = torch.cat([cat, cat.flip(3), cat.roll(60, 2), -cat, torch.randn_like(cat)])
    logits = hooked.forward(inputs, ["layer4.1"]).logits
    classes = logits.argsort(descending=True)[:, :5].diagonal().tolist()

    batch = maps_of(hooked, "layer4.1", inputs, classes)
    single = [maps_of(hooked, "layer4.1", inputs[n : n + 1], classes[n : n + 1]) for n in range(5)]

    assert batch.evidence.all()
    assert len(set(classes)) > 1
    assert_close(batch.values, torch.cat([m.values for m in single]), rtol=0, atol=1e-5)
    assert_close(batch.peak, torch.cat([m.peak for m in single]), rtol=1e-5, atol=0)
