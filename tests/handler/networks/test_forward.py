"""A network that fails on its first photo: the message has the setting that fits it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks import run_network


class _ByIndex(nn.Module):
    """Takes colours apart, as googlenet's transform_input does."""

    def forward(self, photos: Tensor) -> Tensor:
        return torch.stack([photos[:, n].mean((1, 2)) for n in range(3)], 1)


class _Flat(nn.Module):
    """Counts channels only where it counts all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scores = nn.Linear(channels * 8 * 16, 2)

    def forward(self, photos: Tensor) -> Tensor:
        scores: Tensor = self.scores(photos.flatten(1))
        return scores


class _Normalised(nn.Module):
    """Raises an exception of its own."""

    def forward(self, photos: Tensor) -> Tensor:
        if photos.shape[1] != 1:
            raise ValueError("grey photos only")
        return photos.flatten(1)[:, :2]


COLOR = "it runs on 3 channels; accepted: handler.preprocess.channels=3 .* three values each"
GREY = "it runs on 1 channel; accepted: handler.preprocess.channels=1 .* one value each"


@pytest.mark.parametrize(
    ("network", "channels", "message"),
    [
        pytest.param(nn.Conv2d(1, 4, 3), 3, GREY, id="grey-convolution"),
        pytest.param(nn.Conv2d(3, 4, 3), 1, COLOR, id="convolution"),
        pytest.param(nn.BatchNorm2d(3).eval(), 1, COLOR, id="norm"),
        pytest.param(_ByIndex(), 1, COLOR, id="by-index"),
        pytest.param(_Flat(1), 3, GREY, id="flat-grey"),
        pytest.param(_Flat(3), 1, COLOR, id="flat"),
        pytest.param(_Normalised(), 3, GREY, id="own-exception"),
        # Where the other number does not help, it is not named.
        pytest.param(nn.Conv2d(4, 4, 3), 3, r"takes photos \(N, 3, height, width\)", id="four"),
        pytest.param(nn.Conv2d(4, 4, 3), 1, r"takes photos \(N, 1, height, width\)", id="four-1"),
        pytest.param(nn.Linear(9, 2), 3, "handler.preprocess.crop for its input's size", id="size"),
    ],
)
def test_the_number_of_channels_that_it_takes_is_named(
    network: nn.Module, channels: int, message: str
) -> None:
    with pytest.raises(SettingsError, match=f"fails on a batch of shape .*{message}") as refusal:
        run_network(network, torch.zeros(1, channels, 8, 16))
    assert str(refusal.value).count("accepted: ") == 1


def test_a_network_that_takes_the_photos_is_run_once() -> None:
    network = nn.Conv2d(1, 2, 3)
    calls: list[torch.Size] = []
    network.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    assert run_network(network, torch.zeros(2, 1, 8, 16)).shape == (2, 2, 6, 14)
    assert calls == [(2, 1, 8, 16)]
