"""A real Chromium, headless, and a server of pages whose scripts report what they find."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

#: A package of npm that contains Chromium's headless shell, and the libraries that it needs.
CHROMIUM = "@sparticuz/chromium@147.0.0"
UNPACK = """
const fs = require("fs"), zlib = require("zlib"), bin = "node_modules/@sparticuz/chromium/bin/";
for (const [from, to] of [["chromium.br", "chromium"], ["al2023.tar.br", "libraries.tar"]])
  fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(bin + from)), {mode: 0o700});
"""


def install_chromium(folder: Path) -> list[str | Path]:
    """Install Chromium in a folder, from npm.

    Returns:
        A command that opens a page; an environment that names the libraries is part of it.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm
    assert node
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", CHROMIUM]
    for command in (install, [node, "-e", UNPACK]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with tarfile.open(folder / "libraries.tar") as libraries:
        libraries.extractall(folder, filter="data")
    return [
        "env", f"LD_LIBRARY_PATH={folder / 'lib'}",
        folder / "chromium", "--headless=shell", "--no-sandbox", "--no-zygote", "--disable-gpu",
        "--disable-dev-shm-usage", "--remote-debugging-port=0",
        # The tests' authority is not one of the system's.
        "--ignore-certificate-errors", f"--user-data-dir={folder / 'profile'}",
    ]  # fmt: skip


class PageServer(ThreadingHTTPServer):
    """Serves a page, and takes what its script found."""

    page = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.found: Queue[dict[str, Any]] = Queue()
        self.origin = f"http://localhost:{self.server_port}"


class PageHandler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.page)

    def do_POST(self) -> None:
        self.server.found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def page_server() -> Iterator[PageServer]:
    with PageServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def report_of_page(
    server: PageServer, page: str, chromium: list[str | Path], home: Path
) -> dict[str, Any]:
    """What a page's script posts to ``/found``, when Chromium has opened the page.

    Args:
        server: of the page.
        page: HTML.
        chromium: the result of :func:`install_chromium`.
        home: a folder for what Chromium writes beside its profile.
    """
    server.page = page.encode()
    process = subprocess.Popen(
        [*chromium, server.origin],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(home)},
    )
    try:
        return server.found.get(timeout=60)
    finally:
        process.kill()
        process.wait()
