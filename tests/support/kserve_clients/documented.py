"""What README and docs/clients.md show of KServe's and Triton's clients."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.kserve_clients.server import OpenInferenceServer
from tests.support.scripts import IMAGENET, ROOT, run

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_IMPORTS = {"triton": re.compile(r"^(import|from) tritonclient\b", re.MULTILINE),
            "kserve": re.compile(r"^(import|from) kserve\b", re.MULTILINE)}  # fmt: skip


def is_of_other_client(code: str) -> bool:
    """Whether a block of Python needs the environment of KServe's or Triton's client."""
    return any(pattern.search(code) for pattern in _IMPORTS.values())


def documented_blocks(name: str, path: str) -> list[str]:
    """The blocks of a client in a page, in order.

    Args:
        name: ``triton`` or ``kserve``.
        path: of the page.
    """
    blocks: list[str] = _BLOCK.findall((ROOT / path).read_text())
    return [code for code in blocks if _IMPORTS[name].search(code)]


def run_block(python: Path, code: str, server: OpenInferenceServer, folder: Path) -> str:
    """Run a block as it stands, but for the ports; what it prints.

    Args:
        python: of the client's environment.
        server: that it calls.
        folder: the current one.
    """
    code = code.replace("127.0.0.1:8000", server.http).replace("127.0.0.1:8001", server.grpc)
    variables = {"MODEL": IMAGENET, "TOKEN": server.token}
    done = run(python, "-c", code, cwd=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout
