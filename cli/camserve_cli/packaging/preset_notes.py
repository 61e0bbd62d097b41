"""What a person should know of how photos are prepared, before an archive is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from camserve.settings import Preprocess, Settings
from camserve_cli.packaging import pretrained
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.weights_source import WeightsSource

#: A setting of one key, and of all of the section.
_PREFIX: Final = "handler.preprocess."
_WHOLE: Final = "handler.preprocess="


def has_own_preprocess(settings: Sequence[str]) -> bool:
    """Whether a ``--set`` changes how photos are prepared."""
    return any(one.startswith("handler.preprocess") for one in settings)


def check_preset(source: WeightsSource, settings: Sequence[str]) -> None:
    """Refuse weights whose preset is not known, where settings do not say how photos are prepared.

    Raises:
        PackageError: with the reason.
    """
    if source.preset_problem and not any(one.startswith(_WHOLE) for one in settings):
        keys = {one.removeprefix(_PREFIX).partition("=")[0] for one in settings}
        # A stretched photo has the crop's size, whatever the resize.
        needed = ["crop", "mean", "std"]
        if f"{_PREFIX}fit=stretch" not in settings:
            needed.insert(1, "resize")
        missing = [key for key in needed if key not in keys]
        if missing:
            crop = source.section.get("arch_kwargs", {}).get("image_size", 224)
            raise PackageError(
                f"{source.preset_problem}; accepted: what the network was trained with, as --set "
                f"handler.preprocess.crop={crop} --set handler.preprocess.resize={crop} --set "
                "handler.preprocess.mean=[0.5,0.5,0.5] --set handler.preprocess.std=[0.5,0.5,0.5]"
                f"; missing: {', '.join(missing)}"
            )


def _preparation(source: WeightsSource, preset: Preprocess, is_own: bool) -> str:
    """How photos are prepared, and whose word that is."""
    geometry = "" if preset.fit == "stretch" else f", resize {_text(preset.resize)}"
    values = (
        f"fit {preset.fit}{geometry}, crop {_text(preset.crop)}, {preset.interpolation}, "
        f"mean {list(preset.mean)}, std {list(preset.std)}"
    )
    if preset.channels != 3:
        values += ", in grey"
    if preset.range != (0, 1):
        values += f", of values in {list(preset.range)}"
    if preset.icc != "ignore":
        values += f", colour profiles converted to {preset.icc}"
    otherwise = "where yours were trained otherwise, --set handler.preprocess.KEY=VALUE"
    if is_own:
        return f"photos are prepared with {values}"
    if source.preset_of:
        return f"photos are prepared as for {source.preset_of}: {values}; {otherwise}"
    if source.preprocess is None:
        return f"photos are prepared as for torchvision's ResNet50: {values}; {otherwise}"
    return f"photos are prepared as their publisher does it: {values}"


def _text(size: int | tuple[int, int]) -> str:
    return str(size if isinstance(size, int) else list(size))


def preset_notes(source: WeightsSource, known: Settings, settings: Sequence[str]) -> Iterator[str]:
    """What a person should know of settings that fit weights of a file only by chance."""
    preset, usual = known.preprocess, Preprocess(**(source.preprocess or {}))
    if preset.range != usual.range and (preset.mean, preset.std) == (usual.mean, usual.std):
        new, old = (f"[{low:g}, {high:g}]" for low, high in (preset.range, usual.range))
        yield (
            f"photos are scaled to {new}, but mean and std are those of values in {old}; add --set "
            f"handler.preprocess.mean=.. and .std=.. of {new} (0 and 1 change nothing)"
        )
    yield _preparation(source, preset, has_own_preprocess(settings))
    if source.published:
        return
    arch = pretrained.torchvision_name(known.arch)
    if arch in pretrained.TRANSFORM_INPUT and "transform_input" not in known.arch_kwargs:
        yield (
            f"if your weights were trained from torchvision's own of {arch}, add "
            "transform_input=true to --arch-kwargs"
        )
