"""No byte of a request's body is in a log or a metric, however a server fails on it.

A marker stands in the body of each of some 250 requests, most of them broken, to the bare ports and
through the edge. What replies repeat of it is held to what docs/security.md says.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from soaking.behind import edge
from soaking.calls import Call
from soaking.target import Answer, Target
from tests.support import marked_requests as marked
from tests.support.scripts import COLOURS, ROOT, script
from tests.support.server_client import Client

#: What no line of a log may exceed, in bytes.
LONGEST = 8192
#: Connections that send at once, so that batches fill.
CONNECTIONS = 6
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

#: Whose bodies TorchServe repeats to the caller in its own reply, on the bare ports.
ECHOED_FORMS = {
    # The whole field: its value, or its name.
    *(f"%zz in a value{path}" for path in ("", ", invocations", ", explanations")),
    "%zz in a name",
    "% at the end",
    "%e at the end",
    "%u",
    "a form's bad charset",
    "a workflow's form",
    # The value of a part's header.
    "filename* of a charset that is the marker",
    "filename* of a charset with a space",
    "filename* with %zz",
    "a part's charset that is the marker",
    "a part's charset with a space",
    "a transfer encoding that is the marker",
    "multipart/mixed that holds a file",
}
#: Over gRPC, the name and version of a model that there is not; the edge passes that on.
ECHOED_NAMES = {
    *(
        f"a {what} called as the marker, {method}"
        for what in ("model", "version")
        for method in ("Predictions", "StreamPredictions")
    ),
    "tensor for a model called as the marker, ModelInfer",
}
#: On the management addresses, likewise; and a workflow's address.
ECHOED_MANAGEMENT = {"describe", "scale", "set default", "JSON of an url, POST /workflows"}


@dataclass(frozen=True)
class Sent:
    """What was sent, and what came back."""

    mark: bytes
    answer: Answer

    @property
    def echoes(self) -> bool:
        text = b"".join(self.answer.body).decode("utf-8", "replace") + self.answer.says
        return bool(marked.found(self.mark, text))


def send(target: Target, table: Mapping[str, marked.Make], first: int) -> dict[str, Sent]:
    """Each request of a table, with a marker of its own from ``first`` on."""
    calls = [(name, marked.marker(first + n), make) for n, (name, make) in enumerate(table.items())]

    def some(start: int) -> Iterator[tuple[str, Sent]]:
        with target.connection() as connection:
            for name, mark, make in calls[start::CONNECTIONS]:
                yield name, Sent(mark, connection.send(make(mark)))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        parts = pool.map(lambda start: list(some(start)), range(CONNECTIONS))
        return {name: sent for part in parts for name, sent in part}


@pytest.fixture(scope="module")
def target(server: Client) -> Target:
    pid = json.loads((server.run_dir / "server.json").read_text())["pid"]
    address = f"127.0.0.1:{server.ports['GRPC_INFERENCE_PORT']}"
    base = str(server.http.base_url)
    return Target(base, address, server.token, pid, COLOURS, colours=True)


@pytest.fixture(scope="module")
def management(server: Client, target: Target) -> Target:
    token = script("serve.sh", "token", "management", **server.ports).strip()
    http, grpc = server.ports["MANAGEMENT_PORT"], server.ports["GRPC_MANAGEMENT_PORT"]
    return replace(target, base=f"http://127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}", token=token)


@pytest.fixture(scope="module")
def behind(server: Client, target: Target, folder: Path) -> Iterator[Target]:
    """The same server, through the edge."""
    with edge(target, server.run_dir, folder) as through:
        yield through


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the edge's log lies."""
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="module")
def bare(target: Target) -> dict[str, Sent]:
    return send(target, {**marked.HTTP, **marked.GRPC}, 1000)


@pytest.fixture(scope="module")
def managed(server: Client, management: Target) -> dict[str, Sent]:
    return send(management, {**marked.MANAGE_HTTP, **marked.MANAGE_GRPC}, 2000)


@pytest.fixture(scope="module")
def measured(server: Client, management: Target) -> dict[str, Sent]:
    """To the metrics' address."""
    metrics = replace(management, base=f"http://127.0.0.1:{server.ports['METRICS_PORT']}")
    return send(metrics, marked.MANAGE_HTTP, 3000)


@pytest.fixture(scope="module")
def through_edge(behind: Target) -> dict[str, Sent]:
    return send(behind, {**marked.HTTP, **marked.GRPC}, 4000)


@pytest.fixture(scope="module")
def raw(server: Client) -> dict[str, Sent]:
    """What is no HTTP, to every port that speaks it or gRPC."""
    found = {}
    for n, (name, make) in enumerate(marked.RAW.items()):
        for m, (variable, port) in enumerate(server.ports.items()):
            if not variable.endswith("_PORT"):
                continue
            mark = marked.marker(5000 + 20 * n + m)
            body = by_socket(int(port), make(mark, server.token))
            found[f"{name}, {variable}"] = Sent(mark, Answer("raw", (body,), "", 0))
    return found


