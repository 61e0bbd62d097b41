"""The weights that ``camserve package`` is given, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, WeightsEnum

from camserve.networks import check_is_classifier, is_timm_model
from camserve.settings import Preprocess
from camserve_cli.packaging import pretrained, timm_models
from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import PackageError, PresetError, WeightsError
from camserve_cli.packaging.hf_folder import HfFolder
from camserve_cli.packaging.publisher import Publisher

#: Builds the publisher's network, from the constructor's arguments, the state dict, and the number
#: of classes.
MakePublisher = Callable[[Mapping[str, Any], Mapping[str, Tensor], int], Publisher]


@dataclass(frozen=True)
class WeightsSource:
    """Weights, and what is known with them.

    Attributes:
        checkpoint: the state dict, or several of a file.
        preprocess: the preset of the weights, or of their architecture; None where none is known.
        categories: their classes' names, or ImageNet's; empty where none are known.
        published: their name, where they are torchvision's own.
        preset_of: whose preset it is, where that is only likely to be the weights' own.
        preset_problem: why there is no preset, where a publisher has one.
        section: further keys of the section ``handler``.
        publisher: builds the publisher's own network and preparation of photos; None where these
            are not known.
    """

    checkpoint: Checkpoint
    preprocess: dict[str, Any] | None
    categories: tuple[str, ...]
    published: str = ""
    preset_of: str = ""
    preset_problem: str = ""
    section: Mapping[str, Any] = field(default_factory=dict)
    publisher: MakePublisher | None = None


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
        SettingsError: the architecture is no classifier of torchvision's.
    """
    if is_timm_model(arch):
        return _timm_weights(arch, source, kwargs, key)
    if ":" not in arch:
        # Before weights of something else are downloaded.
        check_is_classifier(arch)
    name = pretrained.torchvision_name(arch)
    if source and _is_file(arch, source):
        file = Path(source)
        checkpoint = Checkpoint.read(file, key)
        published = pretrained.recognized(name, file)
        if published is None:
            imagenet = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
            presets = pretrained.presets(name)
            first, preset = next(iter(presets.items()), ("", None))
            preset_of = f"torchvision's {first} weights of {name}" if presets else ""
            return WeightsSource(checkpoint, preset, imagenet, preset_of=preset_of)
        typer.echo(f"package: {file} holds torchvision's {published}")
    else:
        if ":" in arch:
            raise PackageError(f"--arch {arch} needs --weights FILE, of a state dict")
        if key is not None:
            raise PackageError("--weights-key: accepted with --weights FILE alone")
        published = pretrained.named(arch, source)
        checkpoint = Checkpoint.of(pretrained.fetch(published), str(published))
        file = pretrained.cached_file(published)
    return WeightsSource(
        checkpoint,
        pretrained.preprocessing(published),
        tuple(published.meta["categories"]),
        str(published),
        publisher=_torchvision_publisher(name, published, file),
    )


def _is_file(arch: str, source: str) -> bool:
    """Whether ``--weights`` names a file: one that is there, or could not be torchvision's name."""
    return Path(source).exists() or ":" in arch or bool(re.search(r"[/\\]|\.\w{1,11}$", source))


def hf_weights(folder: Path) -> WeightsSource:
    """The network, weights, labels and preset of a Hugging Face folder, of transformers or timm.

    Raises:
        PackageError: the folder's files are missing, or are not those of an image classifier.
        WeightsError: the weights cannot be read, or do not fit.
    """
    timm_folder = timm_models.TimmFolder.open(folder)
    if timm_folder is not None:
        return _timm_folder(timm_folder)
    model = HfFolder.open(folder)
    preset, problem = _preset(lambda: model.processor.preset())
    section = {
        "arch": model.arch,
        "arch_kwargs": model.arch_kwargs,
        "requires": model.requires,
        **({"task": model.task} if model.task != "multiclass" else {}),
    }
    return WeightsSource(
        Checkpoint.of(model.state(), str(folder)),
        preset,
        model.labels(),
        preset_problem=problem,
        section=section,
        publisher=None
        if problem
        else lambda kwargs, state, classes: Publisher(
            "transformers", model.network, model.processor.transform
        ),
    )


