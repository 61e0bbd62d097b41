"""What an archive says of itself: true, and enough to call it by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import cv2
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from packaging.version import Version

from camserve.explain.methods import METHODS
from camserve.options import Method, Options, Output
from camserve.pipeline import Pipeline
from camserve.protocols.schema import ModelBody
from tests.support.color_resnet import COLOR_VALUES, LABELS, photo, png
from tests.support.contract import assert_replies_close
from tests.support.request_builders import error_codes, json_request, single_reply

CONFIG = Path(__file__).parents[2] / "handler" / "model-config.yaml"
DEFAULTS = {"alpha": 0.75, "top_k": 9, "target": ["top:2", "red"], "layer": ["layer3.5"]}
LAYERS = ["layer3.5", "layer1.0"]
SIDE = 64
PHOTO = png(photo(("red", (40, 50), 30), width=96, height=96))


def described(pipeline: Pipeline) -> dict[str, Any]:
    reply = pipeline.describe()
    assert (reply.status, reply.content_type) == (200, "application/json")
    content: dict[str, Any] = json.loads(reply.body)
    return content


@pytest.fixture(scope="module")
def operator(load: Callable[..., Pipeline]) -> Pipeline:
    """An archive of an operator with wishes of their own."""
    return load(
        layers=LAYERS,
        preprocess={"resize": SIDE, "crop": SIDE},
        limits={"instances": 5},
        defaults=DEFAULTS,
    )


@pytest.fixture(scope="module")
def options(operator: Pipeline) -> dict[str, Any]:
    """The schema of each option."""
    schema = described(operator)["options"]
    Draft202012Validator.check_schema(schema)
    properties: dict[str, Any] = schema["properties"]
    return properties


def test_model_is_what_replies_call_it_and_what_it_is(
    make_archive: Callable[..., tuple[dict[str, Any], Path]],
) -> None:
    config, directory = make_archive(preprocess={"resize": SIDE, "crop": SIDE})
    model: ModelBody = {"name": "colours", "version": "2.1"}
    pipeline = Pipeline.load(config, directory, model, torch.device("cpu"))
    weights = (directory / config["handler"]["weights"]).read_bytes()
    assert described(pipeline)["model"] == {
        **model,
        "arch": "resnet50",
        "requires": {},
        "task": "multiclass",
        "decision_threshold": 0.5,
        "output": "logits",
        "batching": "together",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "device": "cpu",
        "precision": pipeline.loaded.acceleration.precision,
        "compiled": True,
        "acceleration_notes": pipeline.loaded.acceleration.fallback_reason,
        # Its old name.
        "not_faster_because": pipeline.loaded.acceleration.fallback_reason,
        "threads": 1,
    }


def test_classes_are_the_labels_in_index_order(operator: Pipeline) -> None:
    assert described(operator)["classes"] == LABELS


def test_layers_are_those_served_with_the_shape_of_their_maps(operator: Pipeline) -> None:
    layout = {"layout": "grid", "prefix_tokens": 0}
    assert described(operator)["layers"] == [
        {"name": "layer4.2", "shape": [2048, 2, 2], **layout},
        {"name": "layer3.5", "shape": [1024, 4, 4], **layout},
        {"name": "layer1.0", "shape": [256, 16, 16], **layout},
    ]
    for layer in described(operator)["layers"]:
        row = json_request(PHOTO, layer=layer["name"], outputs="map", target="red")
        (reply,) = single_reply(operator, row)
        assert reply["explanations"][0]["map"]["shape"] == layer["shape"][1:]


def test_methods_and_outputs_are_all_that_there_are(operator: Pipeline) -> None:
    found = described(operator)
    assert found["methods"] == list(get_args(Method)) == list(METHODS)
    assert found["outputs"] == list(get_args(Output))


def test_settings_are_the_operators(operator: Pipeline) -> None:
    packaged = yaml.safe_load(CONFIG.read_text())["handler"]
    found = described(operator)
    assert found["limits"] == packaged["limits"] | {"instances": 5}
    # What an archive does not say is the setting's own default.
    sizes = {"resize": SIDE, "crop": SIDE, "input_size": [SIDE, SIDE]}
    assert found["preprocess"] == packaged["preprocess"] | sizes


def test_formats_are_photos_that_are_read(operator: Pipeline) -> None:
    pixels = photo(("red", (40, 50), 30), width=96, height=96)[..., ::-1]
    extensions = {
        "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tiff",
        "GIF": ".gif",
    }  # fmt: skip
    formats = described(operator)["formats"]
    assert set(formats) == extensions.keys()
    rows = [
        json_request(cv2.imencode(extensions[name], pixels)[1].tobytes(), explain=False)
        for name in formats
    ]
    assert error_codes(single_reply(operator, *rows)) == [None] * len(formats)


def test_versions_are_those_installed(operator: Pipeline) -> None:
    found = described(operator)["versions"]
    assert found["torch"] == version("torch")
    assert found["opencv-python-headless"].startswith(cv2.__version__)
    assert found.keys() >= {"camserve", "python", "torch", "torchvision", "numpy", "pillow"}
    assert all(Version(one) for one in found.values())


# The schema of the options


def test_every_option_is_there_with_what_it_accepts(options: dict[str, Any]) -> None:
    assert options.keys() == Options.model_fields.keys()
    assert all(option["description"] for option in options.values())


def test_defaults_are_the_operators(options: dict[str, Any]) -> None:
    defaults = {name: option["default"] for name, option in options.items()}
    assert defaults == {
        "target": ["top:2", "red"],
        # There are no more classes.
        "top_k": len(COLOR_VALUES),
        "explain": True,
        "method": "gradcam",
        "layer": ["layer3.5"],
        "outputs": ["heatmap", "overlay"],
        "image_format": "auto",
        "size": "model",
        "colormap": "jet",
        "alpha": 0.75,
        "threshold": 0.5,
        "faithfulness": [],
        "explain_when": None,
        "record": False,
    }


def test_defaults_sent_are_the_same_as_none(operator: Pipeline, options: dict[str, Any]) -> None:
    defaults = {name: option["default"] for name, option in options.items()}
    silent, spoken = single_reply(operator, json_request(PHOTO), json_request(PHOTO, **defaults))
    assert_replies_close(spoken, silent)
    assert [one["label"] for one in silent["explanations"]][2] == "red"


def test_the_default_layer_is_named_where_the_operator_names_none(
    load: Callable[..., Pipeline],
) -> None:
    pipeline = load(preprocess={"resize": SIDE, "crop": SIDE})
    layer = described(pipeline)["options"]["properties"]["layer"]
    assert layer["default"] == ["layer4.2"]
    assert layer["anyOf"][0] == {"enum": ["layer4.2"]}


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("target", "red", True),
        ("target", ["red", 3, "top:2"], True),
        ("target", [], False),
        ("target", -1, False),
        ("target", 1.5, False),
        ("top_k", 6, True),
        ("top_k", 7, False),
        ("top_k", 0, False),
        ("explain", False, True),
        ("method", "gradcam++", True),
        ("method", "gradcam+", False),
        ("layer", "layer1.0", True),
        ("layer", ["layer4.2", "layer3.5"], True),
        ("layer", "layer2.0", False),
        ("layer", ["layer4.2", "layer2.0"], False),
        ("layer", [], False),
        ("outputs", "boxes", True),
        ("outputs", ["map", "mask"], True),
        ("outputs", ["maps"], False),
        ("outputs", [], False),
        ("image_format", "webp", True),
        ("image_format", "gif", False),
        ("size", "original", True),
        ("size", 1, True),
        ("size", 0, False),
        ("size", 8193, False),
        ("size", "large", False),
        ("colormap", "viridis", True),
        ("colormap", "Viridis", False),
        ("alpha", 0, True),
        ("alpha", 1, True),
        ("alpha", 1.01, False),
        ("threshold", 0.99, True),
        ("threshold", 1, False),
        ("x", 1, False),
    ],
)
def test_the_schema_accepts_what_the_handler_does(
    option: str, value: Any, accepted: bool, operator: Pipeline
) -> None:
    given = {option: value}
    assert Draft202012Validator(described(operator)["options"]).is_valid(given) is accepted
    (code,) = error_codes(single_reply(operator, json_request(PHOTO, **given)))
    assert (code is None) is accepted


def test_packages_that_the_archive_requires_are_told_with_both_versions(
    load: Callable[..., Pipeline],
) -> None:
    packed = f"{version('timm').partition('.')[0]}.0.0"
    pipeline = load(requires={"timm": packed}, preprocess={"resize": SIDE, "crop": SIDE})
    description = described(pipeline)
    assert description["model"]["requires"] == {"timm": packed}
    assert description["versions"]["timm"] == version("timm")
