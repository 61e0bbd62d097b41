"""The layers after which a network only averages and applies one linear layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camserve.networks.layouts import GridLayout
from camserve.networks.linear_head import linear_head_biases

PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Classifier(nn.Module):
    """A convolution, then something, then a mean and a linear layer."""

    def __init__(self, between: nn.Module, after: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.relu = nn.ReLU()
        self.between = between
        self.fc = nn.Linear(8, 5)
        self.after = after

    def forward(self, photos: Tensor) -> Tensor:
        grid = self.between(self.relu(self.conv(photos)))
        scores: Tensor = self.after(self.fc(grid.mean((2, 3))))
        return scores


class PlusInput(Classifier):
    """The scores also depend on the photo by another way."""

    def forward(self, photos: Tensor) -> Tensor:
        return super().forward(photos) + photos.mean()


class ByPlace(Classifier):
    """The mean has weights: the cells cannot change places."""

    def forward(self, photos: Tensor) -> Tensor:
        weights = torch.linspace(0.5, 1.5, 16).view(4, 4)
        scores: Tensor = self.fc((self.relu(self.conv(photos)) * weights).mean((2, 3)))
        return scores


class ChannelsLast(Classifier):
    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.Identity())
        self.last = nn.Identity()

    def forward(self, photos: Tensor) -> Tensor:
        grid = self.last(self.relu(self.conv(photos)).permute(0, 2, 3, 1))
        scores: Tensor = self.fc(grid.mean((1, 2)))
        return scores


GRID = GridLayout("grid", 8, 4, 4)


def biases(network: nn.Module, layer: str, layout: GridLayout = GRID) -> dict[str, Tensor]:
    module = network.get_submodule(layer)
    return linear_head_biases(
        network.eval(), {layer: module}, {layer: layout}, PICTURES[:1], PICTURES[1:]
    )


@pytest.mark.parametrize(
    ("between", "after"),
    [
        (nn.Identity(), nn.Identity()),
        (nn.Dropout(), nn.Identity()),
        (nn.AvgPool2d(2), nn.Identity()),
        (nn.Identity(), nn.Linear(5, 5)),
    ],
)
def test_a_mean_and_a_linear_layer(between: nn.Module, after: nn.Module) -> None:
    network = Classifier(between, after)
    found = biases(network, "relu")
    expected = after(network.fc.bias).detach()
    assert torch.allclose(found["relu"], expected, atol=1e-6)


def test_a_grid_with_channels_last() -> None:
    network = ChannelsLast()
    found = biases(network, "last", GridLayout("channels_last", 8, 4, 4))
    assert torch.allclose(found["last"], network.fc.bias.detach(), atol=1e-6)


OTHERS: dict[str, nn.Module] = {
    "ReLU between": Classifier(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), nn.Identity()),
    "the layer before the ReLU": Classifier(nn.Identity(), nn.Identity()),
    "maximum": Classifier(nn.MaxPool2d(2), nn.Identity()),
    "norm": Classifier(nn.GroupNorm(1, 8), nn.Identity()),
    "softmax": Classifier(nn.Identity(), nn.LogSoftmax(1)),
    "another way": PlusInput(nn.Identity(), nn.Identity()),
    "weights by place": ByPlace(nn.Identity(), nn.Identity()),
    "a threshold": Classifier(nn.Hardshrink(0.1), nn.Identity()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_more_than_that(name: str) -> None:
    layer = "conv" if name == "the layer before the ReLU" else "relu"
    assert biases(OTHERS[name], layer) == {}


def test_tokens_with_a_class_token_are_left_out() -> None:
    network = Classifier(nn.Identity(), nn.Identity())
    assert biases(network, "relu", GridLayout("tokens", 8, 4, 4, prefix=1)) == {}
