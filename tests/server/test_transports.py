"""The same photo and options by every way that a request can take, through a real server."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support import color_resnet
from tests.support.contract import as_v2_has_it, assert_replies_close
from tests.support.option_strategies import Options
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, peak_in_photo, picture
from tests.support.transport_matrix import (
    GRPC_WAYS,
    HTTP_TRANSPORTS,
    WAYS,
    Answered,
    in_tensors,
    together,
)

PHOTO = color_resnet.png(color_resnet.photo(("red", (100, 120), 50), ("blue", (230, 120), 30)))
B64 = base64.b64encode(PHOTO).decode()
PREDICT, EXPLAIN = f"/predictions/{COLOR_MODEL}", f"/explanations/{COLOR_MODEL}"
ASKED: dict[str, Options] = {
    "one class": {"target": "blue", "top_k": 2, "colormap": "bone", "outputs": ["heatmap"]},
    "several classes, layers and outputs": {
        "target": ["blue", "red-green", "top:2", 4],
        "method": "gradcam++",
        "layer": ["layer4.2", "layer3.5"],
        "outputs": ["map", "boxes", "mask"],
        "threshold": 0.4,
        "top_k": 3,
    },
    "the photo's size": {
        "target": 2,
        "layer": "layer4.1",
        "method": "layercam",
        "size": "original",
        "outputs": ["overlay", "mask", "heatmap"],
        "alpha": 0.6,
        "colormap": "viridis",
        "image_format": "webp",
    },
}


@pytest.fixture(scope="module")
def expected(server: Client) -> dict[str, dict[str, Any]]:
    """The reply to each set of options, as JSON alone has it."""
    return {
        name: server.http.post(PREDICT, json={"image": B64, **options}).json()
        for name, options in ASKED.items()
    }


def test_the_reply_is_what_the_photo_shows(expected: dict[str, dict[str, Any]]) -> None:
    reply = expected["one class"]
    assert [p["label"] for p in reply["predictions"]] == ["red", "magenta"]
    (explanation,) = reply["explanations"]
    assert explanation["label"] == "blue"
    assert set(explanation) >= {"class_id", "probability", "score", "method", "layer", "peak"}
    x, y = peak_in_photo(reply, explanation)
    assert (x - 230) ** 2 + (y - 120) ** 2 < 30**2


def test_every_option_shows_in_the_reply(expected: dict[str, dict[str, Any]]) -> None:
    several = expected["several classes, layers and outputs"]
    assert len(several["predictions"]) == 3
    explained = several["explanations"]
    assert [one["label"] for one in explained] == ["blue", "red", "red", "magenta", "magenta"]
    assert [one.get("against", {}).get("label") for one in explained] == [
        None, "green", None, None, None,
    ]  # fmt: skip
    for one in explained:
        assert (one["method"], one["layer"]) == ("gradcam++", ["layer4.2", "layer3.5"])
        assert one["map"]["shape"] == [14, 14]
        assert picture(one["mask"]).shape == (224, 224, 3)
        assert "heatmap" not in one
        assert "overlay" not in one
    (box,) = explained[0]["boxes"]
    x0, y0, x1, y1 = box["box"]
    # The blue disc's centre.
    assert x0 < 230 < x1
    assert y0 < 120 < y1

    (original,) = expected["the photo's size"]["explanations"]
    assert (original["method"], original["layer"]) == ("layercam", "layer4.1")
    for name in ("overlay", "mask", "heatmap"):
        assert original[name]["media_type"] == "image/webp"
        assert picture(original[name]).shape == (240, 320, 3)
    mask = picture(original["mask"]).astype(int)
    assert mask[120, 235].min() > mask[120, 60].max() + 100
    # 0.6 of viridis' first colour and 0.4 of the photo's red.
    red = picture(original["overlay"])[120, 80].astype(int)
    assert np.abs(red - (0.6 * np.array([68, 1, 84]) + 0.4 * np.array([255, 0, 0]))).max() < 12


# TorchServe has no PUT of /invocations.
PUT = [way for way in HTTP_TRANSPORTS if not way.startswith("invocations")]


@pytest.fixture(scope="module")
def answers(server: Client) -> dict[tuple[str, str, str], Answered | Exception]:
    """What every way gives, asked for together, so that they share batches."""
    found: dict[tuple[str, str, str], Answered | Exception] = {}

    def ask(name: str, way: str, method: str) -> None:
        try:
            found[name, way, method] = WAYS[way](server, PHOTO, ASKED[name], method)
        except Exception as failure:
            found[name, way, method] = failure

    for name in ASKED:
        together([partial(ask, name, way, "POST") for way in WAYS])
    together([partial(ask, "one class", way, "PUT") for way in PUT])
    return found


@pytest.mark.parametrize(
    ("name", "way", "method"),
    [
        *((name, way, "POST") for name in ASKED for way in WAYS),
        *(("one class", way, "PUT") for way in PUT),
    ],
)
def test_every_way_gives_the_same_answer(
    answers: dict[tuple[str, str, str], Answered | Exception],
    expected: dict[str, dict[str, Any]],
    name: str,
    way: str,
    method: str,
) -> None:
    answered = answers[name, way, method]
    if isinstance(answered, Exception):
        raise answered
    assert answered.status == 200, answered
    wanted = expected[name]
    assert answered.outcome["model"] == {"name": COLOR_MODEL, "version": "1.0"}
    assert_replies_close(answered.outcome, as_v2_has_it(wanted) if in_tensors(way) else wanted, way)


def test_stream_predictions_answers_once_and_the_worker_lives(
    server: Client, expected: dict[str, dict[str, Any]]
) -> None:
    deaths = server.deaths()
    stream, options = GRPC_WAYS["StreamPredictions"], ASKED["one class"]
    assert_replies_close(stream(server, PHOTO, options).outcome, expected["one class"])
    assert stream(server, b"no photo", options).status == 415
    assert_replies_close(stream(server, PHOTO, options).outcome, expected["one class"])
    assert server.deaths() == deaths


def test_defaults_predict_and_explain(server: Client) -> None:
    reply = server.http.post(PREDICT, content=PHOTO).json()
    assert len(reply["predictions"]) == 5
    (explanation,) = reply["explanations"]
    assert explanation["label"] == reply["predictions"][0]["label"] == "red"
    assert explanation["heatmap"]["media_type"] == "image/png"
    assert explanation["overlay"]["media_type"] == "image/jpeg"
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
    "layer not served": (f"{PREDICT}/1.0/layer=layer3", {"content": PHOTO}, 400, "invalid_option"),
    "too many targets": (f"{PREDICT}/1.0/target=top:7", {"content": PHOTO}, 400, "invalid_option"),
    "too large a reply": (
        f"{PREDICT}/1.0/size=8192",
        {"content": PHOTO},
        413,
        "reply_too_large",
    ),
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
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(server: Client) -> dict[str, httpx.Response]:
    """What comes back, asked for together."""
    calls = [partial(server.http.post, path, **more) for path, more, _, _ in REFUSALS.values()]
    return dict(zip(REFUSALS, together(calls), strict=True))


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_was_wrong(name: str, refused: dict[str, httpx.Response]) -> None:
    _, _, status, code = REFUSALS[name]
    error = refused[name].json()["error"]
    assert (refused[name].status_code, error["status"], error["code"]) == (status, status, code)
    assert error["message"]


def test_calls_without_a_token_are_turned_away(server: Client) -> None:
    base = str(server.http.base_url)
    assert httpx.post(f"{base}{PREDICT}", content=PHOTO).status_code == 400
    assert httpx.get(f"{base}/ping").status_code == 400
    for path in (f"/v1/models/{COLOR_MODEL}:predict", f"/v2/models/{COLOR_MODEL}/infer"):
        assert httpx.post(f"{base}{path}", content=json.dumps({})).status_code == 400
