"""Models of timm's: how photos are prepared for them, their labels and their weights."""

from __future__ import annotations

import json
import math
import re
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError

from torch import Tensor, nn

from camserve.errors import short_repr
from camserve.networks import is_timm_model
from camserve_cli.packaging.errors import (
    PackageError,
    PresetError,
    UnreachableError,
    WeightsError,
    first_line,
)
from camserve_cli.packaging.presets import Transform, find_preset


@dataclass(frozen=True)
class DataConfig:
    """How timm evaluates a model.

    Attributes:
        values: of ``timm.data.resolve_data_config``: input_size, mean, std, interpolation,
            crop_pct, crop_mode.
        model: the model's name, for messages.
        tag: of its weights that the values are of; empty where they have none.
    """

    values: Mapping[str, Any]
    model: str
    tag: str = ""

    @property
    def described(self) -> str:
        """What the values are of, in words."""
        model = self.model.partition(".")[0]
        if self.tag in ("", "untrained"):
            return f"timm's configuration of {model}"
        return f"timm's weights of {model}.{self.tag}"

    @property
    def transform(self) -> Transform:
        """timm's own transform of a photo."""
        import timm.data

        transform: Callable[..., Tensor] = timm.data.create_transform(
            **self.values, is_training=False
        )
        return transform

    def preset(self) -> dict[str, Any]:
        """The archive's ``preprocess`` section that makes the same input.

        Raises:
            PresetError: none does.
        """
        config = self.values
        channels, height, width = config["input_size"]
        described = (
            f"timm's preparation of photos for {self.model} (input_size {config['input_size']}, "
            f"crop_pct {config['crop_pct']}, crop_mode {config['crop_mode']}, interpolation "
            f"{config['interpolation']})"
        )
        if channels != 3:
            raise PresetError(f"{described} is for {channels} channels")
        # As timm.data.transforms_factory computes them.
        resized = [math.floor(side / config["crop_pct"]) for side in (height, width)]
        crop = height if height == width else [height, width]
        common = {"crop": crop, "interpolation": config["interpolation"]}
        candidates = [
            {"fit": "stretch", "resize": resized[0], **common},
            {"fit": "pad", "resize": resized[0], "crop_rounding": "down", **common},
            {"fit": "crop", "resize": resized, **common},
        ]
        if resized[0] == resized[1]:
            candidates.insert(0, {"fit": "crop", "resize": resized[0], **common})
        stated = (config["mean"], config["std"])
        return find_preset(self.transform, candidates, described, stated)


def pretrained_config(name: str) -> dict[str, Any]:
    """timm's description of a model's weights.

    Raises:
        PackageError: the tag in its name is none of the model's.
    """
    from timm.models import get_pretrained_cfg

    try:
        found = get_pretrained_cfg(name, allow_unregistered=False)
    except (RuntimeError, ValueError):
        raise PackageError(
            f"--arch timm:{name}: timm has no weights of that tag; accepted: timm:NAME, or with "
            f"one of the tags of its weights: {', '.join(_tags(name)) or 'none'}"
        ) from None
    return dict(found.to_dict()) if found else {}


def data_config(name: str, config: Mapping[str, Any]) -> DataConfig:
    """How timm evaluates weights of that description."""
    import timm.data

    values = timm.data.resolve_data_config(pretrained_cfg=dict(config))
    return DataConfig(values, name, config.get("tag") or "")


