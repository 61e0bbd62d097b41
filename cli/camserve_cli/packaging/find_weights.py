"""Finds the weights that ``camserve package`` is given: torchvision's, timm's, or of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camserve.networks import is_timm_model
from camserve_cli.packaging import pretrained
from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.hf_folder import HfFolder
from camserve_cli.packaging.model_names import check_arch_name, check_folder
from camserve_cli.packaging.publisher import Publisher
from camserve_cli.packaging.timm_models import TimmFolder
from camserve_cli.packaging.timm_weights import timm_folder_weights, timm_weights
from camserve_cli.packaging.torchvision_weights import torchvision_weights
from camserve_cli.packaging.weights_source import WeightsSource, preset_or_problem


def find_weights(
    arch: str, source: str | None, kwargs: Mapping[str, Any], key: str | None = None
) -> WeightsSource:
    """The weights that ``--weights`` names: torchvision's or timm's own, or a file's.

    Args:
        arch: the architecture that they are for.
        source: the name or the file, of any suffix; None for the publisher's best.
        kwargs: of the architecture's constructor.
        key: the dotted place of the state dict in the file.

    Raises:
        PackageError: an architecture of one's own comes without a file.
        WeightsError: they cannot be had, or read.
        SettingsError: the architecture is no classifier of torchvision's or timm's.
    """
    check_arch_name(arch, kwargs)
    find = timm_weights if is_timm_model(arch) else torchvision_weights
    return find(arch, source, kwargs, key)


def fallback_weights() -> WeightsSource:
    """The weights of ``--fallback-model``, with their own preset.

    Raises:
        WeightsError: they are not installed.
    """
    model = pretrained.FALLBACK_MODEL
    found = find_weights(model["arch"], str(pretrained.fallback_weights()), model["arch_kwargs"])
    return replace(found, preprocess=model["preprocess"])


def folder_weights(folder: Path, own_labels: bool = False) -> WeightsSource:
    """The network, weights, labels and preset of a Hugging Face folder, of transformers or timm.

    Args:
        folder: ``--from-hf``.
        own_labels: ``--labels`` is given, so that the folder's are not read.

    Raises:
        PackageError: the folder's files are missing, or are not those of an image classifier.
        WeightsError: the weights cannot be read, or do not fit.
    """
    check_folder(folder)
    timm_folder = TimmFolder.open(folder)
    if timm_folder is not None:
        return timm_folder_weights(timm_folder)
    model = HfFolder.open(folder)
    labels = () if own_labels else model.labels()
    preset, problem = preset_or_problem(lambda: model.processor.preset())
    multiclass = model.task == "multiclass"
    return WeightsSource(
        Checkpoint.of(model.state(), str(folder)),
        preset,
        labels,
        preset_problem=problem,
        notes=model.notes(),
        section={
            "arch": model.arch,
            "arch_kwargs": model.arch_kwargs,
            "requires": model.requires,
            **({} if multiclass else {"task": model.task}),
        },
        publisher=None
        if problem
        else lambda network: Publisher("transformers", model.network, model.processor.transform),
    )
