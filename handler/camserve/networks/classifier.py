"""The classifier: architecture, weights and the normalisation of its input."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

from camserve.errors import SettingsError, describe_exception
from camserve.networks.labels import Labels
from camserve.settings import Settings


@dataclass(frozen=True)
class Network:
    """A classifier ready to serve.

    Attributes:
        module: in eval mode, on ``device``; (N, 3, H, W) normalised input -> (N, C) logits.
        labels: of its C classes.
        sha256: of its weights' file.
        mean, std: (3,), for values in [0, 1].
        device: where it runs.
        memory_format: how its photos and weights lie in memory.
    """

    module: nn.Module
    labels: Labels
    sha256: str
    mean: Tensor
    std: Tensor
    device: torch.device
    memory_format: torch.memory_format = torch.channels_last

    @classmethod
    def load(cls, settings: Settings, directory: Path, device: torch.device) -> Network:
        """Build the network from an archive's files.

        Raises:
            SettingsError: the architecture is unknown, or weights or labels do not fit it.
        """
        labels = Labels.load(directory / settings.labels)
        module = build(settings.arch, settings.arch_kwargs, len(labels))
        weights = directory / settings.weights
        misfit = f"weights {settings.weights} do not fit {settings.arch} with {len(labels)} classes"
        try:
            with weights.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            if settings.weights_sha256 not in ("", sha256):
                raise SettingsError(
                    f"weights {settings.weights} are not those that were packed: their SHA-256 is "
                    f"{sha256}, and handler.weights_sha256 says {settings.weights_sha256}"
                )
            # A format that holds numbers and no code.
            state = load_file(weights)
        except (OSError, SafetensorError) as failure:
            raise SettingsError(f"{misfit}: {failure}") from None
        try:
            module.load_state_dict(state)
        except Exception as failure:
            # A module may load in its own way, and raise anything.
            reason = _misfit(module, state) or describe_exception(failure)
            raise SettingsError(f"{misfit}: {reason}") from None
        set_eval(module)
        mean = torch.tensor(settings.preprocess.mean, device=device)
        std = torch.tensor(settings.preprocess.std, device=device)
        network = cls(module.to(device), labels, sha256, mean, std, device)
        return network._in_fastest_format(settings.preprocess.crop)

    def _in_fastest_format(self, side: int) -> Network:
        """The network with photos and weights channels last in memory, where it runs that way.

        A network that calls ``view`` on its activations wants them channels first, and weights of
        five axes cannot lie otherwise.
        """
        try:
            self.module.to(memory_format=torch.channels_last)
            with torch.no_grad():
                self.module(self.example(side))
        except Exception:
            # Whatever else is wrong with it shows again, and is told, once it is as it came.
            self.module.to(memory_format=torch.contiguous_format)
            return replace(self, memory_format=torch.contiguous_format)
        return self

    def normalise(self, crops: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) RGB, 0 to 255 -> (N, 3, H, W) as the weights want it, on the device."""
        pixels = torch.from_numpy(crops).to(self.device)
        # Row by row, the constants repeated: with one value for each of a pixel's three channels,
        # PyTorch would take three numbers at a time.
        mean, std = self.mean.repeat(pixels.shape[2]), self.std.repeat(pixels.shape[2])
        rows = pixels.flatten(2).float().div_(255).sub_(mean).div_(std)
        values = rows.view(pixels.shape).permute(0, 3, 1, 2)
        return values.contiguous(memory_format=self.memory_format)

    def example(self, side: int, seed: int = 0) -> Tensor:
        """(1, 3, side, side) input on the device, as much like a photo as seeded noise can be.

        It has detail of every size, larger ones stronger: what a network makes of it is of the kind
        that it makes of photos, which white noise or a plain colour is not.
        """
        noise = torch.Generator().manual_seed(seed)
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
            check_is_classifier(arch)
            network = models.get_model(arch, weights=None, **{"num_classes": classes, **kwargs})
        else:
            constructor: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                constructor = getattr(constructor, part)
            network = constructor(**kwargs)
    except SettingsError:
        raise
    except (Exception, SystemExit) as failure:
        # Whatever somebody's module or constructor raises; a script may end Python.
        raise SettingsError(
            f"arch {arch!r} cannot be built: {describe_exception(failure)}"
        ) from None
    if not isinstance(network, nn.Module):
        raise SettingsError(f"arch {arch!r} gives {type(network).__name__}, not a torch module")
    return network


def set_eval(network: nn.Module) -> None:
    """Put a network into eval mode, also one whose own ``train`` or ``eval`` is something else."""
    try:
        network.eval()
    except Exception:
        # As a train(self, loader) makes of it.
        for module in network.modules():
            module.training = False


def check_is_classifier(arch: str) -> None:
    """Refuse a name that torchvision has no image classifier of, before anything is built.

    Its detection and segmentation networks would download a backbone while they are built.

    Raises:
        SettingsError: the nearest names are listed.
    """
    classifiers = models.list_models(module=models)
    # torchvision itself does not mind capitals.
    if arch.lower() in classifiers:
        return
    if arch.lower() in models.list_models():
        kind = models.get_model_builder(arch).__module__.split(".")[2]
        raise SettingsError(
            f"arch {arch!r} cannot be served: it is of torchvision's {kind} networks; accepted: an "
            "image classifier, as resnet50, or module:callable"
        )
    nearest = difflib.get_close_matches(arch.lower(), classifiers, n=3)
    hint = f"the nearest names: {', '.join(nearest)}" if nearest else "as resnet50"
    raise SettingsError(
        f"arch {arch!r} cannot be built: torchvision has no classifier of that name; accepted: one "
        f"of its names ({hint}), or module:callable"
    )


def _misfit(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """How a state dict differs from the one that a network wants, the first few names of each way.

    Empty where it does not: then something else kept it from being loaded.
    """
    wanted = module.state_dict()
    shapes = [
        f'"{name}" is {tuple(state[name].shape)} rather than {tuple(value.shape)}'
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    differences = {
        "size mismatch for": shapes,
        "Missing key": [f'"{name}"' for name in wanted if name not in state],
        "Unexpected key": [f'"{name}"' for name in state if name not in wanted],
    }
    return "; ".join(
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in differences.items()
        if names
    )
