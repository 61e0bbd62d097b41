"""Names that stand for no model here: of the Hugging Face hub, or that timm does not know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from camserve_cli.packaging.errors import PackageError

#: OWNER/NAME, as the hub has it; also with the prefix that timm takes.
_HUB_NAME: Final = re.compile(
    r"^(?:timm:|hf:)?(?:hf[-_]hub:)?(?:https?:/+)?(?:(?:huggingface|hf)\.co/)?([\w.-]+/[\w.-]+)/?$"
)


def check_no_hub_name(arch: str) -> None:
    """Refuse an ``--arch`` that is a name of the hub.

    Raises:
        PackageError: the message says how that model is downloaded.
    """
    hub = _HUB_NAME.match(arch)
    if hub and not arch.endswith(".py"):
        raise PackageError(f"--arch {arch} is no architecture; {_download(hub[1])}")


def check_arch_name(arch: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse an ``--arch`` that is meant for a model of timm or of transformers.

    What else is wrong with a name is found when its network is built.

    Raises:
        PackageError: the message says how that model is named.
        SettingsError: timm is not installed, and the name asks for it.
    """
    from torchvision import models

    from camserve.networks import is_hf_model, is_timm_model

    library, colon, name = arch.partition(":")
    if library == "hf" and not is_hf_model(arch, kwargs):
        raise PackageError(
            f"--arch {arch}: a classifier of transformers is packaged from its folder; accepted: "
            "--from-hf FOLDER, with config.json, preprocessor_config.json and model.safetensors"
        )
    if library == "timm" and colon and not is_timm_model(arch) and not _is_attribute(name):
        _refuse_timm_name(arch, name)
    if not colon and arch.lower() not in models.list_models() and _timm_has(arch):
        raise PackageError(
            f"--arch {arch}: torchvision has no network of that name, but timm has; accepted: "
            f"--arch timm:{arch}"
        )


def check_folder(folder: Path) -> None:
    """Refuse a ``--from-hf`` that is no folder.

    Raises:
        PackageError: a name of the hub is told apart.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise PackageError(
            f"--from-hf {folder} is a file; accepted: the folder with config.json, "
            "preprocessor_config.json and model.safetensors"
        )
    hub = _HUB_NAME.match(str(folder))
    how = f"; {_download(hub[1])}" if hub else "; accepted: a local folder"
    raise PackageError(f"--from-hf {folder}: there is no such folder{how}")


def _download(name: str) -> str:
    """How a model of the hub becomes a folder that is packaged."""
    folder = name.rpartition("/")[2]
    timm = f", or --arch timm:{folder}" if name.startswith("timm/") else ""
    return (
        f"if it is {name} of the Hugging Face hub, download its files first: hf download {name} "
        f"--local-dir {folder}; then accepted: --from-hf {folder}{timm}"
    )


def _timm_has(name: str) -> bool:
    """Whether timm is installed and has a model of that name."""
    return find_spec("timm") is not None and bool(import_module("timm").is_model(name))


def _is_attribute(name: str) -> bool:
    """Whether timm's own module has a callable of that dotted name."""
    found: Any = import_module("timm")
    for part in name.split("."):
        found = getattr(found, part, None)
    return callable(found)


def _refuse_timm_name(arch: str, name: str) -> None:
    import timm

    nearest = difflib.get_close_matches(name.lower().partition(".")[0], timm.list_models(), n=3)
    hint = f", the nearest: {', '.join(nearest)}" if nearest else ", as timm:convnext_tiny"
    raise PackageError(
        f"--arch {arch}: timm {version('timm')} has no model of that name; accepted: timm:NAME "
        f"with a name of timm.list_models(){hint}"
    )
