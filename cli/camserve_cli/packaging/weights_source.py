"""The weights that ``camserve package`` is given, and what is known of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from torchvision.models import ResNet50_Weights

from camserve.networks import check_is_classifier
from camserve.settings import Preprocess
from camserve_cli.packaging import pretrained
from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import PackageError


@dataclass(frozen=True)
class WeightsSource:
    """Weights, and what is known with them.

    Attributes:
        checkpoint: the state dict, or several of a file.
        preprocess: the preset that they are evaluated with, if they are published.
        categories: their classes' names, or ImageNet's.
        published: their name, where they are torchvision's own.
    """

    checkpoint: Checkpoint
    preprocess: dict[str, Any] | None
    categories: tuple[str, ...]
    published: str = ""


def find_weights(arch: str, source: str | None, key: str | None = None) -> WeightsSource:
    """The weights that ``--weights`` names: torchvision's by name, or a file's, of any suffix.

    Args:
        arch: the architecture that they are for.
        source: the name or the file; None for torchvision's best.
        key: the dotted place of the state dict in the file.

    Raises:
        PackageError: an architecture of one's own comes without a file.
        WeightsError: they cannot be had, or read.
        SettingsError: the architecture is no classifier of torchvision's.
    """
    if ":" not in arch:
        # Before weights of something else are downloaded.
        check_is_classifier(arch)
    if source and _is_file(arch, source):
        file = Path(source)
        checkpoint = Checkpoint.read(file, key)
        published = pretrained.recognized(_torchvision_name(arch), file)
        if published is None:
            imagenet = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
            return WeightsSource(checkpoint, None, imagenet)
        typer.echo(f"package: {file} holds torchvision's {published}")
    else:
        if ":" in arch:
            raise PackageError(f"--arch {arch} needs --weights FILE, of a state dict")
        if key is not None:
            raise PackageError("--weights-key: accepted with --weights FILE alone")
        published = pretrained.named(arch, source)
        checkpoint = Checkpoint.of(pretrained.fetch(published), str(published))
    return WeightsSource(
        checkpoint,
        pretrained.preprocessing(published),
        tuple(published.meta["categories"]),
        str(published),
    )


def _is_file(arch: str, source: str) -> bool:
    """Whether ``--weights`` names a file: one that is there, or could not be torchvision's name."""
    return Path(source).exists() or ":" in arch or bool(re.search(r"[/\\]|\.\w{1,11}$", source))


def _torchvision_name(arch: str) -> str:
    """torchvision's name of an architecture, where it has one."""
    return arch.removeprefix("torchvision.models:").lower()


def constructor_arguments(section: Mapping[str, Any], source: WeightsSource) -> dict[str, Any]:
    """The constructor's arguments: those given, and those that the weights need."""
    given: dict[str, Any] = section["arch_kwargs"]
    arch = _torchvision_name(section["arch"])
    needed = pretrained.arch_kwargs(arch, bool(source.published))
    if arch in pretrained.TRANSFORM_INPUT and not source.published and not _has_aux_heads(source):
        needed["aux_logits"] = False
    transform = given.get("transform_input", True)
    if needed.get("transform_input") and transform is not True:
        raise PackageError(
            f"--arch-kwargs: transform_input is {transform!r}, but {source.published} need true; "
            "accepted: leave it out"
        )
    return {**needed, **given}


def _values(preprocess: Preprocess) -> dict[str, Any]:
    """Settings as in JSON; a square crop is a number however it is written."""
    values: dict[str, Any] = preprocess.model_dump(mode="json")
    height, width = preprocess.input_size
    return {**values, "crop": height} if height == width else values


def _has_aux_heads(source: WeightsSource) -> bool:
    """Whether weights of GoogLeNet or Inception hold the heads that training alone uses."""
    return any(
        re.search(r"(^|\.)(aux1|AuxLogits)\.", name)
        for one in source.checkpoint.state_dicts
        for name in one.tensors
    )


def preset_notes(handler: Mapping[str, Any], source: WeightsSource) -> Iterator[str]:
    """What a person should know of settings that fit weights of a file only by chance."""
    given = Preprocess(**handler["preprocess"])
    known = Preprocess(**(source.preprocess or {}))
    if given.range != known.range and (given.mean, given.std) == (known.mean, known.std):
        new, old = (f"[{low:g}, {high:g}]" for low, high in (given.range, known.range))
        yield (
            f"photos are scaled to {new}, but mean and std are those of values in {old}; add --set "
            f"handler.preprocess.mean=.. and .std=.. of {new} (0 and 1 change nothing)"
        )
    if source.published:
        return
    arch = _torchvision_name(handler["arch"])
    presets = pretrained.presets(arch)
    values = _values(given)
    if presets and values not in [_values(Preprocess(**preset)) for preset in presets.values()]:
        name, preset = next(iter(presets.items()))
        settings = " ".join(
            f"--set handler.preprocess.{key}={json.dumps(value).replace(' ', '')}"
            for key, value in _values(Preprocess(**preset)).items()
            if value != values[key]
        )
        yield (
            f"photos are resized to {values['resize']} and cropped to {values['crop']}, "
            f"{given.interpolation}, which differs from torchvision's {name} weights of {arch}; "
            f"if your weights were trained like those, add {settings}"
        )
    if arch in pretrained.TRANSFORM_INPUT and "transform_input" not in handler["arch_kwargs"]:
        yield (
            f"if your weights were trained from torchvision's own of {arch}, add "
            "transform_input=true to --arch-kwargs"
        )
