"""Requests that share a batch, over HTTP and gRPC, through a real server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import constructed
from client import Client, peak_in_photo
from harness import COLOURS


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def batches(server: Client) -> int:
    """How many batches went to a worker so far, from TorchServe's own log."""
    log = (server.run_dir / "server.log").read_text(errors="replace")
    return log.count("Flushing req.cmd PREDICT")


def test_each_requested_colour_peaks_on_its_own_disc_in_a_mixed_batch(server: Client) -> None:
    random = np.random.default_rng(7)
    before = batches(server)
    calls: list[Callable[[], Any]] = []
    places = []
    for n in range(16):
        first, second = random.choice(constructed.LABELS, 2, replace=False)
        discs = {
            str(first): (int(random.integers(90, 130)), int(random.integers(70, 170))),
            str(second): (int(random.integers(190, 230)), int(random.integers(70, 170))),
        }
        photo = constructed.png(
            constructed.photo(*((colour, centre, 32) for colour, centre in discs.items()))
        )
        target = str(second if n % 3 else first)
        places.append((target, discs[target]))
        if n % 2:
            form = {"target": target, "colormap": "bone", "outputs": "heatmap"}
            path = f"/{'explanations' if n % 4 == 1 else 'predictions'}/{COLOURS}"
            calls.append(
                lambda path=path, photo=photo, form=form: server.http.post(
                    path, files={"data": photo}, data=form
                ).json()
            )
        else:
            inputs = {"target": target.encode(), "colormap": b"bone"}
            calls.append(
                lambda photo=photo, inputs=inputs: server.predict(COLOURS, data=photo, **inputs)
            )
    replies = together(calls)
    for reply, (target, (x, y)) in zip(replies, places, strict=True):
        (explanation,) = reply["explanations"]
        assert explanation["label"] == target
        peak = peak_in_photo(reply, explanation)
        assert np.hypot(peak[0] - x, peak[1] - y) < 32
    assert batches(server) - before < 16


def test_bad_requests_in_a_batch_get_their_own_errors(server: Client) -> None:
    photo = constructed.png(constructed.photo(("green", (160, 120), 60)))
    path = f"/predictions/{COLOURS}"
    before = batches(server)
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
    assert batches(server) - before < 8
