"""Where things are: in a clone of the repository, and where a wheel is installed.

In a clone, an editable install included, everything lies in the repository. A wheel carries the
files that the command reads as package data, and what the command writes goes below the current
folder.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_REPOSITORY = _PACKAGE.parent.parent

IN_CLONE = (_REPOSITORY / "handler" / "gradcam_handler.py").is_file()
#: What the command reads lies here, under the same names in both.
_FILES = _REPOSITORY if IN_CLONE else _PACKAGE / "files"
#: What it writes goes here: the repository's root, or the current folder.
ROOT = _REPOSITORY if IN_CLONE else Path.cwd()

HANDLER = _FILES / "handler" / "gradcam_handler.py"
MODEL_CONFIG = _FILES / "handler" / "model-config.yaml"
CONFIG_PROPERTIES = _FILES / "config.properties"
LOG_CONFIG = _FILES / "log4j2.xml"
JAVA_LOGGING = _FILES / "logging.properties"
ENVOY_CONFIG = _FILES / "deploy" / "envoy.yaml"

#: The folder of archives.
STORE = ROOT / "model_store"
#: What a running server leaves: logs, tokens, its process id.
RUN_DIR = Path(os.environ.get("RUN_DIR", ROOT / ".run")).resolve()
#: The folder of the server's certificate.
TLS = ROOT / ".tls"
#: As ``--help`` names them: without the folder that the clone lies in, which may be long.
STORE_SHOWN, TLS_SHOWN = STORE.name, TLS.name
#: How the person at this machine calls ``camserve serve``; a clone's .venv may not be active.
SERVE = "bash scripts/serve.sh" if IN_CLONE else "camserve serve"
