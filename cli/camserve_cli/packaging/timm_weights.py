"""Weights of timm's models: timm's own, a file's, or a folder's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camserve_cli.packaging import timm_models
from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import PackageError, WeightsError
from camserve_cli.packaging.publisher import Publisher
from camserve_cli.packaging.timm_models import DataConfig, TimmFolder
from camserve_cli.packaging.weights_source import (
    MakePublisher,
    WeightsSource,
    is_file,
    preset_or_problem,
    refuse_weights_key,
)


def timm_weights(
    arch: str, source: str | None, kwargs: Mapping[str, Any], key: str | None
) -> WeightsSource:
    """timm's own weights, or a file's, with timm's configuration of the model.

    The arguments and errors are those of :func:`find_weights.find_weights`.
    """
    name = arch.partition(":")[2]
    config = timm_models.pretrained_config(name)
    if source is None:
        refuse_weights_key(key)
        classes = _own_classes(name, config, kwargs)
        checkpoint = Checkpoint.of(timm_models.download(name, kwargs, classes), arch)
    else:
        if not is_file("", source):
            raise PackageError(
                f"--weights {source}: timm's own weights are chosen by --arch timm:NAME.TAG; "
                "accepted: a file with a state dict, or no --weights"
            )
        checkpoint = Checkpoint.read(Path(source), key)
        head = timm_models.head_classes(config, checkpoint.largest.tensors)
        config = {**config, "num_classes": head or config.get("num_classes") or 0}
    data = timm_models.data_config(name, config)
    preset, problem = preset_or_problem(data.preset)
    return WeightsSource(
        checkpoint,
        preset,
        timm_models.categories(config),
        preset_of=data.described if source else "",
        preset_problem=problem,
        section={"requires": timm_models.requires()},
        publisher=None if problem else _publisher(data),
        convert=timm_models.fitted,
    )


def timm_folder_weights(folder: TimmFolder) -> WeightsSource:
    """The weights of a folder, with the configuration that lies beside them.

    Raises:
        WeightsError: they cannot be read.
    """
    data = timm_models.data_config(folder.arch, folder.config)
    preset, problem = preset_or_problem(data.preset)
    return WeightsSource(
        Checkpoint.read(folder.file),
        preset,
        timm_models.categories(folder.config),
        preset_problem=problem,
        section={
            "arch": f"timm:{folder.arch}",
            "arch_kwargs": folder.kwargs,
            "requires": timm_models.requires(),
        },
        publisher=None if problem else _publisher(data),
        convert=timm_models.fitted,
    )


def _own_classes(name: str, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> int:
    """The number of classes of timm's own weights.

    Raises:
        WeightsError: they have no classes.
        PackageError: the constructor is told another number.
    """
    classes: int = config.get("num_classes") or 0
    if not classes:
        raise WeightsError(
            f"timm's weights of {name} are of a network without classes; accepted: --weights "
            "FILE of one that was trained on classes, and --labels"
        )
    if kwargs.get("num_classes", classes) != classes:
        raise PackageError(
            f"--arch-kwargs: num_classes is {kwargs['num_classes']}, but timm's weights of "
            f"{name} have {classes} classes; accepted: --weights FILE of your own"
        )
    return classes


def _publisher(data: DataConfig) -> MakePublisher:
    """timm builds the archive's network, and brings the weights to its form."""
    return lambda network: Publisher("timm", network, data.transform)
