"""Finds the torchvision classifier that weights are of, by their tensors' names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Size
from torchvision import models

from camserve_cli.packaging.tensor_names import matches

#: Of torchvision's own weights; others differ from them in it alone.
_CLASSES: Final = 1000
#: The beginnings of torchvision's names, and parts that the names of their tensors have. To build
#: every classifier takes ten seconds.
_FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "alexnet": frozenset({"features", "classifier"}),
    "convnext": frozenset({"features", "layer_scale"}),
    "densenet": frozenset({"features", "denseblock1"}),
    "efficientnet": frozenset({"features", "block", "classifier"}),
    "googlenet": frozenset({"inception3a"}),
    "inception": frozenset({"Mixed_5b"}),
    "maxvit": frozenset({"stem", "blocks"}),
    "mnasnet": frozenset({"layers", "classifier"}),
    "mobilenet_v2": frozenset({"features", "conv"}),
    "mobilenet_v3": frozenset({"features", "block", "classifier"}),
    "resnet": frozenset({"layer4", "fc"}),
    "resnext": frozenset({"layer4", "fc"}),
    "shufflenet": frozenset({"stage2", "branch2"}),
    "squeezenet": frozenset({"features", "squeeze"}),
    "swin": frozenset({"features", "attn", "head"}),
    "vgg": frozenset({"features", "classifier"}),
    "vit": frozenset({"encoder", "conv_proj"}),
    "wide_resnet": frozenset({"layer4", "fc"}),
}


def torchvision_name_of(given: Mapping[str, Size], arch: str) -> str:
    """The torchvision classifier that weights are of, or an empty text.

    Args:
        given: the shapes of the weights' tensors, by name.
        arch: the architecture that they do not fit.
    """
    parts = {part for name in given for part in name.split(".")}
    for name in models.list_models(module=models):
        markers = next((m for start, m in _FAMILIES.items() if name.startswith(start)), None)
        if markers is None or not markers <= parts or name == arch.lower():
            continue
        if _is_of(_shapes(name), given):
            return str(name)
    return ""


def _shapes(name: str) -> dict[str, Size]:
    """The shapes of a torchvision classifier's tensors, by name."""
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        network = models.get_model(name, weights=None, **quick)
    return {key: value.shape for key, value in network.state_dict().items()}


def _is_of(expected: Mapping[str, Size], given: Mapping[str, Size]) -> bool:
    """Whether names and shapes are the same but for the number of classes."""
    for match in matches(expected, given, shapes=False):
        different = [
            (expected[new], given[old])
            for new, old in match.names.items()
            if expected[new] != given[old]
        ]
        if all(own[0] == _CLASSES and own[1:] == other[1:] for own, other in different):
            return True
    return False
