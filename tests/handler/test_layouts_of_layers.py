"""Tokens and channels last through the whole pipeline: discs known by construction."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from camserve.errors import SettingsError
from camserve.pipeline import Pipeline
from tests.support.color_resnet import LABELS, MEAN, STD, photo, png
from tests.support.color_transformers import ChannelsLast, Transformer
from tests.support.request_builders import json_request, single_reply

HEIGHT, WIDTH = 128, 256
SUPPORT = "tests.support.color_transformers"
TOKENS = {f"{prefix} prefix tokens": ("Transformer", {"prefix": prefix}) for prefix in (0, 1, 2, 5)}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    **TOKENS, "channels last": ("ChannelsLast", {}),
}  # fmt: skip
LAYOUTS = {
    **{name: ("tokens", kwargs["prefix"]) for name, (_, kwargs) in TOKENS.items()},
    "channels last": ("channels_last", 0),
}
DISCS = {"red": (200, 40), "blue": (60, 90)}
PHOTO = png(
    photo(*((colour, place, 24) for colour, place in DISCS.items()), width=WIDTH, height=HEIGHT)
)
Load = Callable[..., Pipeline]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Load an archive of a network; keywords are its ``handler:`` section."""

    def load(name: str, **section: Any) -> Pipeline:
        kind, kwargs = NETWORKS[name]
        directory = tmp_path_factory.mktemp("archive")
        network = {"Transformer": Transformer, "ChannelsLast": ChannelsLast}[kind](**kwargs)
        save_file(network.state_dict(), directory / "weights.safetensors")
        (directory / "labels.json").write_text(json.dumps(LABELS))
        handler = {
            "arch": f"{SUPPORT}:{kind}",
            "arch_kwargs": kwargs,
            "layer": "norm",
            "preprocess": {
                "fit": "stretch", "crop": [HEIGHT, WIDTH], "mean": MEAN.tolist(),
                "std": STD.tolist(),
            },
            "precision": "float32",
            **section,
        }  # fmt: skip
        config = {"batchSize": 2, "handler": handler}
        model = {"name": "colours", "version": "1.0"}
        return Pipeline.load(config, directory, model, torch.device("cpu"))  # type: ignore[arg-type]

    return load


@pytest.mark.parametrize("compile", ["auto", "off"])
@pytest.mark.parametrize("method", ["gradcam", "layercam"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_colours_disc_is_found_in_its_place(
    load: Load, name: str, method: str, compile: str
) -> None:
    pipeline = load(name, compile=compile)
    row = json_request(PHOTO, target=list(DISCS), method=method, outputs=["map", "boxes"])
    (reply,) = single_reply(pipeline, row)
    assert [explanation["label"] for explanation in reply["explanations"]] == list(DISCS)
    for explanation, (x, y) in zip(reply["explanations"], DISCS.values(), strict=True):
        assert explanation["map"]["shape"] == [HEIGHT // 16, WIDTH // 16]
        values = np.array(explanation["map"]["values"]).reshape(explanation["map"]["shape"])
        row_of_peak, column_of_peak = np.unravel_index(values.argmax(), values.shape)
        assert abs(row_of_peak * 16 + 8 - y) < 24
        assert abs(column_of_peak * 16 + 8 - x) < 24
        # Nothing elsewhere.
        rows, columns = np.nonzero(values > 0.05)
        assert np.abs(rows * 16 + 8 - y).max() < 24 + 16
        assert np.abs(columns * 16 + 8 - x).max() < 24 + 16
        (region,) = explanation["boxes"]
        left, top, right, bottom = region["box"]
        assert left < x < right
        assert top < y < bottom


@pytest.mark.parametrize("name", NETWORKS)
def test_the_description_has_each_layers_layout_and_the_trunk_is_compiled(
    load: Load, name: str
) -> None:
    described = json.loads(load(name).describe().body)
    kind, prefix = LAYOUTS[name]
    assert described["layers"] == [
        {
            "name": "norm",
            "shape": [len(LABELS), HEIGHT // 16, WIDTH // 16],
            "layout": kind,
            "prefix_tokens": prefix,
        }
    ]
    assert described["model"]["compiled"] is True
    assert described["model"]["acceleration_notes"] == ""


@pytest.mark.parametrize("layout", ["tokens", {"norm": "tokens"}])
def test_a_declared_layout_changes_no_answer_where_it_is_right(load: Load, layout: object) -> None:
    row = json_request(PHOTO, target="red", outputs=["map"])
    (declared,), (found,) = (
        single_reply(load("1 prefix tokens", layout=setting), row) for setting in (layout, "auto")
    )
    assert declared == found


def test_a_declared_layout_that_the_layer_cannot_have_stops_the_load(load: Load) -> None:
    with pytest.raises(SettingsError, match=r"handler\.layout says grid, which has 4 axes"):
        load("1 prefix tokens", layout="grid")
