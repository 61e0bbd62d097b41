"""Networks for the maths to be tried on, and what they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import cv2
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from camserve.explain import backward, hooks
from camserve.networks import Network, build
from camserve.pipeline import Pipeline
from camserve.preprocess_settings import InputSize
from camserve_cli.sample_photos import sample_photo


@cache
def photo() -> Tensor:
    """The head of a cat, (1, 3, 224, 224), as EfficientNet-Lite0 wants it."""
    photo = cv2.imread(str(sample_photo("chelsea.png")), cv2.IMREAD_COLOR_RGB)
    assert photo is not None
    pixels = cv2.resize(photo[:, 75:375], (224, 224), interpolation=cv2.INTER_AREA)
    return (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.498) / 0.502


def with_batchnorm_statistics(arch: str, classes: int = 1000) -> nn.Module:
    """A seeded torchvision network whose batch norms have seen noise: its maps are not constant."""
    torch.manual_seed(0)
    network = build(arch, {}, classes)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


@contextmanager
def forward_hook(pipeline: Pipeline, hook: Callable[..., Any]) -> Iterator[None]:
    """A forward hook on whatever network a pass goes through."""
    with ExitStack() as hooks:
        for way in pipeline.forward_paths:
            hooks.callback(way.network.register_forward_hook(hook).remove)
        yield


def one_hot(scores: hooks.ForwardOutput, classes: Sequence[int]) -> Tensor:
    """(M, C): the weights of single classes' scores."""
    found = F.one_hot(torch.tensor(classes, dtype=torch.long), scores.logits.shape[1])
    return found.to(scores.logits.dtype)


def gradients_of(
    scores: hooks.ForwardOutput, samples: Sequence[int], classes: Sequence[int]
) -> dict[str, Tensor]:
    """By layer, the gradients of one class's score of each sample."""
    wanted = [list(scores.activations)] * len(samples)
    weights = one_hot(scores, classes)
    ((indices, gradients),) = backward.score_gradients(scores, samples, weights, wanted)
    assert indices == list(range(len(samples)))
    return gradients


class Squares(nn.Module):
    """Two channels as they come in; scores from the sums of their squares. A gradient to work out.

    ``after`` stands at the head's beginning, ``before`` at the trunk's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Identity(), nn.Identity()
        self.pick = nn.Conv2d(3, 2, 1, bias=False)
        self.unused = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(2, 3, bias=False)
        self.pick.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).view(2, 3, 1, 1)
        self.fc.weight.data = torch.tensor([[1.0, -1], [-1, 2], [0, 3]])
        self.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.unused(inputs)
        channels = self.after(self.pick(self.before(inputs)))
        scores: Tensor = self.fc(channels.square().sum(dim=(2, 3)))
        return scores


# The third channel is picked by none.
GRIDS = torch.tensor([[[[1, 2], [3, 4]], [[0, 1], [-1, 2]], [[9, 9], [9, 9]]]]).double()
LOGITS = [24, -18, 18]  # the sums of squares are 30 and 6
# Of each class: the gradient 2 w_k A^k of both channels, the map, its peak.
BY_HAND = [
    # alpha 5 and -1: 5 A - B = [[5, 9], [16, 18]]
    ([[[2, 4], [6, 8]], [[0, -2], [2, -4]]], [[0, 4 / 13], [11 / 13, 1]], 18),
    # alpha -5 and 2: -5 A + 2 B = [[-5, -8], [-17, -16]], nowhere positive
    ([[[-2, -4], [-6, -8]], [[0, 4], [-4, 8]]], [[0, 0], [0, 0]], 0),
    # alpha 0 and 3: 3 B = [[0, 3], [-3, 6]]
    ([[[0, 0], [0, 0]], [[0, 6], [-6, 12]]], [[0, 0.5], [0, 1]], 6),
]


def hooks_of(network: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()
    )


def pictures(side: int | InputSize) -> tuple[Tensor, Tensor]:
    """Two pictures (1, 3, H, W) as a network is tried on when it is loaded."""
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.25)
    network = Network(nn.Identity(), None, "", mean, std, torch.device("cpu"))  # type: ignore[arg-type]
    size = InputSize(side, side) if isinstance(side, int) else side
    return network.example(size), network.example(size, seed=1)
