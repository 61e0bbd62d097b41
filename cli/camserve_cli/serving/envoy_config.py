"""The settings of deploy/envoy.yaml: what each accepts, and the file with other values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from camserve_cli.errors import CommandError

#: A value and, in the comment behind it, its setting's name.
_SETTING = re.compile(r"(?m)(?<=: )(?P<value>\S+)(?P<comment> # <(?P<name>\w+)>)$")
_WHOLE = re.compile(r"[1-9][0-9]{0,18}")
# Envoy counts in milliseconds: what is shorter would become 0, which is no limit.
_SECONDS = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?s")
# As a browser writes an origin (RFC 6454, 6.2): in small letters, without the scheme's own port.
_ORIGIN = re.compile(
    r"https?://([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)
_YEAR = 365 * 24 * 60 * 60


class EdgeError(CommandError):
    """What keeps Envoy from being started, in words for the person who runs it."""


@dataclass(frozen=True)
class Kind:
    """The kind of a setting's value.

    Attributes:
        accepted: what it accepts, in words.
        accepts: whether a value is accepted.
        write: a value -> YAML.
    """

    accepted: str
    accepts: Callable[[str], bool]
    write: Callable[[str], str] = str


def _quote(value: str) -> str:
    # A string of JSON is one of YAML, but Envoy cannot read JSON's ASCII of an emoji: \ud83d\ude00
    return json.dumps(value, ensure_ascii=False)


def _whole_number(name: str, largest: int) -> Kind:
    return Kind(
        f"{name} from 1 to {largest}",
        lambda value: bool(_WHOLE.fullmatch(value)) and int(value) <= largest,
    )


def _is_duration(value: str) -> bool:
    return bool(_SECONDS.fullmatch(value)) and float(value.removesuffix("s")) <= _YEAR


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_path(value: str) -> bool:
    try:
        return bool(value.encode())
    except UnicodeEncodeError:
        return False


def _origins(value: str) -> list[str]:
    return [] if value == "[]" else value.split(",")


_PORT = _whole_number("a port", 65535)
# Envoy keeps them in 32 bits, and its memory in 64.
_COUNT = _whole_number("a whole number", 2**32 - 1)
_MEMORY = _whole_number("a number of bytes", 2**63 - 1)
_DURATION = Kind(f"seconds, as 10s or 0.5s, up to {_YEAR}s, and 0s for no limit", _is_duration)
# Envoy looks up no host names here.
_ADDRESS = Kind("an IP address, as 127.0.0.1 or ::1", _is_address, write=_quote)
_FILE = Kind("the path of a file, in UTF-8", _is_path, write=_quote)
_ORIGINS = Kind(
    "origins of pages with commas between, as https://cam.example,http://localhost:3000, or [] "
    "for none",
    lambda value: all(_ORIGIN.fullmatch(origin) for origin in _origins(value)),
    write=lambda value: json.dumps(
        [{"exact": origin} for origin in _origins(value)], separators=(",", ":")
    ),
)


def _kind(name: str, shipped: str) -> Kind:
    """The kind of a setting, by its name and the value in deploy/envoy.yaml."""
    if name.endswith("_address"):
        return _ADDRESS
    if name.endswith("_port"):
        return _PORT
    if name == "max_memory":
        return _MEMORY
    if name == "cors_origins":
        return _ORIGINS
    if shipped.isdecimal():
        return _COUNT
    return _DURATION if _is_duration(shipped) else _FILE


def settings(source: str) -> dict[str, str]:
    """The settings of a configuration, and their values there."""
    return {found["name"]: found["value"] for found in _SETTING.finditer(source)}


def render_config(source: str, chosen: Mapping[str, str]) -> str:
    """The configuration with other values.

    Args:
        source: YAML, with a comment <name> behind each value that is a setting.
        chosen: values by name.

    Raises:
        EdgeError: there is no such setting, or it does not accept its value.
    """
    shipped = settings(source)
    written = {name: _in_yaml(name, value, shipped) for name, value in chosen.items()}
    return _SETTING.sub(
        lambda found: written.get(found["name"], found["value"]) + found["comment"], source
    )


def _in_yaml(name: str, value: str, shipped: Mapping[str, str]) -> str:
    """A value as YAML has it.

    Raises:
        EdgeError: there is no such setting, or it does not accept the value.
    """
    if name not in shipped:
        raise EdgeError(f"no setting {name!r}; accepted: {', '.join(sorted(shipped))}")
    kind = _kind(name, shipped[name])
    if not kind.accepts(value):
        raise EdgeError(f"{name}={value!r}: accepted is {kind.accepted}")
    return kind.write(value)
