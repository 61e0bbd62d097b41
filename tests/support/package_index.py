"""A package index on this machine, and wheels with nothing in them to fill it with."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import unquote


def wheel(name: str, version: str, requires: Sequence[str] = ()) -> tuple[str, bytes]:
    """The file name and the content of a wheel that installs one module, named as the package."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = [
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    files = {
        f"{module}.py": f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return f"{module}-{version}-py3-none-any.whl", content.getvalue()


Answer = Callable[[BaseHTTPRequestHandler], None]


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Accept a request and say nothing, until the other side has gone."""
    handler.rfile.read()


def dribble(handler: BaseHTTPRequestHandler) -> None:
    """Answer a byte at a time, faster than any socket's timeout, until the other side has gone."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.1)


class Index(ThreadingHTTPServer):
    """Serves wheels by pages as pip reads them (PEP 503); keeps what was asked, and when."""

    daemon_threads = True

    def __init__(self, wheels: Sequence[tuple[str, bytes]], answer: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(wheels)
        self.answer = answer
        self.asked: list[tuple[str, float]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def handle_error(self, *_: object) -> None:
        """A client that leaves before it has its answer, as pip may, is no error of the index."""

    def page(self, project: str) -> bytes | None:
        names = [name for name in self.files if name.split("-")[0].replace("_", "-") == project]
        if not names:
            return None
        hashes = {name: hashlib.sha256(self.files[name]).hexdigest() for name in names}
        links = [f'<a href="/files/{name}#sha256={hashes[name]}">{name}</a>' for name in names]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        index = cast("Index", self.server)
        path = unquote(self.path)
        index.asked.append((path, time.monotonic()))
        if index.answer:
            index.answer(self)
            return
        folder, _, name = path.strip("/").partition("/")
        found = index.page(name) if folder == "simple" else index.files.get(name)
        if found is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if folder == "simple" else "application/zip")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def serving(
    wheels: Sequence[tuple[str, bytes]] = (), answer: Answer | None = None
) -> Iterator[Index]:
    """An index of some wheels; with ``answer``, one that does only that whatever it is asked."""
    with Index(wheels, answer) as index:
        thread = threading.Thread(target=index.serve_forever)
        thread.start()
        try:
            yield index
        finally:
            index.shutdown()
            thread.join()