def categories(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of weights of that description: its own, or those of their part of ImageNet.

    Empty where timm knows none.
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if config.get("label_names"):
        return tuple(config["label_names"])
    subset = infer_imagenet_subset(dict(config))
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def head_classes(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> int | None:
    """The number of classes of a state dict's last layer, which timm's description names."""
    name = config.get("classifier")
    layer = state.get(f"{name[0] if isinstance(name, list | tuple) else name}.weight")
    return None if layer is None else len(layer)


#: Keys of a folder's config.json that are read, their types, and these in words.
_CONFIG_TYPES: Final[Sequence[tuple[str, type, str]]] = (
    ("num_classes", int, "a number"),
    ("label_names", list, "a list of texts"),
    ("model_args", dict, "an object"),
    ("pretrained_cfg", dict, "an object"),
)


@dataclass(frozen=True)
class TimmFolder:
    """A folder of a timm model, as ``timm.models.save_for_hf`` writes it, or transformers' wrapper.

    Attributes:
        arch: the model's name.
        kwargs: for ``timm.create_model``.
        config: timm's description of the weights.
        file: the weights.
    """

    arch: str
    kwargs: Mapping[str, Any]
    config: Mapping[str, Any]
    file: Path

    @classmethod
    def open(cls, folder: Path) -> TimmFolder | None:
        """A folder whose config.json names a model of timm's; None where it does not.

        Raises:
            SettingsError: timm is not installed.
            PackageError: timm has no such model, or the folder has no weights.
        """
        try:
            content = json.loads((folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        arch = content.get("architecture") if isinstance(content, dict) else None
        if not isinstance(arch, str) or content.get("model_type") not in (None, "timm_wrapper"):
            return None
        if not is_timm_model(f"timm:{arch}"):
            raise PackageError(
                f"{folder / 'config.json'}: timm {version('timm')} has no model "
                f"{short_repr(arch)}; accepted: a name of timm.list_models()"
            )
        for key, kind, accepted in _CONFIG_TYPES:
            if not isinstance(content.get(key), kind | None):
                raise PackageError(
                    f"{folder / 'config.json'}: {key} is {short_repr(content[key])}; accepted: "
                    f"{accepted}, as timm.models.save_for_hf writes it"
                )
        files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise PackageError(
                f"{folder} has no weights; accepted: model.safetensors or pytorch_model.bin"
            )
        own = {key: content[key] for key in ("num_classes", "label_names") if content.get(key)}
        kwargs = content.get("model_args") or {}
        return cls(
            arch,
            {key: value for key, value in kwargs.items() if key != "num_classes"},
            {**pretrained_config(arch), **(content.get("pretrained_cfg") or {}), **own},
            file,
        )


def requires() -> dict[str, str]:
    """The package that an archive of timm's model needs, with its version."""
    return {"timm": version("timm")}


def download(name: str, kwargs: Mapping[str, Any], classes: int) -> dict[str, Tensor]:
    """timm's own weights of a model, from the cache of the Hugging Face hub or downloaded.

    Raises:
        UnreachableError: not in the cache, and the hub cannot be reached.
        WeightsError: there are none, or they do not fit.
    """
    import timm
    from huggingface_hub import constants

    reason = _hub_problem(constants.ENDPOINT)
    offline = constants.HF_HUB_OFFLINE
    try:
        # Else each of its files is asked for again and again, for a minute.
        constants.HF_HUB_OFFLINE = offline or bool(reason)
        network: nn.Module = timm.create_model(
            name, pretrained=True, **{"num_classes": classes, **kwargs}
        )
    except (OSError, URLError) as failure:
        reason = reason or str(failure).splitlines()[0]
        raise UnreachableError(
            f"timm's weights of {name} are not in the cache, and {constants.ENDPOINT} cannot be "
            f"reached: {reason}; accepted: --weights FILE"
        ) from None
    except Exception as failure:
        raise WeightsError(
            f"timm's weights of {name} cannot be loaded: {first_line(failure)}"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = offline
    return dict(network.state_dict())


def fitted(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict, brought to the form that a model of timm's has.

    timm converts checkpoints as their authors publish them, and resamples position embeddings to
    another input size. What fits already is returned as it is, and so is what timm cannot convert:
    loading it reports why.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if _fits(network, state) or convert is None:
        return state
    try:
        converted: dict[str, Tensor] = dict(convert(dict(state), network))
    except Exception:
        return state
    return converted if _fits(network, converted) else state


def _fits(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    expected = {key: value.shape for key, value in network.state_dict().items()}
    return expected == {key: value.shape for key, value in state.items()}


def _tags(name: str) -> list[str]:
    import timm

    model = name.partition(".")[0]
    names = timm.list_pretrained(f"{model}.*")
    return [re.sub(r"^[^.]*\.", "", full) for full in names]


def _hub_problem(endpoint: str) -> str:
    """Why the hub's address cannot be reached; empty where it answers."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - https, or set by the user
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return ""
    except HTTPError:
        return ""
    except (OSError, ValueError) as failure:
        return str(getattr(failure, "reason", failure))
