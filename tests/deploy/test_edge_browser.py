"""Scripts of a page in a real Chromium call the edge from the page's own origin, as CORS allows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from camserve_cli.serving.certificates import Certificate
from tests.support import color_resnet
from tests.support.browser import PageServer, page_server, report_of_page
from tests.support.edge import Edge, running
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

pytestmark = pytest.mark.env

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60), ("red", (60, 60), 30)))
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


def found_by_page(edge: Edge, server: PageServer, chromium: list[str | Path]) -> dict[str, Any]:
    given = {
        "edge": f"https://127.0.0.1:{edge.port}",
        "token": edge.token,
        "photo": base64.b64encode(PHOTO).decode(),
        "path": f"/predictions/{COLOR_MODEL}",
    }
    return report_of_page(server, PAGE % json.dumps(given), chromium, edge.log.parent)


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
