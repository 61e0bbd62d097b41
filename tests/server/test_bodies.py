"""Bodies as HTTP clients send them, through a real server: each answered alike, or told of."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.color_resnet import photo, png
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

PHOTO = png(photo(("red", (100, 120), 50), ("blue", (230, 120), 30)))
B64 = base64.b64encode(PHOTO).decode()
TEXT = json.dumps({"image": {"b64": B64}, "outputs": ["map"], "target": "blue"})
URL = f"/predictions/{COLOR_MODEL}"
PARTS = (
    b'--b1\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n'
    + PHOTO
    + b'\r\n--b1\r\nContent-Disposition: form-data; name="target"\r\n\r\nblue'
    + b'\r\n--b1\r\nContent-Disposition: form-data; name="outputs"\r\n\r\nmap\r\n--b1--\r\n'
)


def reply_to(server: Client, body: bytes, **headers: str) -> tuple[int, Any]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = server.http.post(URL, content=body, headers=names)
    return reply.status_code, reply.json()


@pytest.fixture(scope="module")
def expected(server: Client) -> Any:
    status, reply = reply_to(server, TEXT.encode(), Content_Type="application/json")
    assert status == 200
    (explanation,) = reply["explanations"]
    assert explanation["label"] == "blue"
    return reply


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    "content_type",
    [
        "", "application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json",
        "text/json", "text/plain", "text/plain; charset=utf-16", "application/octet-stream",
    ],
)  # fmt: skip
def test_json_of_any_content_type_and_encoding(
    server: Client, expected: Any, content_type: str, encoding: str
) -> None:
    headers = {"Content_Type": content_type} if content_type else {}
    assert reply_to(server, TEXT.encode(encoding), **headers) == (200, expected)


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_bodies(server: Client, expected: Any, encoding: str, compress: Any) -> None:
    for content_type, body, path in (
        ("application/json", TEXT.encode(), ""),
        ("image/png", PHOTO, "/1.0/target=blue,outputs=map"),
    ):
        reply = server.http.post(
            URL + path,
            content=compress(body),
            headers={"Content-Type": content_type, "Content-Encoding": encoding},
        )
        assert (reply.status_code, reply.json()) == (200, expected)


def test_a_bomb_is_refused_at_the_limit(server: Client) -> None:
    bomb = gzip.compress(bytes(1 << 30), 9)
    status, reply = reply_to(server, bomb, Content_Encoding="gzip", Content_Type="image/png")
    assert (status, reply["error"]["code"]) == (413, "image_too_large")


def test_curl_sends_json_as_a_form(server: Client, expected: Any, tmp_path: Path) -> None:
    # TorchServe finds a field in it where there is an equals sign, as in padding.
    assert curl(server, tmp_path, TEXT.replace(B64, f"{B64}==")) == expected
    error = curl(server, tmp_path, TEXT)["error"]
    assert error["code"] == "missing_image"
    assert "Content-Type: application/json" in error["message"]


def curl(server: Client, folder: Path, text: str) -> Any:
    """The reply to ``curl -d``."""
    curl = shutil.which("curl")
    assert curl
    (folder / "body.json").write_text(text)
    url = f"http://127.0.0.1:{server.ports['INFERENCE_PORT']}{URL}"
    token = f"Authorization: Bearer {server.token}"
    done = subprocess.run(
        [curl, "-sS", "-H", token, "-d", f"@{folder / 'body.json'}", url],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "image/png"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_alone(server: Client, expected: Any, content_type: str, prefix: str) -> None:
    reply = server.http.post(
        f"{URL}/1.0/target=blue,outputs=map",
        content=(prefix + B64).encode(),
        headers={"Content-Type": content_type},
    )
    assert (reply.status_code, reply.json()) == (200, expected)


def test_the_largest_photo_fits_in_base64(server: Client, expected: Any) -> None:
    data = b"prVt" + bytes(20_000_000 - len(PHOTO) - 12)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    large = PHOTO[:-12] + chunk + PHOTO[-12:]
    assert len(large) == 20_000_000
    text = TEXT.replace(B64, base64.b64encode(large).decode())
    assert reply_to(server, text.encode(), Content_Type="application/json") == (200, expected)


def test_an_html_form(server: Client, expected: Any) -> None:
    fields = {"target": "blue", "outputs": "map", "layer": "", "_charset_": "utf-8", "submit": "Go"}
    for photo_field in (PHOTO, B64.encode()):
        reply = server.http.post(URL, data=fields, files={"data": ("a.png", photo_field)})
        assert (reply.status_code, reply.json()) == (200, expected)
    reply = server.http.post(URL, data={**fields, "data": B64})
    assert (reply.status_code, reply.json()) == (200, expected)


def test_a_multipart_form_is_read(server: Client, expected: Any) -> None:
    for boundary in ("b1", '"b1"'):
        content_type = f"multipart/form-data; boundary={boundary}"
        assert reply_to(server, PARTS, Content_Type=content_type) == (200, expected)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", PARTS),
        ("Multipart/Form-Data; Boundary=b1", PARTS),
        ("multipart/form-data; boundary=b2", PARTS),
        ("multipart/form-data; boundary=b1", PARTS[: PARTS.index(PHOTO) + len(PHOTO)]),
        ("multipart/form-data; boundary=b1", PHOTO),
    ],
)
def test_one_without_a_usable_boundary_is_told_of_it(
    server: Client, content_type: str, body: bytes
) -> None:
    status, reply = reply_to(server, body, Content_Type=content_type)
    assert (status, reply["error"]["code"]) == (400, "invalid_request")
    assert "boundary" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("application/json", b'{"image": ', "declared as JSON but is none: Expecting value"),
        ("text/plain", b'{"image": ', "begins like JSON but is none: Expecting value"),
        ("application/json", PHOTO, "declared as JSON but is none: "),
    ],
)
def test_what_is_no_json_is_told_of_where_it_breaks(
    server: Client, content_type: str, body: bytes, message: str
) -> None:
    status, reply = reply_to(server, body, Content_Type=content_type)
    assert (status, reply["error"]["code"]) == (400, "invalid_json")
    assert message in reply["error"]["message"]
