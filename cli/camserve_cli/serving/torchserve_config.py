"""TorchServe's config.properties for one server: ports, places and TLS filled in."""

from __future__ import annotations

import os
import re
import socket
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from camserve_cli.paths import CONFIG_PROPERTIES, RUN_DIR
from camserve_cli.serving.certificates import Certificate
from camserve_cli.serving.local_server import ServerError

#: The variable that overrides each address of config.properties.
PORT_VARIABLES = {
    "inference_address": "INFERENCE_PORT",
    "management_address": "MANAGEMENT_PORT",
    "metrics_address": "METRICS_PORT",
    "grpc_inference_port": "GRPC_INFERENCE_PORT",
    "grpc_management_port": "GRPC_MANAGEMENT_PORT",
}

#: What --tls sets.
TLS_KEYS = frozenset(
    {"private_key_file", "certificate_file", "enable_grpc_ssl", "keystore", "keystore_pass"}
)
#: What TorchServe lets a reply have where nothing else is said, in bytes.
DEFAULT_RESPONSE_SIZE = 6_553_500


def write(source: Path, store: Path, certificate: Certificate | None) -> dict[str, str]:
    """Write RUN_DIR/config.properties: the source with ports, places and TLS filled in.

    Returns:
        Its keys and values.

    Raises:
        ServerError: the source cannot be read, leaves an address to TorchServe's defaults, or sets
            up TLS by itself.
    """
    try:
        text = source.read_text("utf-8")
    except OSError as failure:
        raise ServerError(f"--config {source}: {failure.strerror}") from None
    except UnicodeDecodeError:
        raise ServerError(f"--config {source} is no text in UTF-8") from None
    values, lines = {}, []
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and not key.startswith("#"):
            variable = PORT_VARIABLES.get(key, "")
            if port := os.environ.get(variable):
                value = re.sub(r"\d+$", str(_parse_port(variable, port)), value)
            if key in TLS_KEYS or value.startswith("https:"):
                raise ServerError(f"--config {source} sets {key}: TLS is set up by --tls FOLDER")
            if certificate and key.endswith("_address"):
                value = value.replace("http:", "https:")
            if key == "allowed_urls":
                value = value.replace("file:///model_store/", f"file://{store}/")
            if key == "metrics_config":
                # TorchServe would look for it where it runs.
                places = [
                    folder / value for folder in (source.resolve().parent, CONFIG_PROPERTIES.parent)
                ]
                value = str(next((place for place in places if place.exists()), places[0]))
            values[key] = value
            line = f"{key}={value}"
        lines.append(line)
    missing = {*PORT_VARIABLES, "grpc_inference_address"} - values.keys()
    if missing:
        raise ServerError(f"--config {source} must set {', '.join(sorted(missing))}")
    if certificate:
        secured = {
            "private_key_file": str(certificate.key),
            "certificate_file": str(certificate.chain),
            "enable_grpc_ssl": "true",
        }
        values.update(secured)
        lines += [f"{key}={value}" for key, value in secured.items()]
    (RUN_DIR / "config.properties").write_text("\n".join([*lines, ""]), "utf-8")
    return values


def _parse_port(name: str, text: str) -> int:
    """The port that a variable or a key of config.properties names.

    Raises:
        ServerError: it is no port.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ServerError(f"{name}={text[:100]}: accepted is a port, 1 to 65535")
    return int(text)


def check_ports(config: Mapping[str, str], others: Mapping[str, str]) -> dict[str, int]:
    """Name the port that something else listens on; TorchServe would just end.

    Args:
        others: further ports to listen on, by the variables that set them.

    Returns:
        The further ports.

    Raises:
        ServerError: a port is taken, given to two addresses, or none.
    """
    users: dict[int, str] = {}
    wanted = [
        (variable, _parse_port(key, config[key].rpartition(":")[2]))
        for key, variable in PORT_VARIABLES.items()
    ]
    parsed = {variable: _parse_port(variable, port) for variable, port in others.items()}
    for variable, port in [*wanted, *parsed.items()]:
        if (user := users.setdefault(port, variable)) != variable:
            raise ServerError(f"port {port} is given twice, by {user} and {variable}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise ServerError(f"port {port} is taken; {variable} names another") from None
    return parsed


def model_config(archive: Path) -> dict[str, Any]:
    """An archive's model-config.yaml; empty where it has none.

    Raises:
        ServerError: the file is no archive, or its model-config.yaml no mapping.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            names = packed.namelist()
            text = packed.read("model-config.yaml") if "model-config.yaml" in names else b"{}"
        config = yaml.safe_load(text)
    except (zipfile.BadZipFile, zlib.error, yaml.YAMLError) as failure:
        reason = str(failure).splitlines()[0]
        raise ServerError(
            f"{archive} is damaged, or no archive: {reason}; build it with camserve package, or "
            "name the models to serve with --models"
        ) from None
    if not isinstance(config, dict):
        raise ServerError(f"{archive}: its model-config.yaml has no keys")
    return config


def check_replies(config: dict[str, str], archives: Iterable[Path]) -> None:
    """Refuse an archive whose replies may be larger than TorchServe takes: its worker would end.

    Raises:
        ServerError: there is one.
    """
    most = int(config.get("max_response_size", DEFAULT_RESPONSE_SIZE))
    for archive in archives:
        limits = (model_config(archive).get("handler") or {}).get("limits") or {}
        allowed = limits.get("reply_bytes")
        if isinstance(allowed, int) and allowed > most:
            raise ServerError(
                f"{archive.name} may reply with {allowed} bytes (handler.limits.reply_bytes), but "
                f"max_response_size is {most}: such a reply ends its worker; accepted: a "
                "max_response_size of at least that, or an archive that replies with less"
            )
