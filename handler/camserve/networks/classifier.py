"""Loads a classifier from an archive's files, and normalises its input."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from camserve.errors import SettingsError, describe_exception
from camserve.networks.architectures import build, set_eval
from camserve.networks.labels import Labels
from camserve.networks.model_libraries import check_requirements
from camserve.preprocess_settings import InputSize
from camserve.settings import Settings, score_count


@dataclass(frozen=True)
class Network:
    """A classifier that is ready to serve.

    Attributes:
        module: in eval mode, on ``device``; (N, channels, H, W) normalised input -> (N, C) logits.
        labels: the names of its C classes.
        sha256: of the weights' file, in hexadecimal.
        mean, std: (3,), R, G and B, or (1,), grey, for values in ``value_range``.
        device: of the module and its input.
        memory_format: of the module's weights and its input.
        value_range: what the pixels 0 and 255 become before they are normalised.
    """

    module: nn.Module
    labels: Labels
    sha256: str
    mean: Tensor
    std: Tensor
    device: torch.device
    memory_format: torch.memory_format = torch.channels_last
    value_range: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def load(cls, settings: Settings, directory: Path, device: torch.device) -> Network:
        """Build the network from an archive's files.

        Args:
            settings: name the architecture, the files, and the preprocessing.
            directory: of the unpacked archive.
            device: to run the network on.

        Raises:
            SettingsError: the architecture is unknown, a package that it needs is missing, or
                weights or labels do not fit it.
        """
        check_requirements(settings.requires)
        labels = Labels.load(directory / settings.labels)
        module = build(settings.arch, settings.arch_kwargs, score_count(settings.task, len(labels)))
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
            # safetensors, unlike a pickle, cannot contain code.
            state_dict = load_file(weights)
        except (OSError, SafetensorError) as failure:
            raise SettingsError(f"{misfit}: {failure}") from None
        try:
            module.load_state_dict(_with_versions(state_dict, module))
        except Exception as failure:
            # A module may override load_state_dict and raise any exception.
            reason = _state_dict_differences(module, state_dict) or describe_exception(failure)
            raise SettingsError(f"{misfit}: {reason}") from None
        set_eval(module)
        mean = torch.tensor(settings.preprocess.mean, device=device)
        std = torch.tensor(settings.preprocess.std, device=device)
        network = cls(
            module.to(device),
            labels,
            sha256,
            mean,
            std,
            device,
            value_range=settings.preprocess.range,
        )
        return network._in_fastest_format(settings.preprocess.input_size)

    def _in_fastest_format(self, size: InputSize) -> Network:
        """The network in channels-last memory format where it runs in it.

        It does not where it calls ``view`` on its activations, or has weights of five axes.
        """
        try:
            self.module.to(memory_format=torch.channels_last)
            with torch.no_grad():
                self.module(self.example(size))
        except Exception:
            # An error of any other kind is raised again, and reported, by check_network.
            self.module.to(memory_format=torch.contiguous_format)
            return replace(self, memory_format=torch.contiguous_format)
        return self

    def normalise(self, crops: NDArray[np.uint8]) -> Tensor:
        """Scale pixels to ``value_range`` and normalise them per channel.

        Args:
            crops: (N, H, W, 3) RGB or (N, H, W, 1) grey, 0 to 255.

        Returns:
            (N, channels, H, W), float32, on the network's device and in its memory format.
        """
        pixels = torch.from_numpy(crops).to(self.device)
        # The constants are repeated for a row of pixels: broadcast from three channels, PyTorch
        # would vectorize over three numbers at a time.
        low, high = self.value_range
        mean, std = (self.mean - low).repeat(pixels.shape[2]), self.std.repeat(pixels.shape[2])
        rows = pixels.flatten(2).float().div_(255 / (high - low)).sub_(mean).div_(std)
        values = rows.view(pixels.shape).permute(0, 3, 1, 2)
        return values.contiguous(memory_format=self.memory_format)

    def example(self, size: InputSize, seed: int = 0) -> Tensor:
        """A normalised input (1, channels, H, W) of seeded noise, on the network's device.

        The noise has detail of all sizes, like a photo, with larger detail stronger. So the
        network's activations are typical, which those for white noise or a plain colour are not.
        """
        generator = torch.Generator().manual_seed(seed)
        octaves = [
            F.interpolate(
                torch.rand(1, len(self.mean), cells, cells, generator=generator),
                size,
                mode="bilinear",
            )
            for cells in (2, 4, 8, 16, 32, 64)
        ]
        weights = [2.0**-n for n in range(len(octaves))]
        picture = sum(weight * octave for weight, octave in zip(weights, octaves, strict=True))
        pixels = (cast(Tensor, picture) * (255 / sum(weights))).byte()
        return self.normalise(pixels.permute(0, 2, 3, 1).numpy())


def _with_versions(state_dict: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:
    """A state dict with the versions of the modules that saved it, which safetensors cannot hold.

    Packaging stores what the module itself saves. Without versions, a module that has changed since
    its first one, as MNASNet, would convert it. A state dict of other names or shapes is of an
    archive from before that, and has none.
    """
    expected = module.state_dict()
    versions = getattr(expected, "_metadata", None)
    if versions is None or {name: value.shape for name, value in state_dict.items()} != {
        name: getattr(value, "shape", None) for name, value in expected.items()
    }:
        return state_dict
    versioned = OrderedDict(state_dict)
    versioned._metadata = versions  # type: ignore[attr-defined]
    return versioned


def _state_dict_differences(module: nn.Module, state_dict: Mapping[str, Tensor]) -> str:
    """How a state dict differs from a module's, with the first few names of each kind.

    Empty where it does not: then something else kept it from being loaded.
    """
    expected = module.state_dict()
    shapes = [
        f'"{name}" is {tuple(state_dict[name].shape)} instead of {tuple(value.shape)}'
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    differences = {
        "Wrong size of": shapes,
        "Missing key": [f'"{name}"' for name in expected if name not in state_dict],
        "Unexpected key": [f'"{name}"' for name in state_dict if name not in expected],
    }
    return "; ".join(
        f"{kind} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in differences.items()
        if names
    )
