"""Build a model archive: handler, weights and labels in one file that needs nothing else.

    \b
    python scripts/package.py                          ResNet50 with its ImageNet weights
    python scripts/package.py --arch resnet18
    python scripts/package.py --name pets --arch resnet50 --weights pets.pth --labels pets.json
    python scripts/package.py --name mine --arch my_net:build --weights my.safetensors \\
        --labels my.json --set handler.preprocess.resize=256 --set batchSize=16
    python scripts/package.py --stand-in               an ImageNet CNN that a package carries
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from torchvision.models import ResNet50_Weights

import pretrained
from archive import HANDLER, Archive, own_code
from check_archive import ArchiveError

sys.path.insert(0, str(HANDLER))

from camserve.errors import SettingsError
from camserve.gradcam import default_layer
from camserve.network import build
from camserve.settings import Settings
from camserve.targets import Labels

#: The exit status that tells a script that the weights' server cannot be reached.
UNREACHABLE = 3
EXAMPLE_KEY = "batchSize or handler.preprocess.resize"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class PackageError(Exception):
    """What keeps an archive from being built, in words for the person who builds it."""


@app.command(help=__doc__)
def package(
    arch: Annotated[
        str, typer.Option(help="A torchvision classifier, or MODULE:CALLABLE.")
    ] = "resnet50",
    arch_kwargs: Annotated[
        str, typer.Option(help="JSON object of keyword arguments for the constructor.")
    ] = "{}",
    weights: Annotated[
        str | None,
        typer.Option(help="torchvision's name of weights, or a .pth or .safetensors state dict."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="JSON list or index_to_name.json; by default torchvision's categories."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Dotted name of the module to explain; the last grid's. Again for each further "
            "one that a request may ask for."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the arch's.")] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "1.0",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of model-config.yaml, as handler.defaults.alpha=0.5"),
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(help="Further files or packages that MODULE imports."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Where NAME.mar is written.")] = HANDLER.parent
    / "model_store",
    compress: Annotated[
        bool, typer.Option(help="Deflate the archive; weights hardly shrink and load slower.")
    ] = False,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Package the ImageNet CNN that a package carries.")
    ] = False,
) -> None:
    section: dict[str, Any] = {
        "arch": arch,
        "arch_kwargs": _json_object("--arch-kwargs", arch_kwargs),
    }
    if stand_in:
        section, weights = dict(pretrained.STAND_IN), str(pretrained.stand_in_weights())
        name = name or "efficientnet-lite0"
    name = name or arch.replace(":", ".")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise PackageError(f"--name {name!r}: accepted are letters, digits, '.', '_' and '-'")
    source = _weights(section["arch"], weights)
    if source.preprocess:
        section["preprocess"] = source.preprocess
    if layer:
        section["layer"], *section["layers"] = layer
    names = Labels.load(labels).names if labels else source.categories
    config = _config(section, settings or [], len(names))
    arch = config["handler"]["arch"]
    code = own_code(arch)
    if ":" in arch and not code:
        typer.echo(f"{arch} comes from an installed package; install it where you serve")
    archive = Archive(name, version, config, source.state, names, [*code, *(include or [])])
    file, found = archive.write(store, compress)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    typer.echo(
        f"{file}: {arch}, {found['classes']} classes, layers "
        f"{', '.join(found['layers'])}, {file.stat().st_size / 1e6:.1f} MB, sha256 {digest}"
    )


@dataclass(frozen=True)
class _Source:
    """Weights, and what is known with them: their preset, if published, and their categories."""

    state: dict[str, torch.Tensor]
    preprocess: dict[str, Any] | None
    categories: tuple[str, ...]


def _weights(arch: str, source: str | None) -> _Source:
    if source and Path(source).suffix in (".pth", ".pt", ".safetensors"):
        imagenet = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
        return _Source(pretrained.read(Path(source)), None, imagenet)
    if ":" in arch:
        raise PackageError(f"--arch {arch} needs --weights FILE.pth or FILE.safetensors")
    published = pretrained.named(arch, source)
    return _Source(
        pretrained.fetch(published),
        pretrained.preprocessing(published),
        tuple(published.meta["categories"]),
    )


def _config(section: dict[str, Any], settings: list[str], classes: int) -> dict[str, Any]:
    """The archive's model-config.yaml: the handler's own, what the options say, ``--set`` last."""
    config: dict[str, Any] = yaml.safe_load((HANDLER / "model-config.yaml").read_text())
    config["handler"].update(section, layer=section.get("layer"))
    for setting in settings:
        key, equals, value = setting.partition("=")
        *path, last = key.split(".")
        place: Any = config
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict):
            raise PackageError(f"--set {setting}: accepted is KEY=VALUE, KEY as in {EXAMPLE_KEY}")
        place[last] = yaml.safe_load(value)
    handler = config["handler"]
    if handler["layer"] is None:
        network = build(handler["arch"], handler["arch_kwargs"], classes).eval()
        side = handler["preprocess"]["crop"]
        handler["layer"] = default_layer(network, torch.zeros(1, 3, side, side))
    Settings.from_yaml(config)
    return config


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise PackageError(f"{option} {text!r}: accepted is a JSON object")
    return value


def main() -> None:
    # A caller's own architecture may lie where the caller stands.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except pretrained.UnreachableError as error:
        typer.echo(f"package: {error}", err=True)
        sys.exit(UNREACHABLE)
    except (PackageError, SettingsError, ArchiveError, pretrained.WeightsError) as error:
        typer.echo(f"package: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
