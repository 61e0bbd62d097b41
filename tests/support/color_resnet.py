"""A ResNet50 whose answers are known by construction, and the photos to ask it about.

Its class is the colour that covers most of the photo; its ``layer4[-1]`` map is that colour's
place. All weights are zero but these: ``conv1``'s channel k is a 7x7 box filter along colour k's
direction, every ``downsample`` hands channel k on, ``fc`` picks it. So the residual branches add
nothing, and a channel survives from the first layer to the last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torchvision import models

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])

#: Class names and RGB values, in index order.
COLOR_VALUES: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
LABELS = list(COLOR_VALUES)
#: Keyword arguments that make the residual branches, which add nothing, an eighth as wide: the
#: network answers the same at a fraction of its cost.
NARROW = {"width_per_group": 8}
GREY = (128, 128, 128)


@torch.no_grad()
def colour_resnet50(**kwargs: Any) -> nn.Module:
    """The network, in eval mode; its input is normalised with ImageNet's mean and deviation.

    Keyword arguments are torchvision's.
    """
    network: Any = models.resnet50(num_classes=len(COLOR_VALUES), **kwargs).eval()
    for parameter in network.parameters():
        parameter.zero_()
    for k, rgb in enumerate(COLOR_VALUES.values()):
        colour = torch.tensor(rgb) / 255
        # No share of grey: the direction sums to zero.
        direction = colour - colour.mean()
        network.conv1.weight[k] = (direction * STD).view(3, 1, 1).expand(3, 7, 7) / 49
        network.bn1.bias[k] = direction @ MEAN
        network.fc.weight[k, k] = 1
    network.bn1.weight.fill_(1)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        convolution, norm = layer[0].downsample
        for k in range(len(COLOR_VALUES)):
            convolution.weight[k, k] = 1
        norm.weight.fill_(1)
    built: nn.Module = network
    return built


def photo(
    *discs: tuple[str, tuple[int, int], int], width: int = 320, height: int = 240
) -> NDArray[np.uint8]:
    """Discs of (colour, (x, y), radius) on grey; (height, width, 3) RGB."""
    canvas = np.full((height, width, 3), GREY, np.uint8)
    for colour, centre, radius in discs:
        cv2.circle(canvas, centre, radius, COLOR_VALUES[colour], -1)
    return canvas


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(h, w, 3) RGB -> PNG bytes."""
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def write_archive_inputs(directory: Path, **kwargs: Any) -> tuple[Path, Path]:
    """The weights and labels that ``camserve package`` takes: (state dict, labels).

    Keyword arguments are torchvision's.
    """
    weights, labels = directory / "colours.safetensors", directory / "colours.json"
    save_file(colour_resnet50(**kwargs).state_dict(), weights)
    labels.write_text(json.dumps(LABELS))
    return weights, labels


def package_inputs(directory: Path, **kwargs: Any) -> list[str | Path]:
    """Write them; the options of ``camserve package`` for the network that torchvision calls so."""
    weights, labels = write_archive_inputs(directory, **kwargs)
    arch = ("--arch", "resnet50", "--arch-kwargs", json.dumps(kwargs))
    return [*arch, "--weights", weights, "--labels", labels]
