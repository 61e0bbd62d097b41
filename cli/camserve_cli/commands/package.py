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
from collections.abc import Iterator, Mapping
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

from camserve.errors import SettingsError, describe_exception, short_repr, unknown_name_message
from camserve.networks.checks import run
from camserve.networks.classifier import build, check_is_classifier, set_eval
from camserve.networks.labels import Labels
from camserve.networks.layers import last_spatial_layer
from camserve.settings import Preprocess, Settings

#: The exit status that tells a script that the weights' server cannot be reached.
UNREACHABLE = 3
#: Of a model or a version: they stand in URLs and in file names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
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
    if not NAME.fullmatch(name):
        raise PackageError(
            f"--name {short_repr(name)}: accepted are up to 100 letters, digits, '.', '_' and '-'"
        )
    if not NAME.fullmatch(version):
        raise PackageError(
            f"--version {short_repr(version)}: accepted are up to 100 letters, digits, '.', '_' "
            "and '-'"
        )
    source = _weights(section["arch"], weights)
    section["arch_kwargs"] = _arch_kwargs(section, source)
    if source.preprocess:
        section["preprocess"] = source.preprocess
    if layer:
        section["layer"], *section["layers"] = layer
    names = Labels.load(labels).names if labels else source.categories
    config = _config(section, settings or [], len(names))
    arch = config["handler"]["arch"]
    for note in _notes(config["handler"], source):
        typer.echo(f"package: {note}")
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
    """Weights, and what is known with them.

    Attributes:
        state: the state dict.
        preprocess: the preset that they are evaluated with, if they are published.
        categories: their classes' names, or ImageNet's.
        published: their name, where they are torchvision's own.
    """

    state: dict[str, torch.Tensor]
    preprocess: dict[str, Any] | None
    categories: tuple[str, ...]
    published: str = ""


def _weights(arch: str, source: str | None) -> _Source:
    if ":" not in arch:
        # Before weights of something else are downloaded.
        check_is_classifier(arch)
    if source and Path(source).suffix in (".pth", ".pt", ".safetensors"):
        file = Path(source)
        state = pretrained.read(file)
        published = pretrained.recognized(_torchvision_name(arch), file)
        if published is None:
            imagenet = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
            return _Source(state, None, imagenet)
        typer.echo(f"package: {file} holds torchvision's {published}")
    else:
        if ":" in arch:
            raise PackageError(f"--arch {arch} needs --weights FILE.pth or FILE.safetensors")
        published = pretrained.named(arch, source)
        state = pretrained.fetch(published)
    return _Source(
        state,
        pretrained.preprocessing(published),
        tuple(published.meta["categories"]),
        str(published),
    )


def _torchvision_name(arch: str) -> str:
    """torchvision's name of an architecture, where it has one."""
    return arch.removeprefix("torchvision.models:").lower()


def _arch_kwargs(section: Mapping[str, Any], source: _Source) -> dict[str, Any]:
    """The constructor's arguments: those given, and those that the weights need."""
    given: dict[str, Any] = section["arch_kwargs"]
    needed = pretrained.arch_kwargs(_torchvision_name(section["arch"]), bool(source.published))
    transform = given.get("transform_input", True)
    if needed.get("transform_input") and transform is not True:
        raise PackageError(
            f"--arch-kwargs: transform_input is {transform!r}, but {source.published} need true; "
            "accepted: leave it out"
        )
    return {**needed, **given}


def _notes(handler: Mapping[str, Any], source: _Source) -> Iterator[str]:
    """What a person should know of settings that fit weights of a file only by chance."""
    if source.published:
        return
    arch = _torchvision_name(handler["arch"])
    given = Preprocess(**handler["preprocess"])
    presets = pretrained.presets(arch)
    if presets and given not in [Preprocess(**preset) for preset in presets.values()]:
        name, preset = next(iter(presets.items()))
        settings = " ".join(
            f"--set handler.preprocess.{key}={json.dumps(value).replace(' ', '')}"
            for key, value in preset.items()
            if Preprocess(**preset).model_dump()[key] != given.model_dump()[key]
        )
        yield (
            f"photos are prepared otherwise (resize {given.resize}, crop {given.crop}, "
            f"{given.interpolation}) than torchvision's own weights of {arch} have it; if yours "
            f"were trained as its {name}, add {settings}"
        )
    if arch in pretrained.TRANSFORM_INPUT and "transform_input" not in handler["arch_kwargs"]:
        yield (
            f"if the weights were trained on from torchvision's own of {arch}, they need "
            "transform_input=true in --arch-kwargs"
        )


def _config(section: dict[str, Any], settings: list[str], classes: int) -> dict[str, Any]:
    """The archive's model-config.yaml: the handler's own, what the options say, ``--set`` last."""
    config: dict[str, Any] = yaml.safe_load((HANDLER / "model-config.yaml").read_text())
    config["handler"].update(section, layer=section.get("layer"))
    for setting in settings:
        _set(config, setting)
    handler = config["handler"]
    if handler.get("layer") is None:
        # What is not known yet: the layer, and so which one requests may get by default.
        defaults = handler.get("defaults")
        if isinstance(defaults, dict):
            defaults = {key: value for key, value in defaults.items() if key != "layer"}
        known = {**handler, "layer": "any", "defaults": defaults}
        handler["layer"] = _default_layer(Settings.from_yaml({**config, "handler": known}), classes)
    Settings.from_yaml(config)
    return config


def _set(config: dict[str, Any], setting: str) -> None:
    """Change one key of model-config.yaml by the text of a ``--set``."""
    key, equals, text = setting.partition("=")
    *path, last = key.split(".")
    section: Any = config
    for part in path:
        if isinstance(section, dict) and part and part not in section:
            raise PackageError(
                f"--set {short_repr(setting)}: {unknown_name_message('section', part, section)}"
            )
        section = section.get(part) if isinstance(section, dict) else None
    if not equals or not all([*path, last]) or not isinstance(section, dict) or key == "handler":
        raise PackageError(
            f"--set {short_repr(setting)}: accepted is KEY=VALUE, KEY as in {EXAMPLE_KEY}"
        )
    try:
        section[last] = yaml.safe_load(text)
    except Exception as failure:
        # Of its own classes, and whatever its making of a value of a named type raises.
        raise PackageError(
            f"--set {short_repr(setting)}: the value is no YAML: {describe_exception(failure)}"
        ) from None


def _default_layer(settings: Settings, classes: int) -> str:
    """The usual layer of a network with any weights.

    Raises:
        SettingsError: it cannot be built, fails, or has none.
    """
    network = build(settings.arch, settings.arch_kwargs, classes)
    set_eval(network)
    side = settings.preprocess.crop
    example = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    run(network, example)
    try:
        return last_spatial_layer(network, example)
    except SettingsError:
        raise
    except Exception as failure:
        # It bears no hooks, as what torch.jit.script makes, or fails when it is run again.
        raise SettingsError(
            f"the layer to explain cannot be looked for in the network: "
            f"{describe_exception(failure)}; accepted: --layer NAME"
        ) from None


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PackageError(f"{option} {short_repr(text)}: accepted is a JSON object")
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
    except OSError as failure:
        # A folder that cannot be written, a full disk, a name that is too long.
        typer.echo(f"package: {str(failure)[:300]}", err=True)
        sys.exit(1)
    except Exception as failure:
        # What somebody else's code, file or value leads to and nobody foresaw.
        typer.echo(f"package: {describe_exception(failure)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
