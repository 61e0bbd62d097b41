"""Build a model archive: handler, weights and labels in one file.

The archive is loaded and explains a picture before it is written. An
architecture of your own is FILE.py:CALLABLE, or MODULE:CALLABLE with a module
of the current folder. Where a publisher's own network and preparation of
photos are known, the archive's scores on photos are held to theirs.

Exit status: 0 when the archive is written, 3 when published weights cannot
be reached, 1 when something else is wrong.

Examples:

  camserve package                     ResNet50 with its ImageNet weights
  camserve package --arch resnet18
  camserve package --name pets --arch resnet50 \\
      --weights pets.pth --labels pets.json
  camserve package --arch timm:convnext_tiny.fb_in1k
  camserve package --from-hf my-vit    a folder that save_pretrained wrote
  camserve package --name mine --arch my_net.py:build \\
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
from camserve_cli.packaging.architecture_code import (
    find_imports,
    include_note,
    is_import_path,
    local_source_files,
    module_of_file,
)
from camserve_cli.packaging.errors import ArchiveError, PackageError
from camserve_cli.packaging.model_names import check_no_hub_name
from camserve_cli.paths import STORE, STORE_SHOWN

DEFAULT_ARCH = "resnet50"

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def package(
    arch: Annotated[
        str | None,
        typer.Option(
            help="A torchvision classifier, timm:NAME, FILE.py:CALLABLE or MODULE:CALLABLE.",
            show_default=DEFAULT_ARCH,
        ),
    ] = None,
    from_hf: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A Hugging Face image classifier: its config.json, preprocessor_config.json and "
            "weights. Instead of --arch and --weights.",
        ),
    ] = None,
    arch_kwargs: Annotated[
        str | None,
        typer.Option(
            help="JSON object of keyword arguments for the constructor.", show_default="{}"
        ),
    ] = None,
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
            help="Dotted name of the module to explain; by default the one that the "
            "literature explains. Repeat it for each further layer that a request may ask for."
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
    _refuse_beside(
        "--from-hf", from_hf, {"--arch": arch, "--weights": weights, "--weights-key": weights_key}
    )
    _refuse_beside(
        "--fallback-model",
        fallback_model,
        {
            "--from-hf": from_hf,
            "--arch": arch,
            "--arch-kwargs": arch_kwargs,
            "--weights": weights,
            "--weights-key": weights_key,
        },
    )
    settings, include = settings or [], include or []
    check_no_hub_name(arch or DEFAULT_ARCH)
    arch = module_of_file(arch or DEFAULT_ARCH)
    given: dict[str, Any] = {"arch_kwargs": _json_object("--arch-kwargs", arch_kwargs or "{}")}
    name = name or _default_name(arch, from_hf, fallback_model)
    check_name("--name", name)
    check_name("--version", version)
    # They import torch, which takes seconds: --help and the names do without.
    from camserve.networks import Labels, build
    from camserve.settings import score_count
    from camserve_cli.packaging import pretrained
    from camserve_cli.packaging.archive import Archive
    from camserve_cli.packaging.comparison import Comparison
    from camserve_cli.packaging.explained_layer import find_layer
    from camserve_cli.packaging.find_weights import (
        fallback_weights,
        find_weights,
        folder_weights,
    )
    from camserve_cli.packaging.input_size import check_trained_size
    from camserve_cli.packaging.label_files import read_labels
    from camserve_cli.packaging.model_config import build_config, known_settings, with_layer
    from camserve_cli.packaging.preset_notes import (
        check_preset,
        has_own_preprocess,
        preset_notes,
    )
    from camserve_cli.packaging.weights_fit import fit_weights

    # A caller's own architecture may lie where the caller stands.
    sys.path.append(str(Path.cwd()))
    # What is included lies beside the architecture in the archive.
    sys.path += [str(path.resolve().parent) for path in include]
    names, label_notes = read_labels(labels) if labels else (Labels(()), list[str]())
    if from_hf:
        source = folder_weights(from_hf, own_labels=labels is not None)
    elif fallback_model:
        given = dict(pretrained.FALLBACK_MODEL)
        source = fallback_weights()
    else:
        given["arch"] = arch
        source = find_weights(arch, weights, given["arch_kwargs"], weights_key)
    check_preset(source, settings)
    section = source.fill_section(given)
    if layer:
        section["layer"], *section["layers"] = layer
    names = names if labels else Labels(source.categories)
    if not len(names):
        raise PackageError("the classes' names are not known; accepted: --labels FILE")
    config = build_config(section, settings)
    known = known_settings(config)
    own_code = local_source_files(known.arch, known.arch_kwargs)
    code = [*own_code, *include]
    if not fallback_model and is_import_path(known.arch, known.arch_kwargs):
        shape = (known.preprocess.channels, *known.preprocess.input_size)
        for imported in find_imports(known.arch, known.arch_kwargs, shape, code):
            typer.echo(f"package: {include_note(imported)}")
            code.append(imported.part)
    if known.task == "binary" and len(names) != 2:
        raise PackageError(
            f"handler.task binary is for two labels, of no and of yes, and there are {len(names)}; "
            "accepted: --labels FILE with two names"
        )
    network = build(known.arch, known.arch_kwargs, score_count(known.task, len(names)))
    check_trained_size(network, source.checkpoint.largest.tensors, known.preprocess, settings)
    fitted = fit_weights(
        network,
        source.converted_for(network),
        known.arch,
        len(names),
        labels is not None or from_hf is not None,
        known.task,
    )
    for note in [*source.notes, *fitted.notes, *label_notes]:
        typer.echo(f"package: {note}")
    if config["handler"]["layer"] is None:
        config = with_layer(config, find_layer(network, known, len(names)))
    publisher = source.publisher(network) if source.publisher else None
    comparison = Comparison.of(publisher, known, has_own_preprocess(settings))
    archive = Archive(name, version, config, fitted.state, names, code)
    replaced = archive.file(store).exists()
    try:
        file, found = archive.write(store, compress, comparison.photos, comparison.judge)
    except ArchiveError as error:
        raise PackageError(_with_given_files(str(error), config, weights, labels)) from None
    if ":" in known.arch and not own_code and not known.requires:
        typer.echo(
            f"package: the code of {known.arch} is in an installed package and not in the archive; "
            "the machine that serves the archive needs that package too"
        )
    for note in [*preset_notes(source, known, settings), *comparison.notes]:
        typer.echo(f"package: {note}")
    if replaced:
        typer.echo(f"package: {file} was there before and is replaced")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    typer.echo(
        f"{file}: {known.arch}, {found['classes']} classes, layers "
        f"{', '.join(found['layers'])}, {file.stat().st_size / 1e6:.1f} MB, sha256 {digest}"
    )


def _default_name(arch: str, from_hf: Path | None, fallback_model: bool) -> str:
    if fallback_model:
        return "efficientnet-lite0"
    if from_hf:
        return from_hf.resolve().name
    return (arch.removeprefix("timm:") or arch).replace(":", ".")


def _refuse_beside(option: str, value: object, others: Mapping[str, object]) -> None:
    """Refuse options that an option leaves nothing to do for."""
    for other, given in others.items():
        if value and given:
            raise PackageError(f"{option} and {other} exclude each other; accepted: one of them")


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
