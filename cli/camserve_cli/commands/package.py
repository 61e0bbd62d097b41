"""Build a model archive: handler, weights and labels in one file.

The archive is loaded and explains a picture before it is written. An
architecture of your own, MODULE:CALLABLE, may lie in the current folder.

Exit status: 0 when the archive is written, 3 when published weights cannot
be reached, 1 when something else is wrong.

Examples:

  camserve package                     ResNet50 with its ImageNet weights
  camserve package --arch resnet18
  camserve package --name pets --arch resnet50 \\
      --weights pets.pth --labels pets.json
  camserve package --name mine --arch my_net:build \\
      --weights my.safetensors --labels my.json \\
      --set handler.preprocess.resize=256 --set batchSize=16
  camserve package --fallback-model    EfficientNet-Lite0, without a download
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from camserve.errors import short_repr
from camserve_cli.arguments import check_name
from camserve_cli.packaging.errors import ArchiveError, PackageError
from camserve_cli.paths import STORE, STORE_SHOWN

app = typer.Typer(add_completion=False)


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
        typer.Option(
            help="torchvision's name of weights, or a file with a state dict: what torch.save or "
            "safetensors wrote, with any suffix."
        ),
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Where the state dict lies in that file, with dots between nested keys, as "
            "model_ema; by default what fits the network, averages last.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="The classes' names: JSON (a list, index_to_name, class_to_idx, id2label), CSV, "
            "or text with one a line; by default torchvision's categories."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Dotted name of the module to explain; by default the last whose output is a "
            "grid. Repeat it for each further layer that a request may ask for."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default that of --arch.")
    ] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "1.0",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of model-config.yaml, as batchSize=16; repeatable.",
        ),
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(help="Further files or packages that MODULE imports."),
    ] = None,
    store: Annotated[
        Path, typer.Option(help="Where NAME.mar is written.", show_default=STORE_SHOWN)
    ] = STORE,
    compress: Annotated[
        bool, typer.Option(help="Deflate the archive; weights hardly shrink and load slower.")
    ] = False,
    fallback_model: Annotated[
        bool,
        typer.Option(
            "--fallback-model",
            help="Package EfficientNet-Lite0, whose weights are in a Python package.",
        ),
    ] = False,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", hidden=True, help="The former name of --fallback-model.")
    ] = False,
) -> None:
    fallback_model = fallback_model or stand_in
    name = name or ("efficientnet-lite0" if fallback_model else arch.replace(":", "."))
    check_name("--name", name)
    check_name("--version", version)
    # They import torch, which takes seconds: --help and the names do without.
    from camserve.networks import Labels, build
    from camserve_cli.packaging import pretrained
    from camserve_cli.packaging.archive import Archive, local_source_files
    from camserve_cli.packaging.label_files import read_labels
    from camserve_cli.packaging.model_config import build_config
    from camserve_cli.packaging.weights_fit import fit_weights
    from camserve_cli.packaging.weights_source import (
        constructor_arguments,
        find_weights,
        preset_notes,
    )

    # A caller's own architecture may lie where the caller stands.
    sys.path.append(str(Path.cwd()))
    # What is included lies beside the architecture in the archive.
    sys.path += [str(path.resolve().parent) for path in include or []]
    section: dict[str, Any] = {
        "arch": arch,
        "arch_kwargs": _json_object("--arch-kwargs", arch_kwargs),
    }
    if fallback_model:
        section = dict(pretrained.FALLBACK_MODEL)
        weights = str(pretrained.fallback_weights())
    source = find_weights(section["arch"], weights, weights_key)
    section["arch_kwargs"] = constructor_arguments(section, source)
    if source.preprocess:
        section["preprocess"] = source.preprocess
    if layer:
        section["layer"], *section["layers"] = layer
    names, label_notes = read_labels(labels) if labels else (Labels(source.categories), list[str]())
    config = build_config(section, settings or [], len(names))
    handler = config["handler"]
    arch = handler["arch"]
    network = build(arch, handler["arch_kwargs"], len(names))
    fitted = fit_weights(network, source.checkpoint, arch, len(names), labels is not None)
    for note in [*fitted.notes, *label_notes]:
        typer.echo(f"package: {note}")
    del network
    code = local_source_files(arch)
    if ":" in arch and not code:
        typer.echo(
            f"package: the code of {arch} is in an installed package and not in the archive; the "
            "machine that serves the archive needs that package too"
        )
    archive = Archive(name, version, config, fitted.state, names, [*code, *(include or [])])
    try:
        file, found = archive.write(store, compress)
    except ArchiveError as error:
        raise PackageError(_with_given_files(str(error), config, weights, labels)) from None
    for note in preset_notes(config["handler"], source):
        typer.echo(f"package: {note}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    typer.echo(
        f"{file}: {arch}, {found['classes']} classes, layers "
        f"{', '.join(found['layers'])}, {file.stat().st_size / 1e6:.1f} MB, sha256 {digest}"
    )


def _with_given_files(
    message: str, config: Mapping[str, Any], weights: str | None, labels: Path | None
) -> str:
    """A message of the archive's check that names the files that were given, not the archive's."""
    section = config["handler"]
    if weights:
        message = message.replace(f"weights {section['weights']} ", f"weights {weights} ")
    if labels:
        return message.replace(section["labels"], str(labels))
    return message.replace(f"{section['labels']} names", "the list of labels (ImageNet's) names")


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PackageError(f"{option} {short_repr(text)}: accepted is a JSON object")
    return value
