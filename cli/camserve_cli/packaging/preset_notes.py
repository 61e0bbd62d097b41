"""What a person should know of how photos are prepared, before an archive is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from camserve.settings import Preprocess, Settings
from camserve_cli.packaging import pretrained
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.weights_source import WeightsSource


def has_own_preprocess(settings: Sequence[str]) -> bool:
    """Whether a ``--set`` changes how photos are prepared."""
    return any(one.startswith("handler.preprocess") for one in settings)


def check_preset(source: WeightsSource, settings: Sequence[str]) -> None:
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


def preset_notes(source: WeightsSource, known: Settings, settings: Sequence[str]) -> Iterator[str]:
    """What a person should know of settings that fit weights of a file only by chance."""
    preset, usual = known.preprocess, Preprocess(**(source.preprocess or {}))
    if preset.range != usual.range and (preset.mean, preset.std) == (usual.mean, usual.std):
        new, old = (f"[{low:g}, {high:g}]" for low, high in (preset.range, usual.range))
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
    arch = pretrained.torchvision_name(known.arch)
    if arch in pretrained.TRANSFORM_INPUT and "transform_input" not in known.arch_kwargs:
        yield (
            f"if your weights were trained from torchvision's own of {arch}, add "
            "transform_input=true to --arch-kwargs"
        )
