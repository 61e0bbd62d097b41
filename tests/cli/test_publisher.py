"""An archive's scores beside those of the network as its publisher builds it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models
from torchvision.models import ResNet18_Weights, ResNet50_Weights
from torchvision.transforms.v2.functional import pil_to_tensor

from camserve.settings import Preprocess, Settings
from camserve_cli.packaging import presets, pretrained
from camserve_cli.packaging.check_photos import check_photos
from camserve_cli.packaging.comparison import Comparison
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.publisher import Publisher, compare

PHOTOS = check_photos()


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    """A publisher whose scores are a photo's mean colour."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Publisher("timm", network, lambda photo: pil_to_tensor(photo).float() / 255)


@pytest.mark.parametrize(
    ("factor", "precision"), [(1.0, "float32"), (1.001, "float32"), (1.005, "bfloat16")]
)
def test_rounding_errors_pass_and_are_told(
    publisher: Publisher, factor: float, precision: str
) -> None:
    expected = publisher.scores(PHOTOS, Settings(), 3)
    said = compare("timm", expected, expected * factor, precision, own_preprocess=False)
    assert "on 3 photos the archive's scores differ by" in said


@pytest.mark.parametrize(
    ("spoil", "precision"),
    [
        (lambda scores: scores * 1.05, "float32"),
        (lambda scores: scores.flip(1), "bfloat16"),
        (lambda scores: scores * float("nan"), "float32"),
    ],
)
def test_scores_of_another_network_or_input_are_refused(
    publisher: Publisher, spoil: Callable[[torch.Tensor], torch.Tensor], precision: str
) -> None:
    expected = publisher.scores(PHOTOS, Settings(), 3)
    with pytest.raises(PackageError, match="from those of the publisher's own network"):
        compare("timm", expected, spoil(expected), precision, own_preprocess=False)


def test_with_a_persons_own_settings_a_difference_is_told_alone(publisher: Publisher) -> None:
    expected = publisher.scores(PHOTOS, Settings(), 3)
    said = compare("timm", expected, expected.flip(1), "float32", own_preprocess=True)
    assert "as handler.preprocess is not the publisher's" in said


def test_other_numbers_of_scores_are_not_compared() -> None:
    said = compare("timm", torch.zeros(3, 4), torch.zeros(3, 2), "float32", own_preprocess=False)
    assert "the archive's 2 scores of a photo are not compared" in said


def test_inputs_of_another_size_are_not_compared(publisher: Publisher) -> None:
    settings = Settings.model_validate({"preprocess": {"resize": 64, "crop": [32, 64]}})
    found = Comparison.of(publisher, settings, own_preprocess=True)
    assert (found.publisher, found.photos) == (None, [])
    assert found.notes[0].endswith(
        "are 300 high and 449 wide, and handler.preprocess makes 32 x 64"
    )


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        (Settings(), [[0.5, 0.25, 0.125]]),
        (Settings(output="probabilities"), [[math.log(0.5), math.log(0.25), math.log(0.125)]]),
        (Settings(task="multilabel", output="probabilities"), [[0.0, -math.log(3), -math.log(7)]]),
    ],
)
def test_scores_are_the_logits_of_the_archives_task(
    settings: Settings, scores: list[list[float]]
) -> None:
    publisher = Publisher("timm", nn.Identity(), lambda photo: torch.tensor([0.5, 0.25, 0.125]))
    found = publisher.scores(PHOTOS[:1], settings, 3)
    assert_close(found, torch.tensor(scores), check_dtype=False)


@pytest.mark.parametrize(
    "weights", [ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2]
)
def test_torchvisions_presets_make_the_input_of_its_transforms(weights: ResNet50_Weights) -> None:
    expected = [weights.transforms()(photo) for photo in PHOTOS]
    preprocess = Preprocess(**pretrained.preprocessing(weights))
    assert presets.difference(preprocess, PHOTOS, expected) < 1e-3


def test_torchvision_builds_its_own_network_of_a_file_outside_of_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = models.resnet18().state_dict()
    torch.save(state, tmp_path / "copy.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    # Its file's name holds the digits of the published one's hash, which these weights lack.
    monkeypatch.setattr("torch.hub.HASH_REGEX", re.compile("(no digits)"))
    network = pretrained.published_network(
        "resnet18", ResNet18_Weights.IMAGENET1K_V1, tmp_path / "copy.pth"
    )
    assert_close(dict(network.state_dict()), dict(state))
