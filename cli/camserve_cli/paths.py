"""Where things are: in a clone of the repository, and where a wheel is installed.

In a clone, an editable install included, everything lies in the repository. A wheel carries the
files that the command reads as package data, and what the command writes goes below the current
folder.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

from camserve_cli.errors import CommandError


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise CommandError(
            "the current folder does not exist any more; change to another"
        ) from None


_PACKAGE = Path(__file__).resolve().parent
_REPOSITORY = _PACKAGE.parent.parent

IN_CLONE = (_REPOSITORY / "handler" / "gradcam_handler.py").is_file()
#: What the command reads lies here, under the same names in both.
_FILES = _REPOSITORY if IN_CLONE else _PACKAGE / "files"
#: What it writes goes here: the repository's root, or the current folder.
ROOT = _REPOSITORY if IN_CLONE else _current_folder()

HANDLER = _FILES / "handler" / "gradcam_handler.py"
MODEL_CONFIG = _FILES / "handler" / "model-config.yaml"
CONFIG_PROPERTIES = _FILES / "config.properties"
LOG_CONFIG = _FILES / "log4j2.xml"
JAVA_LOGGING = _FILES / "logging.properties"
ENVOY_CONFIG = _FILES / "deploy" / "envoy.yaml"
ENVOY_SCRIPTS = {name: _FILES / "deploy" / f"{name}.lua" for name in ("drain", "edge")}

#: The folder of archives.
STORE = ROOT / "model_store"
#: What a running server leaves: logs, tokens, its process id.
RUN_DIR = Path(os.environ.get("RUN_DIR") or ROOT / ".run").resolve()
#: The folder of the server's certificate.
TLS = ROOT / ".tls"
#: As ``--help`` names them: a clone's path may be long.
_OWNER = "the clone's " if IN_CLONE else ""
STORE_SHOWN, TLS_SHOWN = f"{_OWNER}{STORE.name}", f"{_OWNER}{TLS.name}"
CONFIG_SHOWN = f"{_OWNER or 'the packaged '}{CONFIG_PROPERTIES.name}"


def command_line() -> str:
    """This command, as it can be typed in the current folder; a virtual environment may be off."""
    program, here = Path(sys.executable).with_name("camserve"), _current_folder()
    if shutil.which("camserve") == str(program):
        return "camserve"
    return quote(str(program.relative_to(here) if program.is_relative_to(here) else program))
