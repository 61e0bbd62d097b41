"""Insertion and deletion beside Quantus', which runs in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from camserve.explain import (
    DecisionRule,
    ExplainedScore,
    MeasuredPhoto,
    masking,
    measure_faithfulness,
)
from camserve.explain.faithfulness import CURVE_STEPS
from devtools.benchmark.quantus import (
    PixelFlipping,
    QuantusProcess,
    build_environment,
    running_quantus,
)
from tests.support.small_networks import photo, with_batchnorm_statistics

pytestmark = pytest.mark.env
SIDE = 60


@pytest.fixture(scope="module")
def quantus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuantusProcess]:
    folder = tmp_path_factory.mktemp("quantus")
    with running_quantus(build_environment(folder / "environment"), folder) as process:
        yield process


@pytest.mark.parametrize("class_id", [0, 4, 9])
def test_insertion_and_deletion_equal_quantuss(quantus: QuantusProcess, class_id: int) -> None:
    # One channel: Quantus hides channels one by one, so that a step may end within a pixel.
    network = with_batchnorm_statistics("resnet18", 10)
    colour = network.get_submodule("conv1")
    assert isinstance(colour, nn.Conv2d)
    grey = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    grey.weight.data = colour.weight.data.sum(1, keepdim=True)
    network.conv1 = grey
    picture = photo()[:, :1, 40 : 40 + SIDE, 60 : 60 + SIDE].contiguous()
    # Values that are all different: Quantus sorts equal ones in no particular order.
    map = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(class_id))
    with torch.no_grad():
        logits = network(picture)
        (figures,) = measure_faithfulness(
            [
                MeasuredPhoto(
                    picture[0],
                    logits,
                    [ExplainedScore(class_id, None, map[0])],
                    (5, 5),
                    ("insertion", "deletion"),
                    seed=0,
                )
            ],
            network,
            8,
            DecisionRule(),
        )
        full = float(logits.softmax(1)[0, class_id])
    assert isinstance(figures, list)
    step = SIDE * SIDE // CURVE_STEPS
    for metric, insertion, substrate in (
        ("deletion", False, torch.zeros_like(picture)),
        ("insertion", True, masking.blur(picture[0]).unsqueeze(0)),
    ):
        flipping = PixelFlipping(network, picture, map, class_id, substrate, insertion)
        (curve,), _ = quantus.measure(flipping, step)
        assert np.ptp(curve) > 1e-3
        # Quantus' curve begins after the first step.
        expected = np.trapezoid([full, *curve], dx=1 / CURVE_STEPS)
        assert figures[0][metric].value == pytest.approx(expected, abs=1e-5)  # type: ignore[index]
