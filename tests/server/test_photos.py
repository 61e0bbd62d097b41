"""Real photos and a network trained on ImageNet, through a real server."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve_cli.sample_photos import sample_photo
from tests.support.scripts import IMAGENET
from tests.support.server_client import Client, heat

CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}
FORM = {"colormap": "bone", "outputs": "heatmap"}


def times_hotter(hot: NDArray[np.float32], box: tuple[float, float, float, float]) -> float:
    """The mean heat inside a box of (x0, y0, x1, y1) in [0, 1], over the mean heat outside."""
    height, width = hot.shape
    x0, y0, x1, y1 = box
    inside = np.zeros(hot.shape, bool)
    inside[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = True
    return float(hot[inside].mean() / hot[~inside].mean())


def test_the_cat_is_a_cat_and_the_heat_lies_on_its_face(server: Client) -> None:
    photo = sample_photo("chelsea.png").read_bytes()
    reply = server.http.post(f"/predictions/{IMAGENET}", files={"data": photo}, data=FORM).json()
    labels = [prediction["label"] for prediction in reply["predictions"][:3]]
    assert set(labels) <= CATS
    # From above the eyes to below the nose, in what the network sees.
    assert times_hotter(heat(reply["explanations"][0]), (0.1, 0.25, 0.9, 0.95)) > 2


def test_the_cup_is_an_espresso_and_the_heat_lies_on_it(server: Client) -> None:
    photo = sample_photo("coffee.png").read_bytes()
    inputs = {name: value.encode() for name, value in FORM.items()}
    reply = server.predict(IMAGENET, data=photo, **inputs)
    best = reply["predictions"][0]
    assert best["label"] == "espresso"
    assert best["probability"] > 0.8
    # The cup without its saucer.
    assert times_hotter(heat(reply["explanations"][0]), (0.1, 0.0, 0.85, 0.7)) > 3


@pytest.mark.parametrize("label", ["cup", "spatula"])
def test_another_class_gets_another_map(server: Client, label: str) -> None:
    photo = sample_photo("coffee.png").read_bytes()
    path = f"/predictions/{IMAGENET}"
    maps = [
        heat(
            server.http.post(path, files={"data": photo}, data={**FORM, "target": target}).json()[
                "explanations"
            ][0]
        )
        for target in ("espresso", label)
    ]
    assert abs(maps[0] - maps[1]).mean() > 5
