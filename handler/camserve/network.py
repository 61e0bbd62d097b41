"""The classifier: architecture, weights and the normalisation of its input."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from camserve.errors import SettingsError
from camserve.settings import Settings
from camserve.targets import Labels


@dataclass(frozen=True)
class Network:
    """A classifier ready to serve.

    Attributes:
        module: in eval mode, on ``device``; (N, 3, H, W) normalised input -> (N, C) logits.
        labels: of its C classes.
        sha256: of its weights' file.
        mean, std: (3,), for values in [0, 1].
        device: where it runs.
    """

    module: nn.Module
    labels: Labels
    sha256: str
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
        weights = directory / settings.weights
        try:
            with weights.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            if settings.weights_sha256 not in ("", sha256):
                raise SettingsError(
                    f"weights {settings.weights} are not those that were packed: their SHA-256 is "
                    f"{sha256}, and handler.weights_sha256 says {settings.weights_sha256}"
                )
            # A format that holds numbers and no code.
            module.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as failure:
            raise SettingsError(
                f"weights {settings.weights} do not fit {settings.arch} with {len(labels)} "
                f"classes: {failure}"
            ) from None
        module = module.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean = torch.tensor(settings.preprocess.mean, device=device)
        std = torch.tensor(settings.preprocess.std, device=device)
        return cls(module, labels, sha256, mean, std, device)

    def normalise(self, crops: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) RGB, 0 to 255 -> (N, 3, H, W) as the weights want it, on the device."""
        pixels = torch.from_numpy(crops).to(self.device)
        # Row by row, the constants repeated: with one value for each of a pixel's three channels,
        # PyTorch would take three numbers at a time.
        mean, std = self.mean.repeat(pixels.shape[2]), self.std.repeat(pixels.shape[2])
        rows = pixels.flatten(2).float().div_(255).sub_(mean).div_(std)
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def example(self, side: int) -> Tensor:
        """(1, 3, side, side) input on the device, as much like a photo as seeded noise can be.

        It has detail of every size, larger ones stronger: what a network makes of it is of the kind
        that it makes of photos, which white noise or a plain colour is not.
        """
        noise = torch.Generator().manual_seed(0)
        octaves = [
            F.interpolate(
                torch.rand(1, 3, cells, cells, generator=noise), (side, side), mode="bilinear"
            )
            for cells in (2, 4, 8, 16, 32, 64)
        ]
        weights = [2.0**-n for n in range(len(octaves))]
        picture = sum(weight * octave for weight, octave in zip(weights, octaves, strict=True))
        pixels = (cast(Tensor, picture) * (255 / sum(weights))).byte()
        return self.normalise(pixels.permute(0, 2, 3, 1).numpy())


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
