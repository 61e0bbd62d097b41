"""Photos with a part hidden."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer  # type: ignore[import-untyped]
from torch import Tensor

from camserve.explain import imputation, masking
from tests.support.small_networks import photo


def upsampled(cells: int, seed: int, side: int = 224) -> Tensor:
    map = np.random.default_rng(seed).random((cells, cells)).astype(np.float32)
    return torch.from_numpy(cv2.resize(map, (side, side)))


def test_the_pixels_of_highest_value_come_first() -> None:
    map = torch.tensor([[0.2, 0.9], [0.5, 0.9]])
    order = masking.pixel_order(map)
    assert order.tolist() == [1, 3, 2, 0]
    assert masking.top_pixels(order, 0.5, (2, 2)).tolist() == [[False, True], [False, True]]
    assert not masking.top_pixels(order, 0, (2, 2)).any()
    assert masking.top_pixels(order, 1, (2, 2)).all()


def test_pixels_are_deleted_and_inserted() -> None:
    picture = torch.arange(1.0, 9.0).view(2, 2, 2)
    hidden = torch.tensor([[True, False], [False, False]])
    assert masking.delete_pixels(picture, hidden).tolist() == [
        [[0, 2], [3, 4]],
        [[0, 6], [7, 8]],
    ]
    blurred = torch.full((2, 2, 2), -1.0)
    assert masking.insert_pixels(blurred, picture, hidden).tolist() == [
        [[1, -1], [-1, -1]],
        [[5, -1], [-1, -1]],
    ]


def test_blur_is_opencvs_gaussian() -> None:
    picture = photo()[0]
    expected = cv2.GaussianBlur(
        picture.permute(1, 2, 0).numpy(), (11, 11), 5, borderType=cv2.BORDER_REPLICATE
    )
    assert np.abs(masking.blur(picture).permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_a_plain_picture_stays_as_it_is_when_it_is_blurred_or_imputed() -> None:
    plain = torch.full((3, 20, 30), 0.5)
    assert torch.allclose(masking.blur(plain), plain, atol=1e-6)
    hidden = torch.zeros(1, 20, 30, dtype=torch.bool)
    hidden[:, 5:15, 5:25] = True
    filled = imputation.impute(plain, hidden, torch.Generator().manual_seed(0))
    assert torch.equal(filled[0][:, ~hidden[0]], plain[:, ~hidden[0]])
    noise = (filled[0] - plain)[:, hidden[0]]
    assert 0.009 < float(noise.std()) < 0.011
    assert abs(float(noise.mean())) < 0.002


# Of pytorch-grad-cam's imputer, which asks NumPy for the places in a tensor.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("cells", [2, 7, 24])
@pytest.mark.parametrize("share", [0.2, 0.8])
@pytest.mark.parametrize("side", [61, 224])
def test_imputation_equals_a_direct_solver(
    monkeypatch: pytest.MonkeyPatch, cells: int, share: float, side: int
) -> None:
    monkeypatch.setattr(imputation, "NOISE", 0)
    picture = photo()[0][:, :side, :side]
    order = masking.pixel_order(upsampled(cells, seed=cells, side=side))
    hidden = masking.top_pixels(order, share, (side, side))
    expected = NoisyLinearImputer(noise=0)(picture, (~hidden).float())
    filled = imputation.impute(picture, hidden.unsqueeze(0), torch.Generator())[0]
    # A tenth of the noise.
    assert float((filled - expected).abs().max()) < 1e-3
    assert float((expected - picture).abs().max()) > 0.1


def test_several_masks_are_imputed_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imputation, "NOISE", 0)
    picture = photo()[0]
    order = masking.pixel_order(upsampled(7, seed=1))
    hidden = torch.stack([masking.top_pixels(order, share, (224, 224)) for share in (0.3, 0.6)])
    together = imputation.impute(picture, hidden, torch.Generator())
    for mask, filled in zip(hidden, together, strict=True):
        (alone,) = imputation.impute(picture, mask.unsqueeze(0), torch.Generator())
        assert float((alone - filled).abs().max()) < 1e-3
