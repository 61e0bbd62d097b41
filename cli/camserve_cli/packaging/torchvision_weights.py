"""Weights of a torchvision classifier, or of an architecture of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from torch import nn
from torchvision.models import ResNet50_Weights, WeightsEnum

from camserve.networks import check_is_classifier
from camserve_cli.packaging import pretrained
from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.publisher import Publisher
from camserve_cli.packaging.weights_source import (
    MakePublisher,
    WeightsSource,
    is_file,
    refuse_weights_key,
)


def torchvision_weights(
    arch: str, source: str | None, kwargs: Mapping[str, Any], key: str | None
) -> WeightsSource:
    """torchvision's own weights, or a file's.

    The arguments and errors are those of :func:`find_weights.find_weights`.
    """
    if ":" not in arch:
        # Before weights of something else are downloaded.
        check_is_classifier(arch)
    name = pretrained.torchvision_name(arch)
    if source and is_file(arch, source):
        file = Path(source)
        checkpoint = Checkpoint.read(file, key)
        published = pretrained.recognized(name, file)
        if published is None:
            return _own_weights(name, checkpoint)
        typer.echo(f"package: {file} holds torchvision's {published}")
    else:
        if ":" in arch:
            raise PackageError(f"--arch {arch} needs --weights FILE, of a state dict")
        refuse_weights_key(key)
        published = pretrained.named(arch, source)
        checkpoint = Checkpoint.of(pretrained.fetch(published), str(published))
        file = pretrained.cached_file(published)
    needed = pretrained.arch_kwargs(name, published=True)
    transform = kwargs.get("transform_input", True)
    if needed.get("transform_input") and transform is not True:
        raise PackageError(
            f"--arch-kwargs: transform_input is {transform!r}, but {published} need true; "
            "accepted: leave it out"
        )
    return WeightsSource(
        checkpoint,
        pretrained.preprocessing(published),
        tuple(published.meta["categories"]),
        str(published),
        section={"arch_kwargs": needed},
        publisher=_publisher(name, published, file),
    )


def _own_weights(name: str, checkpoint: Checkpoint) -> WeightsSource:
    """Weights of somebody's own, with the preset of their architecture."""
    presets = pretrained.presets(name)
    first, preset = next(iter(presets.items()), ("", None))
    needed = pretrained.arch_kwargs(name, published=False)
    if name in pretrained.TRANSFORM_INPUT and not _has_aux_heads(checkpoint):
        needed["aux_logits"] = False
    return WeightsSource(
        checkpoint,
        preset,
        tuple(ResNet50_Weights.DEFAULT.meta["categories"]),
        preset_of=f"torchvision's {first} weights of {name}" if presets else "",
        section={"arch_kwargs": needed},
    )


def _has_aux_heads(checkpoint: Checkpoint) -> bool:
    """Whether weights of GoogLeNet or Inception hold the heads that training alone uses."""
    return any(
        re.search(r"(^|\.)(aux1|AuxLogits)\.", name)
        for one in checkpoint.state_dicts
        for name in one.tensors
    )


def _publisher(name: str, published: WeightsEnum, file: Path) -> MakePublisher | None:
    """What builds torchvision's own network, apart from the archive's."""
    if not file.exists():
        return None

    def make(network: nn.Module) -> Publisher:
        own = pretrained.published_network(name, published, file)
        return Publisher("torchvision", own, published.transforms())

    return make
