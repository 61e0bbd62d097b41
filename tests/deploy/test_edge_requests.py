"""What reaches the handler through the edge: all that was said, or a refusal that names it."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support import color_resnet
from tests.support.edge import Edge
from tests.support.scripts import COLOR_MODEL

pytestmark = pytest.mark.usefixtures("no_script_fails")

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60), ("red", (60, 60), 30)))
B64 = base64.b64encode(PHOTO).decode()
#: As a form has it.
FORM_B64 = B64.replace("+", "%2B").replace("=", "%3D")
PATH = f"/predictions/{COLOR_MODEL}"
INVOCATIONS = f"/invocations?model_name={COLOR_MODEL}"
V1 = f"/v1/models/{COLOR_MODEL}:explain"
V2 = f"/v2/models/{COLOR_MODEL}/infer"

PNG = ("Content-Type", "image/png")


@dataclass(frozen=True)
class Sent:
    """A request; a body that is text is JSON, a list a multipart form, a photo by default."""

    path: str = PATH
    body: bytes | str | list[tuple[str, bytes]] = PHOTO
    headers: list[tuple[str, str]] = field(default_factory=list)

    def to(self, http: httpx.Client) -> httpx.Response:
        if isinstance(self.body, list):
            files = [(name, ("a.png" if name in FILES else None, data)) for name, data in self.body]
            return http.post(self.path, files=files, headers=self.headers)
        typed = [("Content-Type", "application/json")] if isinstance(self.body, str) else []
        return http.post(self.path, content=self.body, headers=[*typed, *self.headers])


FILES = ("data", "body", "image")


def explain(*values: str) -> list[tuple[str, str]]:
    return [("X-Explain", value) for value in values]


def form(text: str) -> Sent:
    return Sent(body=text.encode(), headers=[("Content-Type", "application/x-www-form-urlencoded")])


def parts(content_type: str, name: bytes = b'name="data"', ending: bytes = b"\r\n--b1--") -> Sent:
    """A form of one photo, with its own content type."""
    head = b"--b1\r\nContent-Disposition: form-data; " + name + b"\r\n\r\n"
    return Sent(body=head + PHOTO + ending, headers=[("Content-Type", content_type)])


PHOTO_AND_RED = f'"image": "{B64}", "outputs": "map", "target": "red"'
#: All explain "red".
AS_ONCE = {
    "query": Sent(f"{PATH}?target=red"),
    "query, version": Sent(f"{PATH}/1.0?target=red"),
    "query, explanations": Sent(f"/explanations/{COLOR_MODEL}?target=red"),
    "query, escaped": Sent(f"{PATH}?%74arget=%72ed"),
    "query, a plus unescaped": Sent(f"{PATH}?target=red&method=gradcam++"),
    "query, number": Sent(f"{PATH}?target=0&target=%200"),
    "query twice": Sent(f"{PATH}?target=red&top_k=2&target=red"),
    "query, options as JSON": Sent(f"{PATH}?options=%7B%22target%22:%22red%22%7D"),
    "query and path": Sent(f"{PATH}/1.0/target=red?target=red"),
    "query and header": Sent(f"{PATH}?top_k=2", headers=explain('{"target": "red"}')),
    "query and form": Sent(f"{PATH}?target=red", [("data", PHOTO), ("target", b"red")]),
    "query and JSON": Sent(f"{PATH}?top_k=2", f"{{{PHOTO_AND_RED}}}"),
    "query, invocations": Sent(f"{INVOCATIONS}&target=red&model_name={COLOR_MODEL}&target=red"),
    "query, predict": Sent(f"/{COLOR_MODEL}/predict?target=red"),
    "header twice": Sent(headers=explain('{"target": "red"}', '{"target": "red"}')),
    "header, one option each": Sent(headers=explain('{"target": "red"}', '{"top_k": 2}')),
    "form twice": Sent(body=[("target", b"red"), ("data", PHOTO), ("target", b"red")]),
    "form and header": Sent(
        body=[("data", PHOTO), ("target", b"0")], headers=explain('{"target": 0}')),
    "form, empty fields twice": Sent(
        body=[("data", PHOTO), ("target", b"red"), ("layer", b""), ("layer", b"")]),
    "urlencoded twice": form(f"target=red&data={FORM_B64}&target=re%64"),
    "JSON twice": Sent(body=f'{{{PHOTO_AND_RED}, "target": "red"}}'),
    "JSON, charset": Sent(
        body=f"{{{PHOTO_AND_RED}}}".encode(),
        headers=[("Content-Type", "application/json; charset=utf-8")]),
    "JSON as a form": form(f"{{{PHOTO_AND_RED}}}"),
    "JSON as a form, in lines": form(f"\ufeff\n {{{PHOTO_AND_RED}}}"),
    "JSON as a form, with a padded photo": form(f"{{{PHOTO_AND_RED}}}".replace(B64, B64 + "==")),
    "content type twice": Sent(
        f"{PATH}?target=red", headers=[PNG, PNG]),
    "capitals": Sent(
        f"{PATH}?target=red", parts("Multipart/Form-Data; Boundary=b1").body,
        [("Content-Type", "Multipart/Form-Data; Boundary=b1")]),
    "boundary in quotes": Sent(
        f"{PATH}?target=red", parts("").body,
        [("Content-Type", 'multipart/form-data; charset=utf-8; boundary="b1"')]),
    "name without quotes": Sent(
        f"{PATH}?target=red", parts("", b"name=data").body,
        [("Content-Type", "multipart/form-data; boundary=b1")]),
}  # fmt: skip


@pytest.mark.parametrize("sent", AS_ONCE.values(), ids=AS_ONCE)
def test_what_is_said_reaches_the_handler(http: httpx.Client, sent: Sent) -> None:
    reply = sent.to(http)
    assert reply.status_code == 200, reply.text
    assert [one["label"] for one in reply.json()["explanations"]] == ["red"]


@pytest.mark.parametrize(
    ("sent", "label"),
    [
        (Sent(f"{V1}?target=red", json.dumps({"instances": [B64]})), "red"),
        (Sent(V1, json.dumps({"instances": [B64]})), "cyan"),
    ],
)
def test_kserve_v1_has_the_options_of_the_query(http: httpx.Client, sent: Sent, label: str) -> None:
    (answer,) = sent.to(http).json()["explanations"]
    assert answer["explanations"][0]["label"] == label


def test_kserve_v2_has_the_options_of_the_query(http: httpx.Client) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    reply = Sent(f"{V2}?target=red", json.dumps({"inputs": [tensor]})).to(http).json()
    assert [one["data"] for one in reply["outputs"] if one["name"] == "explained_label"] == [
        ["red"]
    ]


CONFLICT, INVALID = "conflicting_options", "invalid_request"
LONG = "x" * 70_000
#: What is refused, with its code and a part of its message.
REFUSED = {
    "query, two values": (Sent(f"{PATH}?top_k=2&top_k=3"), CONFLICT, "'top_k'"),
    "query, two targets": (
        Sent(f"/explanations/{COLOR_MODEL}?target=red&target=blue"), CONFLICT, "'target'"),
    "query, outputs": (Sent(f"{PATH}?outputs=map&outputs=mask"), CONFLICT, "'outputs'"),
    "query, unknown": (Sent(f"{PATH}?tarhet=red"), "unknown_option", "'tarhet'"),
    "query, no value": (Sent(f"{PATH}?target"), "invalid_option", "'target'"),
    "query, no name": (Sent(f"{PATH}?=red"), "unknown_option", "''"),
    "query, badly escaped": (Sent(f"{PATH}?target=%zz"), INVALID, "the query"),
    "query, not UTF-8": (Sent(f"{PATH}?target=%ff"), "unknown_class", "\u00ff"),
    "query, quotes": (Sent(f"{PATH}?target=%22,%22top_k%22:1"), "unknown_class", "'\"'"),
    "query, controls": (Sent(f"{PATH}?target=%0d%0aA:%00"), "unknown_class", "target"),
    "query, photo": (Sent(f"{PATH}?data=x"), "unknown_option", "'data'"),
    "query and path": (Sent(f"{PATH}/1.0/target=red?target=blue"), CONFLICT, "'target'"),
    "query and header": (
        Sent(f"{PATH}?target=red", headers=explain('{"target": "blue"}')),
        CONFLICT, "'target'"),
    "query, invocations": (
        Sent(f"{INVOCATIONS}&target=red&target=blue"), CONFLICT, "'target'"),
    "query, two models": (Sent(f"{INVOCATIONS}&model_name=x"), CONFLICT, "'model_name'"),
    "query, two photos": (
        Sent(f"{INVOCATIONS}&data=x&data=x"), INVALID, "'data'"),
    "query, too long": (Sent(f"{PATH}?target={'%01' * 1500}"), "json_too_large", "6144"),
    "header twice": (
        Sent(headers=explain('{"target": "red"}', '{"target": "blue"}')),
        CONFLICT, "'target'"),
    "header and no header": (
        Sent(headers=explain('{"target": "red"}', "x")), "invalid_json", "X-Explain"),
    "form twice": (
        Sent(body=[("data", PHOTO), ("target", b"red"), ("target", b"blue")]),
        CONFLICT, "'target'"),
    "form, before the photo": (
        Sent(body=[("outputs", b"map"), ("outputs", b"mask"), ("data", PHOTO)]),
        CONFLICT, "'outputs'"),
    "form, one empty": (
        Sent(body=[("data", PHOTO), ("target", b""), ("target", b"blue")]),
        CONFLICT, "'target'"),
    "form, long values": (
        Sent(body=[("data", PHOTO), ("target", LONG.encode()), ("target", LONG.encode())]),
        CONFLICT, "'target'"),
    "form, two photos": (Sent(body=[("data", PHOTO), ("data", PHOTO)]), INVALID, "'data'"),
    "form, two kinds of photo": (
        Sent(body=[("data", PHOTO), ("image", PHOTO)]), INVALID, "image"),
    "form, 101 fields": (
        Sent(body=[("data", PHOTO), *((f"f{n}", b"") for n in range(100))]),
        INVALID, "100 fields"),
    "form, long headers": (
        parts("multipart/form-data; boundary=b1", b'name="data"; x="' + b"x" * 9000 + b'"'),
        INVALID, "8192"),
    "urlencoded twice": (
        form(f"target=red&data={FORM_B64}&target=blue"), CONFLICT, "'target'"),
    "urlencoded, two photos": (
        form(f"data={FORM_B64}&data={FORM_B64}"), INVALID, "'data'"),
    "urlencoded, long values": (
        form(f"target={LONG}&data={FORM_B64}&target={LONG}"), CONFLICT, "'target'"),
    "urlencoded, 101 fields": (form("&" * 5_000_000), INVALID, "100 fields"),
    "JSON twice": (
        Sent(body=f'{{{PHOTO_AND_RED}, "target": "blue"}}'), CONFLICT, "'target'"),
    "JSON, outputs": (
        Sent(body=f'{{{PHOTO_AND_RED}, "outputs": ["map", "mask"]}}'),
        CONFLICT, "'outputs'"),
    "JSON, two photos": (
        Sent(body=f'{{{PHOTO_AND_RED}, "image": "AAAA"}}'), INVALID, "'image'"),
    "JSON as a form, twice": (
        form(f'{{{PHOTO_AND_RED}, "target": "blue"}}'), CONFLICT, "'target'"),
    "JSON as a form, broken": (form(f"{{{PHOTO_AND_RED}"), "invalid_json", "JSON"),
    "KServe v1, twice": (
        Sent(V1, f'{{"instances": [{{{PHOTO_AND_RED}, "target": "blue"}}]}}'),
        CONFLICT, "'target'"),
    "two content types": (
        Sent(headers=[PNG, ("Content-Type", "application/json")]),
        INVALID, "Content-Type"),
    "empty boundary": (parts("multipart/form-data; boundary="), INVALID, "boundary"),
    "empty boundary in quotes": (
        parts('multipart/form-data; boundary=""'), INVALID, "boundary"),
    "no boundary": (parts("multipart/form-data"), INVALID, "boundary"),
    "another boundary": (parts("multipart/form-data; boundary=b2"), INVALID, "boundary"),
    "no last boundary": (
        parts("multipart/form-data; boundary=b1", ending=b""), INVALID, "boundary"),
    "compressed form": (
        Sent(body=gzip.compress(b"target=red"), headers=[
            ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Encoding", "gzip")]),
        INVALID, "Content-Encoding 'gzip'"),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "code", "part"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_handed_on_is_refused_by_name(
    http: httpx.Client, sent: Sent, code: str, part: str
) -> None:
    reply = sent.to(http)
    error = reply.json()["error"]
    assert (error["code"], error["status"]) == (code, reply.status_code)
    assert part in error["message"]


def test_a_large_form_is_handed_on_quickly(http: httpx.Client) -> None:
    """It is looked through in pieces: a delimiter that lies across two of them is found."""
    for size in (65_536 * 2 - 10, 65_536 * 2 - 3, 19_000_000):
        body = [("target", b"red"), ("data", PHOTO + bytes(size)), ("target", b"blue")]
        reply = Sent(body=body).to(http)
        assert reply.json()["error"]["code"] == CONFLICT
        assert reply.elapsed.total_seconds() < 30


ENCODINGS: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compressed_bodies_come_through(http: httpx.Client, encoding: str) -> None:
    compress = ENCODINGS[encoding]
    for content_type, body in (
        ("application/json", f"{{{PHOTO_AND_RED}}}".encode()),
        ("image/png", PHOTO),
    ):
        headers = [("Content-Type", content_type), ("Content-Encoding", encoding)]
        reply = Sent(f"{PATH}?target=red", compress(body), headers).to(http)
        assert reply.status_code == 200, reply.text
        assert reply.json()["explanations"][0]["label"] == "red"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused_at_the_limit(http: httpx.Client, encoding: str) -> None:
    compress = ENCODINGS[encoding]
    headers = [("Content-Type", "image/png"), ("Content-Encoding", encoding)]
    reply = Sent(body=compress(bytes(1 << 30)), headers=headers).to(http)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "image_too_large")


PHOTO_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
URLENCODED = ("Content-Type", "application/x-www-form-urlencoded")


def photo_file(kind: str) -> bytes:
    file = BytesIO()
    Image.open(BytesIO(PHOTO)).convert("RGB").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", PHOTO_FORMATS)
def test_a_photo_that_is_declared_a_form_is_read(http: httpx.Client, kind: str) -> None:
    """As ``curl --data-binary @photo.jpg`` sends it."""
    reply = Sent(f"{PATH}?target=red", photo_file(kind), [URLENCODED]).to(http)
    assert reply.status_code == 200, reply.text
    assert reply.json()["explanations"][0]["label"] == "red"


@pytest.mark.parametrize("name", ["BM", "BMW", "II", "MM", "GIF", "RIFF", "PNG"])
def test_a_form_that_begins_like_the_name_of_a_format_is_a_form(
    http: httpx.Client, name: str
) -> None:
    error = form(f"{name}=1&data={FORM_B64}").to(http).json()["error"]
    # Taken for a photo, its bytes would be no image.
    assert (error["code"], f"'{name}'" in error["message"]) == ("unknown_option", True)


def test_curl_sends_json(edge: Edge) -> None:
    curl = shutil.which("curl")
    assert curl
    url = f"https://127.0.0.1:{edge.port}{PATH}"
    # A token's scheme has no case.
    token = f"authorization: bearer {edge.token}"
    command = [curl, "-sS", "--cacert", str(edge.authority), "-H", token, "-d", "@-", url]
    text = f"{{{PHOTO_AND_RED}}}"
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    assert json.loads(done.stdout)["explanations"][0]["label"] == "red"
