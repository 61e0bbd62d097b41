"""Finds the torchvision classifier that weights are of, by their tensors' names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Size
from torchvision import models

from camserve_cli.packaging.tensor_names import matches

#: Names of these differ from torchvision's own in the number of classes alone.
_CLASSES = 1000


def torchvision_name_of(given: Mapping[str, Size], arch: str) -> str:
    """The torchvision classifier that weights are of, or an empty text.

    Args:
        given: the shapes of the weights' tensors, by name.
        arch: the architecture that they do not fit.
    """
    parts = {part for name in given for part in name.split(".")}
    names = sorted(models.list_models(module=models), key=_family)
    for _, family in groupby(names, _family):
        first, *others = family
        shapes = _shapes(first)
        # Families differ in the names of their parts; building all of them would take long.
        if not {name.partition(".")[0] for name in shapes} <= parts:
            continue
        for name in (first, *others):
            if name != arch.lower() and _is_of(_shapes(name), given):
                return str(name)
    return ""


def _family(name: str) -> str:
    """The beginning of a name, without its size: ``resnet18`` is of ``resnet``."""
    found = re.match(r"[a-z_]+(?:_v\d)?", name)
    return found[0] if found else name


def _shapes(name: str) -> dict[str, Size]:
    """The shapes of a torchvision classifier's tensors; empty where building it needs values."""
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        with torch.device("meta"):
            network = models.get_model(name, weights=None, **quick)
    except NotImplementedError:
        # RegNet computes with its tensors while it is built.
        return {}
    return {key: value.shape for key, value in network.state_dict().items()}


def _is_of(expected: Mapping[str, Size], given: Mapping[str, Size]) -> bool:
    """Whether names and shapes are the same but for the number of classes."""
    if not expected:
        return False
    for match in matches(expected, given, shapes=False):
        different = [
            (expected[new], given[old])
            for new, old in match.names.items()
            if expected[new] != given[old]
        ]
        if all(own[0] == _CLASSES and own[1:] == other[1:] for own, other in different):
            return True
    return False
