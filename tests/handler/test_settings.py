"""model-config.yaml: what stops a load, and what the message names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from camserve.errors import SettingsError
from camserve.settings import Settings

CONFIG = Path(__file__).parents[2] / "handler" / "model-config.yaml"
NAN = float("nan")


def test_packaged_config_means_the_defaults() -> None:
    assert Settings.from_yaml(yaml.safe_load(CONFIG.read_text())) == Settings()


def test_packaged_config_spells_every_default_out() -> None:
    # handler.layer stands for defaults.layer.
    defaults = Settings().model_dump(mode="json", exclude={"defaults": {"layer"}})
    assert yaml.safe_load(CONFIG.read_text())["handler"] == defaults


def test_no_reply_is_larger_than_the_server_lets_a_worker_send() -> None:
    properties = (CONFIG.parents[1] / "config.properties").read_text()
    (most,) = re.findall(r"^max_response_size=(\d+)$", properties, re.MULTILINE)
    assert Settings().limits.reply_bytes < int(most)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(
            {"batchsize": 8, "handler": {}},
            "unknown key 'batchsize'; did you mean 'batchSize'?",
            id="top",
        ),
        pytest.param(
            {"handler": {"archi": "resnet50"}},
            "handler: unknown key 'archi'; did you mean 'arch'?",
            id="handler",
        ),
        pytest.param(
            {"handler": {"preprocess": {"resise": 256}}},
            "handler.preprocess: unknown key 'resise'; did you mean 'resize'?",
            id="preprocess",
        ),
        pytest.param(
            {"handler": {"limits": {"pixel": 1}}},
            "handler.limits: unknown key 'pixel'; did you mean 'pixels'?",
            id="limits",
        ),
        pytest.param(
            {"handler": {"defaults": {"alfa": 0.5}}},
            "handler.defaults: unknown key 'alfa'; did you mean 'alpha'?",
            id="defaults",
        ),
    ],
)
def test_unknown_key_is_named_with_its_place_and_the_nearest(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match="accepted: ") as refusal:
        Settings.from_yaml(config)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "accepted"),
    [
        pytest.param({"arch": 50}, "arch", "50", "torchvision classifier", id="arch"),
        pytest.param({"arch_kwargs": [1]}, "arch_kwargs", "[1]", "keyword", id="arch_kwargs"),
        pytest.param({"weights": None}, "weights", "None", "file name", id="weights"),
        pytest.param({"layer": 4}, "layer", "4", "dotted name", id="layer"),
        pytest.param({"preprocess": None}, "preprocess", "None", "a section", id="section-null"),
        pytest.param({"limits": [1]}, "limits", "[1]", "a section", id="section-list"),
        pytest.param(
            {"preprocess": {"resize": "big"}}, "preprocess.resize", "'big'", "1 to 4096", id="text"
        ),
        pytest.param(
            {"preprocess": {"resize": 0}}, "preprocess.resize", "0", "1 to 4096", id="too-small"
        ),
        pytest.param(
            {"preprocess": {"resize": True}}, "preprocess.resize", "True", "1 to 4096", id="boolean"
        ),
        pytest.param(
            {"preprocess": {"crop": 300}}, "preprocess", "crop (300)", "resize (232)", id="crop"
        ),
        *(
            pytest.param(
                {"preprocess": {key: value}},
                f"preprocess.{key}",
                str(value),
                "or [height, width]; 1 to 4096",
                id=f"{key}-{value}",
            )
            for key in ("crop", "resize")
            for value in ([224], [1, 2, 3], [0, 9], [9, 4097], [True, 9], [9.5, 9], "a", None, True)
        ),
        *(
            pytest.param(
                {"preprocess": {"crop": crop, "resize": resize}},
                "preprocess",
                f"crop ({crop}) must not exceed resize ({resize}) on any side",
                accepted,
                id=f"crop-{crop}-of-{resize}",
            )
            for crop, resize, accepted in (
                (
                    [128, 256],
                    255,
                    "at least crop's height and width, as [128, 256]",
                ),
                ([256, 128], 255, "the photo's shorter side, of at least 256"),
                ([128, 256], [127, 400], "as [128, 256]"),
                ([128, 256], [400, 255], "as [128, 256]"),
                (128, [128, 127], "as [128, 128]"),
            )
        ),
        *(
            pytest.param(
                {"preprocess": {"channels": value}},
                "preprocess.channels",
                str(value),
                "3 (red, green, blue) or 1 (grey)",
                id=f"channels-{value}",
            )
            for value in (0, 2, 4, True, "grey", None, [1])
        ),
        *(
            pytest.param(
                {"preprocess": {"range": value}},
                "preprocess.range",
                shown,
                "two numbers from -65535 to 65535, at least 0.001 apart",
                id=f"range-{value}",
            )
            for value, shown in (
                ([1, 0], "[1, 0]"),
                ([1, 1], "[1, 1]"),
                ([0, 1e-4], "0.0001"),
                ([0], "[0]"),
                (255, "255"),
                ([0, NAN], "nan"),
                ([0, 1e9], "1000000000.0"),
                ([False, 1], "False"),
            )
        ),
        *(
            pytest.param(
                {"preprocess": section}, f"preprocess.{key}", shown, accepted, id=f"{key}-{shown}"
            )
            for section, key, shown, accepted in (
                # What is not set has three values.
                (
                    {"channels": 1},
                    "mean",
                    "[0.485, 0.456, 0.406]",
                    "one number from 0 to 1, for grey",
                ),
                (
                    {"channels": 1, "mean": 0.5},
                    "std",
                    "[0.229, 0.224, 0.225]",
                    "one number above 0",
                ),
                (
                    {"channels": 1, "mean": [0.5, 0.5, 0.5]},
                    "mean",
                    "[0.5, 0.5, 0.5]",
                    "(channels is 1",
                ),
                ({"mean": 0.5}, "mean", "0.5", "three numbers from 0 to 1, for R, G and B"),
                ({"std": [0.5]}, "std", "[0.5]", "(channels is 3"),
                ({"mean": []}, "mean", "[]", "three numbers"),
                ({"mean": [True, 0, 0]}, "mean", "[True, 0, 0]", "three numbers"),
                ({"mean": None}, "mean", "None", "three numbers"),
                (
                    {"mean": [127, 127, 127]},
                    "mean",
                    "127",
                    "kept with handler.preprocess.range [0, 255]",
                ),
                (
                    {"range": [-1, 1], "mean": [-2, 0, 0]},
                    "mean",
                    "[-2, 0, 0]",
                    "from -1 to 1, for R, G",
                ),
                (
                    {"range": [-1, 1], "std": [3, 1, 1]},
                    "std",
                    "[3, 1, 1]",
                    "up to 2, for R, G and B",
                ),
                ({"range": [0, 255], "mean": [256, 0, 0]}, "mean", "256", "range is [0, 255]"),
                (
                    {"range": [0.6, 1]},
                    "mean",
                    "[0.485, 0.456, 0.406]",
                    "three numbers from 0.6 to 1",
                ),
            )
        ),
        pytest.param(
            {"preprocess": {"interpolation": "area"}},
            "preprocess.interpolation",
            "'area'",
            "bilinear or bicubic",
            id="interpolation",
        ),
        pytest.param(
            {"preprocess": {"mean": [0.5, 0.5]}},
            "preprocess.mean",
            "[0.5, 0.5]",
            "three numbers",
            id="mean-of-two",
        ),
        pytest.param(
            {"preprocess": {"mean": [NAN, 0, 0]}},
            "preprocess.mean",
            "nan",
            "three numbers",
            id="mean-nan",
        ),
        pytest.param(
            {"preprocess": {"mean": [123.675, 116.28, 103.53]}},
            "preprocess.mean",
            "123.675",
            "divided by 255",
            id="mean-of-255",
        ),
        pytest.param(
            {"preprocess": {"mean": [-0.1, 0, 0]}},
            "preprocess.mean",
            "-0.1",
            "from 0 to 1",
            id="mean-negative",
        ),
        pytest.param(
            {"preprocess": {"std": [58.395, 57.12, 57.375]}},
            "preprocess.std",
            "58.395",
            "divided by 255",
            id="std-of-255",
        ),
        pytest.param(
            {"preprocess": {"std": [0, 1, 1]}},
            "preprocess.std",
            "0",
            "above 0",
            id="std-zero",
        ),
        pytest.param(
            {"preprocess": {"std": [float("inf")] * 3}},
            "preprocess.std",
            "inf",
            "above 0",
            id="std-infinite",
        ),
        pytest.param({"limits": {"pixels": 0}}, "limits.pixels", "0", "1 to", id="pixels"),
        pytest.param(
            {"limits": {"pixels": True}}, "limits.pixels", "True", "1 to", id="pixels-boolean"
        ),
        pytest.param(
            {"limits": {"aspect_ratio": 0.5}},
            "limits.aspect_ratio",
            "0.5",
            "at least 1",
            id="aspect",
        ),
        pytest.param(
            {"limits": {"aspect_ratio": NAN}},
            "limits.aspect_ratio",
            "nan",
            "at least 1",
            id="aspect-nan",
        ),
        pytest.param({"defaults": {"alpha": 2}}, "defaults.alpha", "2", "from 0 to 1", id="alpha"),
        pytest.param(
            {"defaults": {"target": [-1]}}, "defaults.target", "-1", "class index", id="target"
        ),
        pytest.param(
            {"defaults": {"target": {}}}, "defaults.target", "{}", "a list of", id="target-object"
        ),
        pytest.param({"defaults": {"size": 9000}}, "defaults.size", "9000", "1 to 8192", id="size"),
        pytest.param(
            {"defaults": {"threshold": 1}}, "defaults.threshold", "1", "below 1", id="threshold"
        ),
        pytest.param(
            {"defaults": {"method": "cam"}}, "defaults.method", "'cam'", "layercam", id="method"
        ),
        pytest.param(
            {"preprocess": {"fit": "letterbox"}},
            "preprocess.fit",
            "'letterbox'",
            "crop, stretch or pad",
            id="fit",
        ),
        pytest.param({"layers": "layer3"}, "layers", "'layer3'", "a list of", id="layers-text"),
        pytest.param({"layers": [3]}, "layers", "3", "dotted names", id="layers-number"),
        *(
            pytest.param(
                {"limits": {key: value}}, f"limits.{key}", str(value), "at least 1", id=key
            )
            for key in (
                "instances",
                "targets",
                "drawn_pixels",
                "reply_bytes",
                "photo_bytes",
                "json_bytes",
                "json_values",
            )
            for value in (0, "many", True, 1.5)
        ),
        *(
            pytest.param(
                {"limits": {key: value}}, f"limits.{key}", str(value), f"1 to {most}", id=key
            )
            for key, most in (("pixels", 2**27), ("side", 2**16), ("json_depth", 100))
            for value in (0, most + 1)
        ),
        pytest.param({"weights_sha256": "abc"}, "weights_sha256", "'abc'", "SHA-256", id="sha"),
        pytest.param(
            {"defaults": {"outputs": ["heatmap", "nope"]}},
            "defaults.outputs",
            "'nope'",
            "heatmap, overlay",
            id="outputs",
        ),
        pytest.param(
            {"defaults": {"layer": "layer3"}},
            "defaults.layer",
            "layer3",
            "layer4.2",
            id="defaults-layer",
        ),
        pytest.param(
            {"layers": ["layer2"], "defaults": {"layer": ["layer2", "layer3"]}},
            "defaults.layer",
            "'layer3' is not served",
            "layer4.2, layer2",
            id="defaults-layer-list",
        ),
    ],
)
def test_wrong_setting_is_named_with_its_full_key_value_and_what_is_accepted(
    section: dict[str, Any], key: str, value: Any, accepted: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_yaml({"handler": section})
    message = str(refusal.value)
    assert f"handler.{key}: " in message
    assert value in message
    assert accepted in message


@pytest.mark.parametrize("handler", [None, [], "resnet50"])
def test_handler_must_be_a_section(handler: Any) -> None:
    with pytest.raises(SettingsError, match="'handler' must be a section"):
        Settings.from_yaml({"handler": handler})


def test_settings_keep_what_was_given() -> None:
    section = {
        "layer": "_bn1",
        "layers": ["_conv_head"],
        "preprocess": {"resize": 256, "std": [0.5, 0.5, 0.5]},
        "limits": {"instances": 4},
        "defaults": {"layer": "_conv_head"},
    }
    values = Settings.from_yaml({"batchSize": 4, "handler": section})
    assert (values.layer, values.served) == ("_bn1", ("_bn1", "_conv_head"))
    assert (values.preprocess.resize, values.preprocess.std) == (256, (0.5, 0.5, 0.5))
    assert (values.limits.instances, values.limits.targets) == (4, 16)
    assert values.options({}).layer == ("_conv_head",)


@pytest.mark.parametrize(
    ("section", "input_size", "mean_color"),
    [
        ({}, (224, 224), (124, 116, 104)),
        ({"crop": 96}, (96, 96), (124, 116, 104)),
        ({"crop": [128, 256], "resize": 256}, (128, 256), (124, 116, 104)),
        ({"crop": [256, 128], "resize": [256, 128]}, (256, 128), (124, 116, 104)),
        ({"crop": [128, 999], "fit": "pad"}, (128, 999), (124, 116, 104)),
        ({"crop": [128, 999], "fit": "stretch"}, (128, 999), (124, 116, 104)),
        ({"channels": 1, "mean": 0.5, "std": 0.5}, (224, 224), (128, 128, 128)),
        ({"channels": 1, "mean": [0.1307], "std": [0.3081]}, (224, 224), (33, 33, 33)),
        ({"range": [-1, 1], "mean": [0, -1, 1], "std": [1, 2, 1]}, (224, 224), (128, 0, 255)),
        ({"range": [0, 255], "mean": [123.675, 116.28, 103.53]}, (224, 224), (124, 116, 104)),
        ({"range": [-128, 127], "mean": [0, 0, 0]}, (224, 224), (128, 128, 128)),
    ],
)
def test_what_the_preprocessing_makes(
    section: dict[str, Any], input_size: tuple[int, int], mean_color: tuple[int, int, int]
) -> None:
    preprocess = Settings.from_yaml({"handler": {"preprocess": section}}).preprocess
    assert preprocess.input_size == input_size
    assert preprocess.mean_color == mean_color


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_only_a_crop_must_fit_the_resized_photo(fit: Any) -> None:
    section = {"preprocess": {"fit": fit, "crop": 300}}
    assert Settings.from_yaml({"handler": section}).preprocess.crop == 300


def test_a_layer_that_is_named_twice_is_served_once() -> None:
    assert Settings(layer="a", layers=("b", "a", "b")).served == ("a", "b")


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("batchSize", 0, "at least 1"),
        ("batchSize", "8", "at least 1"),
        ("batchSize", True, "at least 1"),
        ("maxBatchDelay", -1, "at least 0"),
        ("responseTimeout", 1.5, "at least 1"),
        ("minWorkers", None, "at least 1"),
    ],
)
def test_a_wrong_value_of_torchserves_own_keys_is_named(
    key: str, value: object, accepted: str
) -> None:
    with pytest.raises(SettingsError, match=f"{key}: .* is not accepted; .*{accepted}"):
        Settings.from_yaml({key: value, "handler": {}})
