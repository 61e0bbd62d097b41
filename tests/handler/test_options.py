"""A request's options: what is accepted, what is refused and how it is said."""

from __future__ import annotations

import sys
from typing import Any, get_args

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from camserve.errors import RequestError
from camserve.options import Colormap, ImageFormat, Method, Options, Output
from camserve.settings import Settings

NAN = float("nan")
SETTINGS = Settings(layers=("layer3.5", "layer2"))
METHODS, OUTPUTS = get_args(Method), get_args(Output)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        pytest.param("target", 285, 285, id="target-index"),
        pytest.param("target", "285", 285, id="target-index-text"),
        pytest.param("target", "Egyptian cat", "Egyptian cat", id="target-label"),
        pytest.param("target", " 285 ", 285, id="target-index-padded"),
        pytest.param("target", "predicted", "predicted", id="target-predicted"),
        pytest.param("target", "top:5", "top:5", id="target-top"),
        pytest.param("target", "cat-dog", "cat-dog", id="target-contrast"),
        pytest.param("target", "cat, dog", "cat, dog", id="target-list-or-label"),
        pytest.param("target", ["cat", 3, "4"], ("cat", 3, 4), id="target-list"),
        pytest.param("target", [285], (285,), id="target-list-of-one"),
        pytest.param("target", '["cat", 3, "4"]', ("cat", 3, 4), id="target-list-text"),
        pytest.param("target", "[cat", "[cat", id="target-label-with-a-bracket"),
        pytest.param("target", "[" * 1000, "[" * 1000, id="target-label-of-brackets"),
        pytest.param("top_k", 1, 1, id="top_k"),
        pytest.param("top_k", "3", 3, id="top_k-text"),
        pytest.param("explain", False, False, id="explain"),
        pytest.param("explain", "false", False, id="explain-text"),
        pytest.param("explain", "true", True, id="explain-true-text"),
        *(pytest.param("method", name, name, id=f"method-{name}") for name in METHODS),
        pytest.param("method", "gradcam  ", "gradcam++", id="method-plus-in-a-form"),
        pytest.param("layer", "layer4.2", ("layer4.2",), id="layer"),
        pytest.param("layer", "layer3.5", ("layer3.5",), id="layer-further"),
        pytest.param("layer", ["layer2", "layer4.2"], ("layer2", "layer4.2"), id="layer-list"),
        pytest.param("layer", "layer2, layer3.5", ("layer2", "layer3.5"), id="layer-names"),
        pytest.param("layer", '["layer2"]', ("layer2",), id="layer-json-text"),
        pytest.param("layer", ["layer2", "layer2"], ("layer2",), id="layer-twice"),
        pytest.param("layer", None, ("layer4.2",), id="layer-null"),
        pytest.param("outputs", ["overlay"], ("overlay",), id="outputs"),
        pytest.param("outputs", "overlay", ("overlay",), id="outputs-name"),
        pytest.param("outputs", "overlay, heatmap", ("overlay", "heatmap"), id="outputs-names"),
        pytest.param("outputs", '["overlay"]', ("overlay",), id="outputs-json-text"),
        pytest.param("outputs", list(OUTPUTS), OUTPUTS, id="outputs-all"),
        pytest.param("outputs", "map,boxes,map", ("map", "boxes"), id="outputs-twice"),
        *(pytest.param("image_format", name, name, id=name) for name in get_args(ImageFormat)),
        pytest.param("size", "model", "model", id="size"),
        pytest.param("size", "original", "original", id="size-original"),
        pytest.param("size", 1, 1, id="size-least"),
        pytest.param("size", "8192", 8192, id="size-most-text"),
        pytest.param("colormap", "viridis", "viridis", id="colormap"),
        pytest.param("alpha", 0, 0.0, id="alpha-low"),
        pytest.param("alpha", 1, 1.0, id="alpha-high"),
        pytest.param("alpha", "0.55", 0.55, id="alpha-text"),
        pytest.param("threshold", 0, 0.0, id="threshold-low"),
        pytest.param("threshold", "0.999", 0.999, id="threshold-high-text"),
    ],
)
def test_option_is_accepted_typed_and_as_text(option: str, given: Any, value: Any) -> None:
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
        pytest.param("target", [], "or a list of these", id="target-empty-list"),
        pytest.param("target", "[]", "or a list of these", id="target-empty-list-text"),
        pytest.param("target", [None], "or a list of these", id="target-list-of-null"),
        pytest.param("target", [1, True], "or a list of these", id="target-list-with-a-boolean"),
        pytest.param("target", [["cat"]], "or a list of these", id="target-list-in-a-list"),
        pytest.param("target", [""], "or a list of these", id="target-list-of-nothing"),
        pytest.param("target", [-1], "or a list of these", id="target-list-negative"),
        pytest.param("target", "x" * 1001, "a class index, an exact label", id="target-too-long"),
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
        pytest.param("method", "gradcam ", ", ".join(METHODS), id="method-one-plus"),
        pytest.param("method", "gradcam++ ", ", ".join(METHODS), id="method-three-pluses"),
        pytest.param("layer", "layer3", "layer4.2, layer3.5, layer2", id="layer-other"),
        pytest.param("layer", ["layer2", "layer3"], "layer4.2", id="layer-list-one-other"),
        pytest.param("layer", [], "a list of them", id="layer-empty-list"),
        pytest.param("layer", "", "a list of them", id="layer-empty"),
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
        pytest.param("size", "nope", "1 to 8192", id="size"),
        pytest.param("size", 0, "1 to 8192", id="size-zero"),
        pytest.param("size", 8193, "1 to 8192", id="size-too-large"),
        pytest.param("size", "1e3", "1 to 8192", id="size-float-text"),
        pytest.param("size", 0.5, "1 to 8192", id="size-fraction"),
        pytest.param("size", True, "1 to 8192", id="size-boolean"),
        pytest.param("size", None, "1 to 8192", id="size-null"),
        pytest.param("threshold", 1, "to below 1", id="threshold-high"),
        pytest.param("threshold", -0.01, "0 to", id="threshold-low"),
        pytest.param("threshold", NAN, "0 to", id="threshold-nan"),
        pytest.param("threshold", False, "0 to", id="threshold-boolean"),
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
def test_refused_option_is_named_with_what_is_accepted(
    option: str, given: Any, accepted: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        SETTINGS.options({option: given})
    assert refusal.value.code == "invalid_option"
    assert f"option {option!r}: " in refusal.value.message
    assert accepted in refusal.value.message.partition("accepted: ")[2]


@pytest.mark.parametrize(
    ("option", "nearest"), [("alfa", "alpha"), ("top-k", "top_k"), ("output", "outputs")]
)
def test_unknown_option_suggests_the_nearest(option: str, nearest: str) -> None:
    with pytest.raises(RequestError, match=f"did you mean '{nearest}'") as refusal:
        SETTINGS.options({option: 1})
    assert refusal.value.code == "unknown_option"


def test_unknown_option_lists_all_options() -> None:
    with pytest.raises(RequestError) as refusal:
        SETTINGS.options({"zzz": 1})
    assert refusal.value.message == (
        f"unknown option 'zzz'; accepted: {', '.join(sorted(Options.model_fields))}"
    )


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"alpha": "x" * 1_000_000}, id="text"),
        pytest.param({"target": [{}] * 10_000}, id="list"),
        pytest.param({"target": {"x" * 1_000_000: 1}}, id="object"),
        pytest.param({"alpha": 10**4000}, id="number"),
        pytest.param({"target": nested(sys.getrecursionlimit())}, id="bottomless-list"),
        pytest.param({"x" * 1_000_000: 1}, id="name"),
        pytest.param({"layer": "x" * 1_000_000}, id="layer"),
        pytest.param({"layer": "x" * 1000}, id="layer-longest"),
    ],
)
def test_message_stays_short_for_a_huge_value(given: Any) -> None:
    with pytest.raises(RequestError) as refusal:
        SETTINGS.options(given)
    assert len(refusal.value.message) < 500


