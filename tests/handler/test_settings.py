import sys
from pathlib import Path
from typing import get_args

import cv2
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from camserve.errors import RequestError, SettingsError
from camserve.settings import Colormap, Options, Settings

CONFIG = Path(__file__).parents[2] / "handler" / "model-config.yaml"
NAN = float("nan")
SETTINGS = Settings()


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


# model-config.yaml


def test_packaged_config_means_the_defaults():
    assert Settings.from_yaml(yaml.safe_load(CONFIG.read_text())) == Settings()


def test_packaged_config_spells_every_default_out():
    # handler.layer stands for defaults.layer.
    defaults = Settings().model_dump(mode="json", exclude={"defaults": {"layer"}})
    assert yaml.safe_load(CONFIG.read_text())["handler"] == defaults


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
def test_unknown_key_is_named_with_its_place_and_the_nearest(config, message):
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
            {"defaults": {"target": [1]}}, "defaults.target", "[1]", "class index", id="target"
        ),
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
    ],
)
def test_wrong_setting_is_named_with_its_full_key_value_and_what_is_accepted(
    section, key, value, accepted
):
    with pytest.raises(SettingsError) as refusal:
        Settings.from_yaml({"handler": section})
    message = str(refusal.value)
    assert f"handler.{key}: " in message
    assert value in message
    assert accepted in message


@pytest.mark.parametrize("handler", [None, [], "resnet50"])
def test_handler_must_be_a_section(handler):
    with pytest.raises(SettingsError, match="'handler' must be a section"):
        Settings.from_yaml({"handler": handler})


def test_settings_keep_what_was_given():
    section = {"layer": "_bn1", "preprocess": {"resize": 256, "std": [0.5, 0.5, 0.5]}}
    values = Settings.from_yaml({"batchSize": 4, "handler": section})
    assert (values.layer, values.preprocess.resize, values.preprocess.std) == (
        "_bn1",
        256,
        (0.5, 0.5, 0.5),
    )


# A request's options


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        pytest.param("target", 285, 285, id="target-index"),
        pytest.param("target", "285", 285, id="target-index-text"),
        pytest.param("target", "Egyptian cat", "Egyptian cat", id="target-label"),
        pytest.param("target", "predicted", "predicted", id="target-predicted"),
        pytest.param("top_k", 1, 1, id="top_k"),
        pytest.param("top_k", "3", 3, id="top_k-text"),
        pytest.param("explain", False, False, id="explain"),
        pytest.param("explain", "false", False, id="explain-text"),
        pytest.param("explain", "true", True, id="explain-true-text"),
        pytest.param("method", "gradcam", "gradcam", id="method"),
        pytest.param("layer", "layer4.2", "layer4.2", id="layer"),
        pytest.param("outputs", ["overlay"], ("overlay",), id="outputs"),
        pytest.param("outputs", "overlay", ("overlay",), id="outputs-name"),
        pytest.param("outputs", "overlay, heatmap", ("overlay", "heatmap"), id="outputs-names"),
        pytest.param("outputs", '["overlay"]', ("overlay",), id="outputs-json-text"),
        pytest.param("image_format", "webp", "webp", id="image_format"),
        pytest.param("size", "model", "model", id="size"),
        pytest.param("colormap", "viridis", "viridis", id="colormap"),
        pytest.param("alpha", 0, 0.0, id="alpha-low"),
        pytest.param("alpha", 1, 1.0, id="alpha-high"),
        pytest.param("alpha", "0.55", 0.55, id="alpha-text"),
    ],
)
def test_option_is_accepted_typed_and_as_text(option, given, value):
    assert getattr(SETTINGS.options({option: given}), option) == value