def by_socket(port: int, sent: bytes) -> bytes:
    """All that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""


def settle(server: Client) -> None:
    """Wait until what was logged before is in the file: the line of one more request is."""
    reply = server.http.post(f"/predictions/{COLOURS}", content=marked.PNG)
    deadline = time.monotonic() + 10
    log = server.run_dir / "logs" / "server.log"
    while reply.headers["x-request-id"] not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    # The workers' standard error and gRPC's own log have other threads.
    time.sleep(0.3)


def files(server: Client) -> dict[Path, str]:
    """Everything that a running server leaves."""
    return {
        path: path.read_text(errors="replace")
        for path in sorted(server.run_dir.rglob("*"))
        if path.is_file()
    }


def test_every_request_was_answered(bare: dict[str, Sent], through_edge: dict[str, Sent]) -> None:
    for sent in (bare, through_edge):
        assert len(sent) > 180
        assert [name for name, one in sent.items() if one.answer.code == "none"] == []
    statuses = {one.answer.code for one in bare.values()}
    assert {"400", "403", "404", "415", "500", "OK", "UNKNOWN", "INTERNAL"} <= statuses


def test_no_file_of_the_server_has_a_byte_of_a_body(
    server: Client,
    bare: dict[str, Sent],
    managed: dict[str, Sent],
    measured: dict[str, Sent],
    through_edge: dict[str, Sent],
    raw: dict[str, Sent],
    folder: Path,
) -> None:
    settle(server)
    texts = {**files(server), folder / "edge.log": (folder / "edge.log").read_text()}
    assert {path.name for path in texts} >= {"server.log", "console.log", "grpc.0.log", "edge.log"}
    leaks = [
        (name, path.name, form)
        for sent in (bare, managed, measured, through_edge, raw)
        for name, one in sent.items()
        for path, text in texts.items()
        for form in marked.found(one.mark, text)
    ]
    assert leaks == []


def test_no_metric_has_a_byte_of_a_body(
    server: Client, bare: dict[str, Sent], managed: dict[str, Sent], through_edge: dict[str, Sent]
) -> None:
    settle(server)
    text = httpx.get(f"http://127.0.0.1:{server.ports['METRICS_PORT']}/metrics").text
    assert f'Requests{{ModelName="{COLOURS}"' in text
    sent = {**bare, **managed, **through_edge}
    assert [name for name, one in sent.items() if marked.found(one.mark, text)] == []


def test_every_line_is_json_of_at_most_8_kb(
    server: Client, bare: dict[str, Sent], managed: dict[str, Sent], raw: dict[str, Sent]
) -> None:
    settle(server)
    for name in ("server.log", "grpc.0.log"):
        lines = (server.run_dir / "logs" / name).read_bytes().split(b"\n")[:-1]
        assert lines
        assert max(map(len, lines)) <= LONGEST
        assert all({"time", "level", "logger"} <= json.loads(line).keys() for line in lines)
    console = (server.run_dir / "console.log").read_bytes()
    assert len(console) <= LONGEST


def test_the_bare_ports_repeat_what_is_documented_and_nothing_else(
    bare: dict[str, Sent], managed: dict[str, Sent], measured: dict[str, Sent]
) -> None:
    echoing = {name for name, one in bare.items() if one.echoes}
    assert echoing == ECHOED_FORMS | ECHOED_NAMES
    assert {name for name, one in managed.items() if one.echoes} == ECHOED_MANAGEMENT
    assert {name for name, one in measured.items() if one.echoes} == set()
    # All of them are TorchServe's own: none is the handler's, whose errors are objects.
    own = [bare[name].answer for name in ECHOED_FORMS]
    assert {answer.code for answer in own} == {"500", "403"}
    assert [answer for answer in own if b'"error"' in answer.body[0]] == []


def test_through_the_edge_no_form_is_repeated(through_edge: dict[str, Sent]) -> None:
    assert {name for name, one in through_edge.items() if one.echoes} == ECHOED_NAMES
    refused = [through_edge[name].answer for name in ECHOED_FORMS - {"a workflow's form"}]
    assert {answer.code for answer in refused} == {"400"}
    codes = [json.loads(answer.body[0])["error"]["code"] for answer in refused]
    assert set(codes) == {"invalid_request"}


def test_through_the_edge_no_answer_is_a_5xx(through_edge: dict[str, Sent]) -> None:
    assert [name for name, one in through_edge.items() if one.answer.code[0] == "5"] == []


@pytest.mark.parametrize("way", ["bare", "edge"])
def test_5_mb_that_cannot_be_decoded_cost_a_line(
    way: str, server: Client, target: Target, behind: Target
) -> None:
    path = f"/predictions/{COLOURS}"
    mark = marked.marker(9000)
    body = b"data=" + mark * (5_000_000 // len(mark)) + b"%zz"
    headers = tuple(FORM.items())
    settle(server)
    before = sum(map(len, files(server).values()))
    with {"bare": target, "edge": behind}[way].connection() as connection:
        answer = connection.send(Call("marked", "http", "POST", path, headers, body))
    settle(server)
    grown = sum(map(len, files(server).values())) - before
    # Netty may tell of a buffer that TorchServe lost before.
    assert 0 < grown < LONGEST
    texts = files(server).values()
    assert [form for text in texts for form in marked.found(mark, text)] == []
    status, longest = {"bare": (("500", "none"), len(body) + 200), "edge": (("400", "502"), 500)}[
        way
    ]
    # TorchServe resets a connection before an error's reply of megabytes is through.
    assert answer.code in status
    assert len(b"".join(answer.body)) < longest


def test_the_documents_name_every_exception_that_is_repeated(bare: dict[str, Sent]) -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    replies = [json.loads(bare[name].answer.body[0]) for name in ECHOED_FORMS]
    for type_ in {reply["type"] for reply in replies}:
        assert re.search(rf"`{type_}`", text)
