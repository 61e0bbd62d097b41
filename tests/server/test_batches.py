"""Requests that share a batch, over HTTP and gRPC, through a real server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.support import color_resnet
from tests.support.option_strategies import Options
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, peak_in_photo
from tests.support.transport_matrix import WAYS, Answered, together


def post(server: Client, path: str, photo: bytes, form: dict[str, str]) -> Any:
    """The reply to a multipart form."""
    return server.http.post(path, files={"data": photo}, data=form).json()


def test_each_requested_colour_peaks_on_its_own_disc_in_a_mixed_batch(server: Client) -> None:
    random = np.random.default_rng(7)
    before = server.batches(COLOR_MODEL)
    calls: list[Callable[[], Any]] = []
    places = []
    for n in range(16):
        first, second = random.choice(color_resnet.LABELS, 2, replace=False)
        discs = {
            str(first): (int(random.integers(90, 130)), int(random.integers(70, 170))),
            str(second): (int(random.integers(190, 230)), int(random.integers(70, 170))),
        }
        photo = color_resnet.png(
            color_resnet.photo(*((colour, centre, 32) for colour, centre in discs.items()))
        )
        target = str(second if n % 3 else first)
        places.append((target, discs[target]))
        if n % 2:
            form = {"target": target, "colormap": "bone", "outputs": "heatmap"}
            path = f"/{'explanations' if n % 4 == 1 else 'predictions'}/{COLOR_MODEL}"
            calls.append(partial(post, server, path, photo, form))
        else:
            inputs = {"target": target.encode(), "colormap": b"bone"}
            calls.append(partial(server.predict, COLOR_MODEL, data=photo, **inputs))
    replies = together(calls)
    for reply, (target, (x, y)) in zip(replies, places, strict=True):
        (explanation,) = reply["explanations"]
        assert explanation["label"] == target
        peak = peak_in_photo(reply, explanation)
        assert np.hypot(peak[0] - x, peak[1] - y) < 32
    assert server.batches(COLOR_MODEL) - before < 16


def test_bad_requests_in_a_batch_get_their_own_errors(server: Client) -> None:
    photo = color_resnet.png(color_resnet.photo(("green", (160, 120), 60)))
    path = f"/predictions/{COLOR_MODEL}"
    before = server.batches(COLOR_MODEL)
    good: Callable[[], Any] = lambda: server.http.post(path, content=photo)  # noqa: E731
    replies = together(
        [
            good,
            lambda: server.http.post(path, content=b"junk"),
            good,
            lambda: server.http.post(f"{path}/1.0/target=pink", content=photo),
            lambda: server.http.post(path, content=photo[:200]),
            lambda: server.http.post(f"{path}/1.0/explain=false", content=photo),
            lambda: server.http.post(path, json={"image": 5}),
            good,
        ]
    )
    assert [reply.status_code for reply in replies] == [200, 415, 200, 400, 400, 200, 400, 200]
    for n in (0, 2, 5, 7):
        assert replies[n].json()["predictions"][0]["label"] == "green"
    assert [len(replies[n].json()["explanations"]) for n in (0, 2, 5, 7)] == [1, 1, 0, 1]
    assert server.batches(COLOR_MODEL) - before < 8


#: What comes of a photo of one colour, by what is asked of it: the code of its error, or None.
ASKED: dict[str, tuple[Options, str | None]] = {
    "good": ({"outputs": "map"}, None),
    "good, of two classes": ({"target": ["red", "blue-red"], "outputs": ["boxes"]}, None),
    "unknown class": ({"target": "pink"}, "unknown_class"),
    "unknown option": ({"alhpa": 1}, "unknown_option"),
    "wrong value": ({"alpha": 2}, "invalid_option"),
    "junk": ({}, "unsupported_format"),
}


def told(outcome: dict[str, Any]) -> str | list[str]:
    """An error's code; or the class that is seen, and those that are explained."""
    if "error" in outcome:
        return str(outcome["error"]["code"])
    shown = [outcome["predictions"][0], *outcome["explanations"]]
    return [str(one["label"]) for one in shown]


@pytest.mark.parametrize("turn", range(2))
def test_every_protocol_in_one_batch_good_and_bad(server: Client, turn: int) -> None:
    before, deaths = server.batches(COLOR_MODEL), server.deaths()
    asked: list[tuple[str, str, str]] = []
    calls: list[Callable[[], Answered]] = []
    for n, (way, call) in enumerate(WAYS.items()):
        # Every way is asked for something good in one turn and for something bad in the other.
        choices = [name for name, (_, code) in ASKED.items() if (code is None) is (n % 2 == turn)]
        name = choices[n % len(choices)]
        colour = color_resnet.LABELS[n % len(color_resnet.LABELS)]
        asked.append((way, name, colour))
        photo = color_resnet.png(color_resnet.photo((colour, (160, 120), 60)))
        image = b"junk" if name == "junk" else photo
        calls.append(partial(call, server, image, ASKED[name][0]))
    for (way, name, colour), answered in zip(asked, together(calls), strict=True):
        outcome, code = answered.outcome, ASKED[name][1]
        explained = [colour] if name == "good" else ["red", "blue"]
        assert told(outcome) == (code if code else [colour, *explained]), (way, name)
    assert server.batches(COLOR_MODEL) - before < len(calls)
    assert server.deaths() == deaths
