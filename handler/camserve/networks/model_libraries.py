"""Networks of timm and of transformers, two packages that an archive cannot contain.

The archive names them with the versions that it was packed with (``handler.requires``). They are
imported only where an archive needs one of them.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn

from camserve.errors import SettingsError

#: The extra of camserve that installs a package.
_EXTRAS: Final = {"timm": "timm", "transformers": "hf"}


def check_requirements(requires: Mapping[str, str]) -> None:
    """Check that the packages that an archive names are installed, with the same major version.

    Args:
        requires: package -> the version that the archive was packed with.

    Raises:
        SettingsError: one is missing, or has another major version.
    """
    for package, packed in requires.items():
        installed = installed_version(package)
        if installed is None:
            raise SettingsError(
                f"handler.requires: the archive was packed with {package} {packed}, and {package} "
                f"is not installed here; accepted: {_install_command(package, packed)}"
            )
        if _major(installed) != _major(packed):
            raise SettingsError(
                f"handler.requires: the archive was packed with {package} {packed}, and {package} "
                f"{installed} is installed here; accepted: version {_major(packed)}.x "
                f"({_install_command(package, packed)})"
            )


def installed_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _major(version: str) -> str:
    return version.partition(".")[0]


def _install_command(package: str, packed: str) -> str:
    extra = f"camserve[{_EXTRAS[package]}] " if package in _EXTRAS else ""
    return f"pip install {extra}{package}=={packed}"


def is_timm_model(arch: str) -> bool:
    """Whether an architecture is ``timm:NAME``, and timm has a model NAME, as resnet50.a1_in1k.

    Raises:
        SettingsError: timm is not installed.
    """
    library, _, name = arch.partition(":")
    return library == "timm" and bool(_library("timm", arch).is_model(name))


def build_timm(name: str, kwargs: Mapping[str, Any], classes: int) -> nn.Module:
    """Build a model of timm's with the weights that its constructor initializes.

    Args:
        name: of the model, with or without the tag of its weights.
        kwargs: for ``timm.create_model``.
        classes: the number of class scores.
    """
    create: Any = _library("timm", f"timm:{name}").create_model
    network: nn.Module = create(name, pretrained=False, **{"num_classes": classes, **kwargs})
    return network


def is_hf_model(arch: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether an architecture is ``hf:TYPE`` and its arguments are a configuration of that type.

    Raises:
        SettingsError: it is, and transformers is not installed, or has no such model.
    """
    library, _, model_type = arch.partition(":")
    if library != "hf" or kwargs.get("model_type") != model_type:
        return False
    known = _library("transformers", arch).CONFIG_MAPPING
    if model_type not in known:
        nearest = difflib.get_close_matches(model_type, list(known), n=3)
        hint = f" (the nearest: {', '.join(nearest)})" if nearest else ""
        raise SettingsError(
            f"arch {arch!r} cannot be built: transformers {installed_version('transformers')} has "
            f"no models of the type {model_type!r}; accepted: one of its types{hint}"
        )
    return True


def build_hf(config: Mapping[str, Any], classes: int) -> nn.Module:
    """Build an image classifier of transformers' with the weights that its constructor initializes.

    Nothing is downloaded, and no code but transformers' own runs.

    Args:
        config: the content of its config.json; ``model_type`` names the architecture.
        classes: the number of class scores.
    """
    transformers = _library("transformers", f"hf:{config['model_type']}")
    settings = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    # Of several classifiers of a type, transformers takes the one that is named here.
    settings["architectures"] = settings.get("architectures") or []
    # A configuration that names no labels has as many as num_labels says.
    hf_config = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(
        {**settings, "num_labels": classes}
    )
    auto_model = transformers.AutoModelForImageClassification
    network: nn.Module = auto_model.from_config(
        hf_config, dtype=torch.float32, trust_remote_code=False
    )
    return network


def _library(package: str, arch: str) -> Any:
    """The imported package.

    Raises:
        SettingsError: it is not installed.
    """
    if find_spec(package) is None:
        raise SettingsError(
            f"arch {arch!r} needs the package {package}, which is not installed here; accepted: "
            f"pip install camserve[{_EXTRAS[package]}]"
        )
    return importlib.import_module(package)