def test_options_not_given_are_the_operators() -> None:
    operator = Settings.from_yaml({"handler": {"defaults": {"alpha": 0.8, "top_k": 2}}})
    options = operator.options({"top_k": 3})
    assert (options.alpha, options.top_k) == (0.8, 3)


def test_options_name_the_archives_layer() -> None:
    assert Settings(layer="_bn1").options({}).layer == ("_bn1",)
    assert Settings(layer="_bn1", layers=("x", "_bn1")).options({}).layer == ("_bn1",)


def test_options_name_the_operators_choice_of_layers() -> None:
    settings = Settings(layers=("layer3",), defaults=Options(layer=("layer3", "layer4.2")))
    assert settings.options({}).layer == ("layer3", "layer4.2")
    assert settings.options({"layer": "layer4.2"}).layer == ("layer4.2",)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        pytest.param(SETTINGS, "layer", id="settings"),
        pytest.param(SETTINGS.limits, "pixels", id="section"),
        pytest.param(SETTINGS.options({}), "alpha", id="options"),
    ],
)
def test_values_are_immutable(values: BaseModel, name: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(values, name, getattr(values, name))


def test_a_request_leaves_the_defaults_alone() -> None:
    before = SETTINGS.model_copy(deep=True)
    SETTINGS.options({"alpha": 0.9, "outputs": ["overlay"]})
    assert before == SETTINGS


def test_colormaps_are_opencvs() -> None:
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
def test_any_json_object_gives_options_or_a_request_error(given: Any) -> None:
    outcome: Options | RequestError
    try:
        outcome = SETTINGS.options(given)
    except RequestError as error:
        outcome = error
    assert isinstance(outcome, Options | RequestError)