@pytest.mark.parametrize(
    ("option", "given", "accepted"),
    [
        pytest.param("target", -1, "a class index, an exact label", id="target-negative"),
        pytest.param("target", "-1", "a class index, an exact label", id="target-negative-text"),
        pytest.param("target", 1.5, "a class index, an exact label", id="target-fraction"),
        pytest.param("target", NAN, "a class index, an exact label", id="target-nan"),
        pytest.param("target", True, "a class index, an exact label", id="target-boolean"),
        pytest.param("target", "", "a class index, an exact label", id="target-empty"),
        pytest.param("target", None, "a class index, an exact label", id="target-null"),
        pytest.param("target", {"index": 1}, "a class index, an exact label", id="target-object"),
        pytest.param("top_k", 0, "from 1 to", id="top_k-zero"),
        pytest.param("top_k", "0", "from 1 to", id="top_k-zero-text"),
        pytest.param("top_k", 2.5, "from 1 to", id="top_k-fraction"),
        pytest.param("top_k", True, "from 1 to", id="top_k-boolean"),
        pytest.param("top_k", float("inf"), "from 1 to", id="top_k-infinite"),
        pytest.param("top_k", "many", "from 1 to", id="top_k-word"),
        pytest.param("explain", "maybe", "true or false", id="explain-word"),
        pytest.param("explain", 2, "true or false", id="explain-number"),
        pytest.param("explain", None, "true or false", id="explain-null"),
        pytest.param("method", "nope", "gradcam", id="method"),
        pytest.param("method", ["gradcam"], "gradcam", id="method-list"),
        pytest.param("layer", "layer3", "layer4.2", id="layer-other"),
        pytest.param("layer", None, "layer4.2", id="layer-null"),
        pytest.param("layer", 4, "layer", id="layer-number"),
        pytest.param("outputs", "nope", "heatmap, overlay", id="outputs-name"),
        pytest.param("outputs", ["heatmap", "nope"], "heatmap, overlay", id="outputs-one-wrong"),
        pytest.param("outputs", [], "heatmap, overlay", id="outputs-none"),
        pytest.param("outputs", "", "heatmap, overlay", id="outputs-empty-text"),
        pytest.param("outputs", "[", "heatmap, overlay", id="outputs-broken-json"),
        pytest.param("outputs", "[" * 100_000, "heatmap, overlay", id="outputs-bottomless-json"),
        pytest.param("outputs", {"heatmap": True}, "heatmap, overlay", id="outputs-object"),
        pytest.param("outputs", None, "heatmap, overlay", id="outputs-null"),
        pytest.param("image_format", "JPEG", "png, jpeg, webp", id="image_format-case"),
        pytest.param("size", "nope", "model", id="size"),
        pytest.param("colormap", "Jet", "jet, winter", id="colormap-case"),
        pytest.param("alpha", -0.01, "from 0 to 1", id="alpha-low"),
        pytest.param("alpha", 1.01, "from 0 to 1", id="alpha-high"),
        pytest.param("alpha", "1.01", "from 0 to 1", id="alpha-high-text"),
        pytest.param("alpha", NAN, "from 0 to 1", id="alpha-nan"),
        pytest.param("alpha", "nan", "from 0 to 1", id="alpha-nan-text"),
        pytest.param("alpha", True, "from 0 to 1", id="alpha-boolean"),
        pytest.param("alpha", "half", "from 0 to 1", id="alpha-word"),
    ],
)
def test_refused_option_is_named_with_what_is_accepted(option, given, accepted):
    with pytest.raises(RequestError) as refusal:
        SETTINGS.options({option: given})
    assert refusal.value.code == "invalid_option"
    assert f"option {option!r}: " in refusal.value.message
    assert accepted in refusal.value.message.partition("accepted: ")[2]


@pytest.mark.parametrize(
    ("option", "nearest"), [("alfa", "alpha"), ("top-k", "top_k"), ("output", "outputs")]
)
def test_unknown_option_suggests_the_nearest(option, nearest):
    with pytest.raises(RequestError, match=f"did you mean '{nearest}'") as refusal:
        SETTINGS.options({option: 1})
    assert refusal.value.code == "unknown_option"


def test_unknown_option_lists_all_options():
    with pytest.raises(RequestError) as refusal:
        SETTINGS.options({"zzz": 1})
    assert refusal.value.message == (
        f"unknown option 'zzz'; accepted: {', '.join(sorted(Options.model_fields))}"
    )


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"alpha": "x" * 1_000_000}, id="text"),
        pytest.param({"target": ["x"] * 100_000}, id="list"),
        pytest.param({"alpha": 10**4000}, id="number"),
        pytest.param({"target": nested(sys.getrecursionlimit())}, id="bottomless-list"),
        pytest.param({"x" * 1_000_000: 1}, id="name"),
        pytest.param({"layer": "x" * 1_000_000}, id="layer"),
    ],
)
def test_message_stays_short_for_a_huge_value(given):
    with pytest.raises(RequestError) as refusal:
        SETTINGS.options(given)
    assert len(refusal.value.message) < 500


def test_options_not_given_are_the_operators():
    operator = Settings.from_yaml({"handler": {"defaults": {"alpha": 0.8, "top_k": 2}}})
    options = operator.options({"top_k": 3})
    assert (options.alpha, options.top_k) == (0.8, 3)


def test_options_name_the_archives_layer():
    assert Settings(layer="_bn1").options({}).layer == "_bn1"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        pytest.param(SETTINGS, "layer", id="settings"),
        pytest.param(SETTINGS.limits, "pixels", id="section"),
        pytest.param(SETTINGS.options({}), "alpha", id="options"),
    ],
)
def test_values_are_immutable(values, name):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(values, name, getattr(values, name))


def test_a_request_leaves_the_defaults_alone():
    before = SETTINGS.model_copy(deep=True)
    SETTINGS.options({"alpha": 0.9, "outputs": ["overlay"]})
    assert before == SETTINGS


def test_colormaps_are_opencvs():
    opencvs = {name for name in dir(cv2) if name.startswith("COLORMAP_")}
    assert {f"COLORMAP_{name.upper()}" for name in get_args(Colormap)} == opencvs


# JSON may escape a lone surrogate, which UTF-8 cannot carry.
texts = st.text(st.characters())
likely = st.sampled_from(["predicted", "heatmap,overlay", "[", "true", "nan", "-1", "png", "0.5"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | likely
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=6
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(Options.model_fields)) | texts, json_values))
def test_any_json_object_gives_options_or_a_request_error(given):
    try:
        outcome = SETTINGS.options(given)
    except RequestError as error:
        outcome = error
    assert isinstance(outcome, Options | RequestError)
