"""The same photo and options by every way that a request can take, through a real server."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

import constructed
from client import Client, peak_in_photo, picture
from harness import COLOURS

PHOTO = constructed.png(constructed.photo(("red", (100, 120), 50), ("blue", (230, 120), 30)))
B64 = base64.b64encode(PHOTO).decode()
PREDICT, EXPLAIN = f"/predictions/{COLOURS}", f"/explanations/{COLOURS}"
# What every way below asks for.
OPTIONS = {"target": "blue", "top_k": 2, "colormap": "bone", "outputs": ["heatmap"]}
TEXTS = {"target": "blue", "top_k": "2", "colormap": "bone", "outputs": "heatmap"}
IN_URL = "target=blue,top_k=2,colormap=bone,outputs=heatmap"
IMAGE_TYPE = {"Content-Type": "image/png"}

HTTP_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "raw body, header": (
        PREDICT,
        {"content": PHOTO, "headers": {**IMAGE_TYPE, "X-Explain": json.dumps(OPTIONS)}},
    ),
    "raw body, header in lower case": (
        PREDICT,
        {"content": PHOTO, "headers": {**IMAGE_TYPE, "x-explain": json.dumps(OPTIONS)}},
    ),
    "raw body, URL path": (f"{PREDICT}/1.0/{IN_URL}", {"content": PHOTO, "headers": IMAGE_TYPE}),
    "raw body without a content type": (f"{PREDICT}/1.0/{IN_URL}", {"content": PHOTO}),
    "raw body of base64 text": (
        f"{PREDICT}/1.0/{IN_URL}",
        {"content": B64, "headers": {"Content-Type": "text/plain"}},
    ),
    "multipart": (PREDICT, {"files": {"data": PHOTO}, "data": TEXTS}),
    "multipart, options as JSON": (
        PREDICT,
        {"files": {"image": PHOTO}, "data": {"options": json.dumps(OPTIONS)}},
    ),
    "urlencoded": (PREDICT, {"data": {"data": B64, **TEXTS}}),
    "JSON, image object": (PREDICT, {"json": {"image": {"b64": B64}, **OPTIONS}}),
    "JSON, image string": (PREDICT, {"json": {"image": B64, **OPTIONS}}),
    "JSON, data": (PREDICT, {"json": {"data": B64, **OPTIONS}}),
    "JSON, b64": (PREDICT, {"json": {"b64": B64, **OPTIONS}}),
    "explanations": (f"{EXPLAIN}/1.0/{IN_URL}", {"content": PHOTO, "headers": IMAGE_TYPE}),
    "explanations, JSON": (EXPLAIN, {"json": {"image": B64, **OPTIONS}}),
    "invocations": (
        "/invocations",
        {"content": PHOTO, "headers": IMAGE_TYPE, "params": {"model_name": COLOURS, **TEXTS}},
    ),
    "invocations, multipart": (
        "/invocations",
        {"files": {"data": PHOTO}, "data": {"model_name": COLOURS, **TEXTS}},
    ),
    "invocations, JSON with a query": (
        "/invocations",
        {"json": {"image": B64}, "params": {"model_name": COLOURS, **TEXTS}},
    ),
    "M/predict": (
        f"/{COLOURS}/predict",
        {"content": PHOTO, "headers": IMAGE_TYPE, "params": TEXTS},
    ),
}
GRPC_INPUTS = {
    "fields": {"data": PHOTO, **{name: text.encode() for name, text in TEXTS.items()}},
    "options as JSON": {"data": PHOTO, "options": json.dumps(OPTIONS).encode()},
}


@pytest.fixture(scope="module")
def expected(server: Client) -> dict[str, Any]:
    reply: dict[str, Any] = server.http.post(PREDICT, files={"data": PHOTO}, data=TEXTS).json()
    assert [p["label"] for p in reply["predictions"]] == ["red", "magenta"]
    (explanation,) = reply["explanations"]
    assert explanation["label"] == "blue"
    assert set(explanation) >= {"class_id", "probability", "score", "method", "layer", "peak"}
    x, y = peak_in_photo(reply, explanation)
    assert (x - 230) ** 2 + (y - 120) ** 2 < 30**2
    return reply


def assert_same(reply: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for the rounding that another batch size brings."""
    assert reply["model"] == {"name": COLOURS, "version": "1.0"}
    assert reply["image"] == expected["image"]
    assert reply["predictions"] == [
        {**p, "probability": pytest.approx(p["probability"], abs=1e-5),
         "score": pytest.approx(p["score"], abs=1e-5)}
        for p in expected["predictions"]
    ]  # fmt: skip
    (got,), (wanted,) = reply["explanations"], expected["explanations"]
    assert got.keys() == wanted.keys()
    for name in ("class_id", "label", "method", "layer", "evidence"):
        assert got[name] == wanted[name]
    difference = picture(got["heatmap"]).astype(int) - picture(wanted["heatmap"])
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("way", HTTP_WAYS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_every_http_way_gives_the_same_answer(
    server: Client, expected: dict[str, Any], way: str, method: str
) -> None:
    path, content = HTTP_WAYS[way]
    if method == "PUT" and "/invocations" in path:
        method = "POST"  # TorchServe has no PUT there.
    response = server.http.request(method, path, **content)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert_same(response.json(), expected)


@pytest.mark.parametrize("inputs", GRPC_INPUTS.values(), ids=GRPC_INPUTS)
def test_grpc_gives_the_same_answer(
    server: Client, expected: dict[str, Any], inputs: dict[str, bytes]
) -> None:
    assert_same(server.predict(COLOURS, **inputs), expected)


def test_stream_predictions_answers_once_and_the_worker_lives(
    server: Client, expected: dict[str, Any]
) -> None:
    (reply,) = server.stream(COLOURS, **GRPC_INPUTS["fields"])
    assert_same(reply, expected)
    (refusal,) = server.stream(COLOURS, data=b"no photo")
    assert refusal["error"]["status"] == 415
    assert_same(server.predict(COLOURS, **GRPC_INPUTS["fields"]), expected)


def test_defaults_predict_and_explain(server: Client) -> None:
    reply = server.http.post(PREDICT, content=PHOTO).json()
    assert len(reply["predictions"]) == 5
    (explanation,) = reply["explanations"]
    assert explanation["label"] == reply["predictions"][0]["label"] == "red"
    assert explanation["heatmap"]["media_type"] == explanation["overlay"]["media_type"]
    assert picture(explanation["overlay"]).shape == (224, 224, 3)


@pytest.mark.parametrize(("image_format", "magic"), [
    ("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF"),
])  # fmt: skip
def test_image_formats(server: Client, image_format: str, magic: bytes) -> None:
    form = {"image_format": image_format}
    reply = server.http.post(PREDICT, files={"data": PHOTO}, data=form).json()
    overlay = reply["explanations"][0]["overlay"]
    assert overlay["media_type"] == f"image/{image_format}"
    assert base64.b64decode(overlay["b64"]).startswith(magic)
    picture(overlay)


def test_explain_false_gives_predictions_alone(server: Client) -> None:
    reply = server.http.post(f"{PREDICT}/1.0/explain=false", content=PHOTO).json()
    assert reply["explanations"] == []
    assert reply["predictions"][0]["label"] == "red"


REFUSALS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "no photo": (PREDICT, {"data": {"x": "1"}}, 400, "missing_image"),
    "empty body": (PREDICT, {"content": b""}, 400, "missing_image"),
    "junk": (PREDICT, {"content": b"no photo at all"}, 415, "unsupported_format"),
    "half a PNG": (PREDICT, {"content": PHOTO[: len(PHOTO) // 2]}, 400, "invalid_image"),
    "broken JSON": (
        PREDICT,
        {"content": b'{"image":', "headers": {"Content-Type": "application/json"}},
        400,
        "invalid_json",
    ),
    "JSON list": (PREDICT, {"json": [1]}, 400, "invalid_request"),
    "bad base64": (PREDICT, {"json": {"image": "@@@"}}, 400, "invalid_base64"),
    "unknown option": (f"{PREDICT}/1.0/alhpa=1", {"content": PHOTO}, 400, "unknown_option"),
    "unknown class": (f"{PREDICT}/1.0/target=pink", {"content": PHOTO}, 400, "unknown_class"),
    "class out of range": (f"{PREDICT}/1.0/target=6", {"content": PHOTO}, 400, "unknown_class"),
    "wrong value": (f"{PREDICT}/1.0/alpha=2", {"content": PHOTO}, 400, "invalid_option"),
    "not built yet": (f"{PREDICT}/1.0/outputs=boxes", {"content": PHOTO}, 400, "invalid_option"),
    "twice": (
        f"{PREDICT}/1.0/target=red",
        {"content": PHOTO, "headers": {"X-Explain": '{"target": "blue"}'}},
        400,
        "conflicting_options",
    ),
    "explain false on /explanations": (
        f"{EXPLAIN}/1.0/explain=false",
        {"content": PHOTO},
        400,
        "conflicting_options",
    ),
    "KServe v1": (
        f"/v1/models/{COLOURS}:predict",
        {"json": {"instances": [{"image": B64}]}},
        400,
        "unsupported_protocol",
    ),
    "KServe v2": (
        f"/v2/models/{COLOURS}/infer",
        {"json": {"inputs": []}},
        400,
        "unsupported_protocol",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("path", "content", "status", "code"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_say_what_was_wrong(
    server: Client, path: str, content: dict[str, Any], status: int, code: str
) -> None:
    response = server.http.post(path, **content)
    error = response.json()["error"]
    assert (response.status_code, error["status"], error["code"]) == (status, status, code)
    assert error["message"]


def test_calls_without_a_token_are_turned_away(server: Client) -> None:
    base = str(server.http.base_url)
    assert httpx.post(f"{base}{PREDICT}", content=PHOTO).status_code == 400
    assert httpx.get(f"{base}/ping").status_code == 400
