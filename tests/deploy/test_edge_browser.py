"""Scripts of a page in a real Chromium call the edge from the page's own origin, as CORS allows."""

from __future__ import annotations

import base64
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

import pytest

from camserve_cli.serving.certificates import Certificate
from tests.support import color_resnet
from tests.support.edge import Edge, running
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

pytestmark = pytest.mark.env

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60), ("red", (60, 60), 30)))
#: A package of npm that contains Chromium's headless shell, and the libraries that it needs.
CHROMIUM = "@sparticuz/chromium@147.0.0"
UNPACK = """
const fs = require("fs"), zlib = require("zlib"), bin = "node_modules/@sparticuz/chromium/bin/";
for (const [from, to] of [["chromium.br", "chromium"], ["al2023.tar.br", "libraries.tar"]])
  fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(bin + from)), {mode: 0o700});
"""
#: Calls in all ways that the edge lets a page use, and tells what came of it.
PAGE = """<script>
const {edge, token, photo, path} = %s;
const bytes = Uint8Array.from(atob(photo), character => character.charCodeAt(0));
const form = new FormData();
form.append("data", new Blob([bytes]));
form.append("target", "red");
const bearer = {Authorization: "Bearer " + token};
const calls = {
  form: {headers: bearer, body: form},
  json: {headers: {...bearer, "Content-Type": "application/json"},
         body: JSON.stringify({image: photo, target: "red"})},
  header: {headers: {...bearer, "X-Explain": '{"target": "red"}'}, body: bytes},
  "without a token": {body: bytes},
  "too large": {headers: bearer, body: new Uint8Array(30000000)},
};
async function call(request) {
  try {
    const reply = await fetch(edge + path, {method: "POST", ...request});
    const body = await reply.json();
    return {status: reply.status, id: reply.headers.get("x-request-id"),
            found: body.error ? body.error.code : body.explanations.map(one => one.label)};
  } catch (failure) { return {failure: failure.name}; }
}
(async () => {
  const found = {};
  for (const [name, request] of Object.entries(calls)) found[name] = await call(request);
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """A command that opens a page; an environment that names the libraries is part of it."""
    folder = tmp_path_factory.mktemp("chromium")
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


def found_by_page(edge: Edge, server: PageServer, chromium: list[str | Path]) -> dict[str, Any]:
    given = {
        "edge": f"https://127.0.0.1:{edge.port}",
        "token": edge.token,
        "photo": base64.b64encode(PHOTO).decode(),
        "path": f"/predictions/{COLOR_MODEL}",
    }
    server.page = (PAGE % json.dumps(given)).encode()
    process = subprocess.Popen(
        [*chromium, server.origin],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(edge.log.parent)},
    )
    try:
        return server.found.get(timeout=60)
    finally:
        process.kill()
        process.wait()


def test_a_page_of_a_listed_origin_calls(
    server: Client, made: Certificate, tmp_path: Path, chromium: list[str | Path]
) -> None:
    with page_server() as pages:
        origins = f"https://cam.example,{pages.origin}"
        with running(server, made, tmp_path, cors_origins=origins) as edge:
            found = found_by_page(edge, pages, chromium)
    for way in ("form", "json", "header"):
        assert (found[way]["status"], found[way]["found"]) == (200, ["red"])
        assert found[way]["id"]
    assert (found["without a token"]["status"], found["without a token"]["found"]) == (
        401, "unauthorized",
    )  # fmt: skip
    assert (found["too large"]["status"], found["too large"]["found"]) == (413, "request_too_large")


@pytest.mark.parametrize("origins", ["[]", "http://localhost:1"])
def test_a_page_of_another_origin_cannot(
    server: Client, made: Certificate, tmp_path: Path, chromium: list[str | Path], origins: str
) -> None:
    with page_server() as pages, running(server, made, tmp_path, cors_origins=origins) as edge:
        found = found_by_page(edge, pages, chromium)
    assert {one.get("failure") for one in found.values()} == {"TypeError"}
