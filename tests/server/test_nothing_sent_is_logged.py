"""No byte of a request's body gets into a log or a metric, whatever fails.

Some 250 requests, most of them broken, carry a marker in their bodies. They are sent to the bare
ports and through the edge. Which replies repeat the marker must agree with docs/security.md.
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

from devtools.fuzzing.behind_edge import behind_edge
from devtools.fuzzing.calls import Call
from devtools.fuzzing.server_target import Answer, ServerTarget
from tests.support import marked_requests as marked
from tests.support.scripts import COLOR_MODEL, ROOT, run_script
from tests.support.server_client import Client

#: Maximum length of a log line in bytes.
MAX_LINE = 8192
#: Connections that send at the same time, so that batches fill.
CONNECTIONS = 6
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

#: Requests whose bodies TorchServe repeats in its own reply, on the bare ports.
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
#: Over gRPC, TorchServe repeats the name and version of an unknown model; the edge passes it on.
ECHOED_NAMES = {
    *(
        f"a {what} named like the marker, {method}"
        for what in ("model", "version")
        for method in ("Predictions", "StreamPredictions")
    ),
    "tensor for a model named like the marker, ModelInfer",
}
#: The same on the management addresses; and a workflow's URL.
ECHOED_MANAGEMENT = {"describe", "scale", "set default", "JSON of an url, POST /workflows"}


@dataclass(frozen=True)
class Exchange:
    """The marker that was sent, and the answer."""

    marker: bytes
    answer: Answer

    @property
    def echoes(self) -> bool:
        """Whether the answer repeats the marker."""
        text = b"".join(self.answer.body).decode("utf-8", "replace") + self.answer.detail
        return bool(marked.encodings_in(text, self.marker))


def send(
    target: ServerTarget, table: Mapping[str, marked.CallBuilder], first: int
) -> dict[str, Exchange]:
    """Send each request of a table with a marker of its own, numbered from ``first`` on."""
    calls = [(name, marked.marker(first + n), make) for n, (name, make) in enumerate(table.items())]

    def send_some(start: int) -> list[tuple[str, Exchange]]:
        with target.connection() as connection:
            return [
                (name, Exchange(marker, connection.send(make(marker))))
                for name, marker, make in calls[start::CONNECTIONS]
            ]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return {
            name: exchange
            for part in pool.map(send_some, range(CONNECTIONS))
            for name, exchange in part
        }


@pytest.fixture(scope="module")
def target(server: Client) -> ServerTarget:
    return ServerTarget.from_run_dir(server.run_dir, server.token, COLOR_MODEL, predicts_color=True)


@pytest.fixture(scope="module")
def management(server: Client, target: ServerTarget) -> ServerTarget:
    token = run_script("serve.sh", "token", "management", **server.ports).strip()
    http, grpc = server.ports["MANAGEMENT_PORT"], server.ports["GRPC_MANAGEMENT_PORT"]
    return replace(target, base=f"http://127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}", token=token)


@pytest.fixture(scope="module")
def edge(server: Client, target: ServerTarget, folder: Path) -> Iterator[ServerTarget]:
    """The same server, through the edge."""
    with behind_edge(target, server.run_dir, folder) as edge:
        yield edge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the edge's log."""
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="module")
def bare(target: ServerTarget) -> dict[str, Exchange]:
    return send(target, {**marked.HTTP, **marked.GRPC}, 1000)


@pytest.fixture(scope="module")
def managed(management: ServerTarget) -> dict[str, Exchange]:
    return send(management, {**marked.MANAGE_HTTP, **marked.MANAGE_GRPC}, 2000)


@pytest.fixture(scope="module")
def sent_to_metrics(server: Client, management: ServerTarget) -> dict[str, Exchange]:
    metrics = replace(management, base=f"http://127.0.0.1:{server.ports['METRICS_PORT']}")
    return send(metrics, marked.MANAGE_HTTP, 3000)


@pytest.fixture(scope="module")
def through_edge(edge: ServerTarget) -> dict[str, Exchange]:
    return send(edge, {**marked.HTTP, **marked.GRPC}, 4000)


@pytest.fixture(scope="module")
def raw(server: Client) -> dict[str, Exchange]:
    """Invalid HTTP, to every port of HTTP or gRPC."""
    exchanges = {}
    for n, (name, make) in enumerate(marked.RAW.items()):
        for m, (variable, port) in enumerate(server.torchserve_ports.items()):
            marker = marked.marker(5000 + 20 * n + m)
            body = send_raw(int(port), make(marker, server.token))
            exchanges[f"{name}, {variable}"] = Exchange(marker, Answer("raw", (body,), "", 0))
    return exchanges


