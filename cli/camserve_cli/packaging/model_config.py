"""The model-config.yaml of an archive: the handler's own, what options say, and ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from camserve.errors import SettingsError, describe_exception, short_repr, unknown_name_message
from camserve.networks import ScoreReader, build, default_layer, run_network, set_eval
from camserve.settings import Settings
from camserve_cli.arguments import key_values
from camserve_cli.packaging.architecture_code import check_imports, local_source_files
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.input_size import input_size_arguments
from camserve_cli.paths import MODEL_CONFIG

_EXAMPLE_KEY = "batchSize=16 or handler.preprocess.resize=256"


def build_config(
    section: dict[str, Any], settings: list[str], classes: int, code: Sequence[Path] = ()
) -> dict[str, Any]:
    """The archive's model-config.yaml: the handler's own, what the options say, ``--set`` last.

    Args:
        section: keys of its section ``handler``.
        settings: KEY=VALUE, with dotted keys.
        classes: the number that the network tells apart.
        code: files and folders of code that the archive will contain beside the architecture's
            own.

    Raises:
        PackageError: a setting cannot be read, or its section is unknown; or the architecture's
            code ends the Python that runs it, or imports what the archive will not contain.
        SettingsError: a value is not accepted, or no layer can be found.
    """
    config: dict[str, Any] = yaml.safe_load(MODEL_CONFIG.read_text("utf-8"))
    config["handler"].update(section, layer=section.get("layer"))
    for key, text in key_values("--set", settings, _EXAMPLE_KEY).items():
        _set(config, key, text)
    handler = config["handler"]
    # What may not be known yet: the layer, and so which one requests may get by default.
    defaults = handler.get("defaults")
    if isinstance(defaults, dict) and handler.get("layer") is None:
        defaults = {key: value for key, value in defaults.items() if key != "layer"}
    filled = {**handler, "layer": handler.get("layer") or "any", "defaults": defaults}
    if handler.get("layer") is None:
        filled["layout"] = "auto"
    known = Settings.from_yaml({**config, "handler": filled})
    needed = input_size_arguments(known.arch, known.arch_kwargs, known.preprocess)
    if needed:
        handler["arch_kwargs"] = {**known.arch_kwargs, **needed}
        known = known.model_copy(update={"arch_kwargs": handler["arch_kwargs"]})
    if own_code := local_source_files(known.arch, known.arch_kwargs):
        shape = (1, known.preprocess.channels, *known.preprocess.input_size)
        check_imports(known.arch, known.arch_kwargs, shape, [*own_code, *code])
    if handler.get("layer") is None:
        handler["layer"] = _default_layer(known, classes)
    Settings.from_yaml(config)
    return config


def _set(config: dict[str, Any], key: str, text: str) -> None:
    """Change one key of model-config.yaml by the text of a ``--set``."""
    setting = f"{key}={text}"
    *path, last = key.split(".")
    section: Any = config
    for part in path:
        if isinstance(section, dict) and part and part not in section:
            raise PackageError(
                f"--set {short_repr(setting)}: {unknown_name_message('section', part, section)}"
            )
        section = section.get(part) if isinstance(section, dict) else None
    if not all([*path, last]) or not isinstance(section, dict) or key == "handler":
        raise PackageError(f"--set {short_repr(setting)}: accepted is KEY=VALUE, as {_EXAMPLE_KEY}")
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
    network = build(settings.arch, settings.arch_kwargs, settings.score_count(classes))
    set_eval(network)
    shape = (2, settings.preprocess.channels, *settings.preprocess.input_size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    photo, other = noise[:1], noise[1:]
    returned = run_network(network, photo)
    ScoreReader.find(settings.task, settings.output, classes, returned).attach(network)
    try:
        return default_layer(network, photo, other)
    except SettingsError:
        raise
    except Exception as failure:
        # It bears no hooks, as what torch.jit.script makes, or fails when it is run again.
        raise SettingsError(
            "the layer to explain cannot be looked for in the network: "
            f"{describe_exception(failure)}; accepted: --layer NAME"
        ) from None