def _timm_weights(
    arch: str, source: str | None, kwargs: Mapping[str, Any], key: str | None
) -> WeightsSource:
    """timm's own weights of a model, or a file's, with timm's configuration of the model."""
    name = arch.partition(":")[2]
    config = timm_models.pretrained_config(name)
    classes = config.get("num_classes") or 0
    if source is None:
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
        if key is not None:
            raise PackageError("--weights-key: accepted with --weights FILE alone")
        checkpoint = Checkpoint.of(timm_models.download(name, kwargs, classes), arch)
    else:
        if not _is_file(arch, source):
            raise PackageError(
                f"--weights {source}: timm's own weights are chosen by --arch timm:NAME.TAG; "
                "accepted: a file with a state dict, or no --weights"
            )
        checkpoint = Checkpoint.read(Path(source), key)
        head = timm_models.head_classes(config, checkpoint.largest.tensors)
        config = {**config, "num_classes": head or classes}
    data = timm_models.data_config(name, config)
    preset, problem = _preset(data.preset)
    return WeightsSource(
        checkpoint,
        preset,
        timm_models.categories(config),
        preset_of=f"timm's weights of {data.tagged}" if source else "",
        preset_problem=problem,
        section={"requires": timm_models.requires()},
        publisher=None if problem else timm_models.publisher_of(name, data),
    )


def _timm_folder(folder: timm_models.TimmFolder) -> WeightsSource:
    data = timm_models.data_config(folder.arch, folder.config)
    preset, problem = _preset(data.preset)
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
        publisher=None if problem else timm_models.publisher_of(folder.arch, data),
    )


def _preset(make: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """A preset, or why there is none: settings may then say how photos are prepared."""
    try:
        return make(), ""
    except PresetError as error:
        return None, str(error)


def _torchvision_publisher(name: str, published: WeightsEnum, file: Path) -> MakePublisher | None:
    if not file.exists():
        return None

    def make(kwargs: Mapping[str, Any], state: Mapping[str, Tensor], classes: int) -> Publisher:
        network = pretrained.published_network(name, published, file)
        return Publisher("torchvision", network, published.transforms())

    return make


def constructor_arguments(section: Mapping[str, Any], source: WeightsSource) -> dict[str, Any]:
    """The constructor's arguments: those given, and those that the weights need."""
    given: dict[str, Any] = section["arch_kwargs"]
    arch = pretrained.torchvision_name(section["arch"])
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


def _has_aux_heads(source: WeightsSource) -> bool:
    """Whether weights of GoogLeNet or Inception hold the heads that training alone uses."""
    return any(
        re.search(r"(^|\.)(aux1|AuxLogits)\.", name)
        for one in source.checkpoint.state_dicts
        for name in one.tensors
    )


def converted(handler: Mapping[str, Any], source: WeightsSource, network: nn.Module) -> Checkpoint:
    """The checkpoint with its state dicts in the form that the network takes."""
    if not is_timm_model(handler["arch"]):
        return source.checkpoint
    state_dicts = tuple(
        replace(one, tensors=timm_models.fitted(network, one.tensors))
        for one in source.checkpoint.state_dicts
    )
    return replace(source.checkpoint, state_dicts=state_dicts)


def has_own_preprocess(settings: list[str]) -> bool:
    """Whether a ``--set`` changes how photos are prepared."""
    return any(one.startswith("handler.preprocess") for one in settings)


def check_preset(source: WeightsSource, settings: list[str]) -> None:
    """Refuse weights whose preset is not known, where no setting says how photos are prepared.

    Raises:
        PackageError: with the reason.
    """
    if source.preset_problem and not has_own_preprocess(settings):
        raise PackageError(
            f"{source.preset_problem}; accepted: what the network was trained with, as --set "
            "handler.preprocess.resize=256 --set handler.preprocess.crop=224 --set "
            "handler.preprocess.mean=[..] --set handler.preprocess.std=[..]"
        )


def preset_notes(
    handler: Mapping[str, Any], source: WeightsSource, settings: list[str]
) -> Iterator[str]:
    """What a person should know of settings that fit weights of a file only by chance."""
    preset = Preprocess(**handler["preprocess"])
    known = Preprocess(**(source.preprocess or {}))
    if preset.range != known.range and (preset.mean, preset.std) == (known.mean, known.std):
        new, old = (f"[{low:g}, {high:g}]" for low, high in (preset.range, known.range))
        yield (
            f"photos are scaled to {new}, but mean and std are those of values in {old}; add --set "
            f"handler.preprocess.mean=.. and .std=.. of {new} (0 and 1 change nothing)"
        )
    if source.preset_of and not has_own_preprocess(settings):
        yield (
            f"photos are prepared as for {source.preset_of}: fit {preset.fit}, resize "
            f"{preset.resize}, crop {preset.crop}, {preset.interpolation}, mean "
            f"{list(preset.mean)}, std {list(preset.std)}; where yours were trained otherwise, "
            "--set handler.preprocess.KEY=VALUE"
        )
    if source.published:
        return
    arch = pretrained.torchvision_name(handler["arch"])
    if arch in pretrained.TRANSFORM_INPUT and "transform_input" not in handler["arch_kwargs"]:
        yield (
            f"if your weights were trained from torchvision's own of {arch}, add "
            "transform_input=true to --arch-kwargs"
        )