def send_raw(port: int, data: bytes) -> bytes:
    """All that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""


def wait_for_log(server: Client) -> None:
    """Wait until the log has the line of one more request, and so everything before it."""
    reply = server.http.post(f"/predictions/{COLOR_MODEL}", content=marked.PNG)
    deadline = time.monotonic() + 10
    log = server.run_dir / "logs" / "server.log"
    while reply.headers["x-request-id"] not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    # Other threads write the workers' standard error and gRPC's own log.
    time.sleep(0.3)


def files(server: Client) -> dict[Path, str]:
    """Every file that a running server has written."""
    return {
        path: path.read_text(errors="replace")
        for path in sorted(server.run_dir.rglob("*"))
        if path.is_file()
    }


def test_every_request_was_answered(
    bare: dict[str, Exchange], through_edge: dict[str, Exchange]
) -> None:
    for exchanges in (bare, through_edge):
        assert len(exchanges) > 180
        assert [name for name, one in exchanges.items() if one.answer.code == "none"] == []
    statuses = {exchange.answer.code for exchange in bare.values()}
    assert {"400", "403", "404", "415", "500", "OK", "UNKNOWN", "INTERNAL"} <= statuses


def test_no_file_of_the_server_has_a_byte_of_a_body(
    server: Client,
    bare: dict[str, Exchange],
    managed: dict[str, Exchange],
    sent_to_metrics: dict[str, Exchange],
    through_edge: dict[str, Exchange],
    raw: dict[str, Exchange],
    folder: Path,
) -> None:
    wait_for_log(server)
    texts = {**files(server), folder / "edge.log": (folder / "edge.log").read_text()}
    assert {path.name for path in texts} >= {"server.log", "console.log", "grpc.0.log", "edge.log"}
    leaks = [
        (name, path.name, encoding)
        for exchanges in (bare, managed, sent_to_metrics, through_edge, raw)
        for name, exchange in exchanges.items()
        for path, text in texts.items()
        for encoding in marked.encodings_in(text, exchange.marker)
    ]
    assert leaks == []


def test_no_metric_has_a_byte_of_a_body(
    server: Client,
    bare: dict[str, Exchange],
    managed: dict[str, Exchange],
    through_edge: dict[str, Exchange],
) -> None:
    wait_for_log(server)
    text = httpx.get(f"http://127.0.0.1:{server.ports['METRICS_PORT']}/metrics").text
    assert f'Requests{{ModelName="{COLOR_MODEL}"' in text
    exchanges = {**bare, **managed, **through_edge}
    leaks = [name for name, one in exchanges.items() if marked.encodings_in(text, one.marker)]
    assert leaks == []


def test_every_line_is_json_of_at_most_8_kb(
    server: Client,
    bare: dict[str, Exchange],
    managed: dict[str, Exchange],
    raw: dict[str, Exchange],
) -> None:
    wait_for_log(server)
    for name in ("server.log", "grpc.0.log"):
        lines = (server.run_dir / "logs" / name).read_bytes().split(b"\n")[:-1]
        assert lines
        assert max(map(len, lines)) <= MAX_LINE
        assert all({"time", "level", "logger"} <= json.loads(line).keys() for line in lines)
    console = (server.run_dir / "console.log").read_bytes()
    assert len(console) <= MAX_LINE


def test_the_bare_ports_repeat_what_is_documented_and_nothing_else(
    bare: dict[str, Exchange], managed: dict[str, Exchange], sent_to_metrics: dict[str, Exchange]
) -> None:
    echoing = {name for name, one in bare.items() if one.echoes}
    assert echoing == ECHOED_FORMS | ECHOED_NAMES
    assert {name for name, one in managed.items() if one.echoes} == ECHOED_MANAGEMENT
    assert {name for name, one in sent_to_metrics.items() if one.echoes} == set()
    # All of them are TorchServe's own replies: the handler's errors are objects.
    own = [bare[name].answer for name in ECHOED_FORMS]
    assert {answer.code for answer in own} == {"500", "403"}
    assert [answer for answer in own if b'"error"' in answer.body[0]] == []


def test_through_the_edge_no_form_is_repeated(through_edge: dict[str, Exchange]) -> None:
    assert {name for name, one in through_edge.items() if one.echoes} == ECHOED_NAMES
    rejected = [through_edge[name].answer for name in ECHOED_FORMS - {"a workflow's form"}]
    assert {answer.code for answer in rejected} == {"400"}
    codes = [json.loads(answer.body[0])["error"]["code"] for answer in rejected]
    assert set(codes) == {"invalid_request"}


def test_through_the_edge_no_answer_is_a_5xx(through_edge: dict[str, Exchange]) -> None:
    assert [name for name, one in through_edge.items() if one.answer.code[0] == "5"] == []


@pytest.mark.parametrize("address", ["bare", "edge"])
def test_5_mb_that_cannot_be_decoded_cost_a_line(
    address: str, server: Client, target: ServerTarget, edge: ServerTarget
) -> None:
    path = f"/predictions/{COLOR_MODEL}"
    marker = marked.marker(9000)
    body = b"data=" + marker * (5_000_000 // len(marker)) + b"%zz"
    headers = tuple(FORM.items())
    wait_for_log(server)
    before = sum(map(len, files(server).values()))
    with {"bare": target, "edge": edge}[address].connection() as connection:
        answer = connection.send(Call("marked", "http", "POST", path, headers, body))
    wait_for_log(server)
    grown = sum(map(len, files(server).values())) - before
    # Netty may report a buffer that TorchServe leaked before.
    assert 0 < grown < MAX_LINE
    texts = files(server).values()
    assert [leak for text in texts for leak in marked.encodings_in(text, marker)] == []
    statuses, max_length = {
        "bare": (("500", "none"), len(body) + 200),
        "edge": (("400", "502"), 500),
    }[address]
    # TorchServe resets the connection before an error's reply of megabytes is sent completely.
    assert answer.code in statuses
    assert len(b"".join(answer.body)) < max_length


def test_the_documents_name_every_exception_that_is_repeated(bare: dict[str, Exchange]) -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    replies = [json.loads(bare[name].answer.body[0]) for name in ECHOED_FORMS]
    for type_ in {reply["type"] for reply in replies}:
        assert re.search(rf"`{type_}`", text)
