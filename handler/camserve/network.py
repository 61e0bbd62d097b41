"""The classifier: architecture, weights, labels and the normalisation of its input."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from camserve.errors import RequestError, SettingsError, shown
from camserve.options import PREDICTED
from camserve.settings import Preprocess, Settings


class Labels:
    """The classes' names, by index.

    Args:
        names: one for each class; a name may stand for several, as "crane" does, bird and machine,
            in some lists of ImageNet's.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._indices: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self._indices.setdefault(name, []).append(index)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def resolve(self, target: int | str) -> int | None:
        """The class index that a request's target names; None for the predicted class.

        Raises:
            RequestError: ``unknown_class``: out of range, no such label, or a label of several
                classes.
        """
        if target == PREDICTED:
            return None
        if isinstance(target, int):
            if target < len(self):
                return target
            raise RequestError(
                "unknown_class",
                f"target {shown(target)} is no class index; accepted: 0 to {len(self) - 1}, an "
                f"exact label, or {PREDICTED!r}",
            )
        indices = self._indices.get(target, [])
        if len(indices) == 1:
            return indices[0]
        if indices:
            raise RequestError(
                "unknown_class",
                f"label {shown(target)} stands for the classes {', '.join(map(str, indices))}; "
                "accepted: one of these indices",
            )
        # No label is that long, and the search for near ones takes its time.
        nearest = difflib.get_close_matches(target[:100], self._indices, n=3)
        hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise RequestError(
            "unknown_class",
            f"target {shown(target)} is no label{hint}; accepted: an exact label, a class index "
            f"from 0 to {len(self) - 1}, or {PREDICTED!r}",
        )

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read a JSON list of names, or TorchServe's index_to_name.json.

        Raises:
            SettingsError: the file is missing or of another form.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as failure:
            raise SettingsError(f"labels {path.name}: {failure}") from None
        if isinstance(content, dict):
            content = _by_index(content, path.name)
        if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
            raise SettingsError(
                f'labels {path.name}: accepted are a JSON list of names, or {{"0": "name", ..}}'
            )
        if not content:
            raise SettingsError(f"labels {path.name}: no label in it")
        return cls(tuple(content))


def _by_index(content: Mapping[str, Any], name: str) -> list[Any]:
    """TorchServe's form: index -> label, or index -> [.., label] as its ImageNet file has it."""
    labels = []
    for index in map(str, range(len(content))):
        if index not in content:
            raise SettingsError(f"labels {name}: the keys must be 0 to {len(content) - 1}")
        label = content[index]
        labels.append(label[-1] if isinstance(label, list) and label else label)
    return labels


@dataclass(frozen=True)
class Network:
    """A classifier ready to serve.

    Attributes:
        module: in eval mode, on ``device``; (N, 3, H, W) normalised input -> (N, C) logits.
        labels: of its C classes.
        mean, std: (1, 3, 1, 1), for values in [0, 1].
        device: where it runs.
    """

    module: nn.Module
    labels: Labels
    mean: Tensor
    std: Tensor
    device: torch.device

    @classmethod
    def load(cls, settings: Settings, directory: Path, device: torch.device) -> Network:
        """Build the network from an archive's files.

        Raises:
            SettingsError: the architecture is unknown, or weights or labels do not fit it.
        """
        labels = Labels.load(directory / settings.labels)
        module = build(settings.arch, settings.arch_kwargs, len(labels))
        try:
            state = load_file(directory / settings.weights)
            module.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError) as failure:
            raise SettingsError(
                f"weights {settings.weights} do not fit {settings.arch} with {len(labels)} "
                f"classes: {failure}"
            ) from None
        module = module.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean, std = _constants(settings.preprocess, device)
        return cls(module, labels, mean, std, device)

    def normalise(self, crops: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) RGB, 0 to 255 -> (N, 3, H, W) as the weights want it, on the device."""
        pixels = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        return (pixels.float() / 255 - self.mean) / self.std


def build(arch: str, kwargs: Mapping[str, Any], classes: int) -> nn.Module:
    """A network of that architecture with whatever weights its constructor gives it.

    Args:
        arch: the name of a torchvision classifier, built with ``classes`` classes, or
            ``module:callable``, called with ``kwargs`` alone.

    Raises:
        SettingsError: there is no such architecture, or it cannot be built.
    """
    module_name, colon, attribute = arch.partition(":")
    try:
        if not colon:
            network = models.get_model(arch, weights=None, **{"num_classes": classes, **kwargs})
        else:
            constructor: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                constructor = getattr(constructor, part)
            network = constructor(**kwargs)
    except Exception as failure:
        # Whatever an architecture's constructor raises.
        raise SettingsError(f"arch {arch!r} cannot be built: {failure}") from None
    if not isinstance(network, nn.Module):
        raise SettingsError(f"arch {arch!r} gives {type(network).__name__}, not a torch module")
    return network


def _constants(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    return mean, std
