"""The model-config.yaml of an archive: the handler's own, what options say, and ``--set``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from camserve.errors import describe_exception, short_repr, unknown_name_message
from camserve.settings import Settings
from camserve_cli.arguments import key_values
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.input_size import input_size_arguments
from camserve_cli.paths import MODEL_CONFIG

_ACCEPTED_VALUES = (
    "accepted: a number, a text (in quotes where it has brackets, commas or colons), true or false,"
    " or a list, as [0.5, 0.5, 0.5]"
)
_EXAMPLE_KEY = "batchSize=16 or handler.preprocess.resize=256"


def build_config(section: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """The archive's model-config.yaml: the handler's own, what the options say, ``--set`` last.

    Its layer is None where none is given.

    Args:
        section: keys of its section ``handler``.
        settings: KEY=VALUE, with dotted keys.

    Raises:
        PackageError: a setting cannot be read, or its section is unknown.
        SettingsError: a value is not accepted.
    """
    config: dict[str, Any] = yaml.safe_load(MODEL_CONFIG.read_text("utf-8"))
    config["handler"].update(section, layer=section.get("layer"))
    for key, text in key_values("--set", settings, _EXAMPLE_KEY).items():
        _set(config, key, text)
    handler = config["handler"]
    known = known_settings(config)
    needed = input_size_arguments(known.arch, known.arch_kwargs, known.preprocess)
    if needed:
        handler["arch_kwargs"] = {**known.arch_kwargs, **needed}
    return config


def known_settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a model-config.yaml whose layer may not be known yet.

    Raises:
        SettingsError: a value is not accepted.
    """
    handler = config["handler"]
    if handler.get("layer") is not None:
        return Settings.from_yaml(config)
    # Which layer requests may get by default, and what the layout is said of, is not known either.
    defaults = handler.get("defaults")
    if isinstance(defaults, dict):
        defaults = {key: value for key, value in defaults.items() if key != "layer"}
    unknown = {"layer": "any", "defaults": defaults, "layout": "auto"}
    return Settings.from_yaml({**config, "handler": {**handler, **unknown}})


def with_layer(config: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """A model-config.yaml with that default layer.

    Raises:
        SettingsError: its settings name layers that are not served then.
    """
    complete = {**config, "handler": {**config["handler"], "layer": layer}}
    Settings.from_yaml(complete)
    return complete


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
    except yaml.MarkedYAMLError as failure:
        place = f" at character {mark.column + 1}" if (mark := failure.problem_mark) else ""
        raise PackageError(
            f"--set {short_repr(setting)}: the value is no YAML: {failure.problem or 'it'}{place}; "
            f"{_ACCEPTED_VALUES}"
        ) from None
    except Exception as failure:
        # Whatever its making of a value of a named type raises.
        raise PackageError(
            f"--set {short_repr(setting)}: the value is no YAML: {describe_exception(failure)}; "
            f"{_ACCEPTED_VALUES}"
        ) from None
