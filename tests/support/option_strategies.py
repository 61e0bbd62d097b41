"""Options as callers may send them, for property tests: right ones, nearly right ones, anything."""

from __future__ import annotations

import json
from typing import Any, get_args

from hypothesis import strategies as st

from camserve.options import Colormap, FaithfulnessMetric, ImageFormat, Method, Output
from tests.support.color_resnet import LABELS

#: What an archive must serve beside its default layer for the right ones to be right.
LAYERS = ["layer3.5", "layer4.1"]

Options = dict[str, Any]


def _several(one: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[Any]:
    return st.lists(one, min_size=1, max_size=most, unique=True)


_classes = st.sampled_from(LABELS)
_scores = (
    st.integers(0, len(LABELS) - 1)
    | _classes
    | st.sampled_from(["predicted", "top:1", "top:2", "predicted-red"])
    | st.tuples(_classes, _classes).map("-".join)
)
_layers = st.sampled_from(["layer4.2", *LAYERS])
_outputs = st.sampled_from(get_args(Output))
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "target": _scores | _several(_scores, 3),
    "top_k": st.integers(1, len(LABELS)),
    "explain": st.booleans(),
    "method": st.sampled_from(get_args(Method)),
    "layer": _layers | _several(_layers, 3),
    "outputs": _outputs | _several(_outputs, 5),
    "image_format": st.sampled_from(get_args(ImageFormat)),
    "size": st.sampled_from(["model", "original"]) | st.integers(1, 120),
    "colormap": st.sampled_from(get_args(Colormap)),
    "alpha": st.floats(0, 1),
    "threshold": st.floats(0, 1, exclude_max=True),
    "faithfulness": st.lists(st.sampled_from(get_args(FaithfulnessMetric)), max_size=1),
    "explain_when": st.sampled_from(
        ["probability<0.8", "margin < 0.1 and class in [0, 1]", 'class in ["red"] or margin>0.2']
    ),
    "record": st.booleans(),
}
#: What every protocol refuses, though it is nearly right.
REFUSED: dict[str, list[Any]] = {
    "target": [
        -1, 6, "6", "-1", "0_1", 1.5, True, None, "", " ", "Red", "top:0", "top:7",
        "top:99999999999", "top:", "top:x", "top: 2", "red-", "-red", "-", "--",
        "red-pink", "red-blue-green", "top:2-red", ",", "red,",
        ",red", "red,,blue", "1,2,99", "[", "[]", "[1",
        "[null]", "[[1]]", "{}", [], [[]], [None], [""], ["top:6"] * 3,
        [0] * 17, {"red": 1}, "²", "top:٢", 10**30, "9" * 30,
    ],
    "top_k": [0, 7, -3, 3.5, True, None, "", "three", 10**30, "9" * 5000, "²", "٢", "1_0"],
    "explain": [2, "", None, "maybe"],
    "method": ["gradcam+", "gradcam++ ", "GradCAM", "", None, 1],
    "layer": ["layer4.2,", ",", "", "layer4", "layer2.0", [], "[]", ["layer3.5", ""], [4], 4, {}],
    "outputs": ["map,", "", "all", [], "[]", ["map", None], "none", None, {"map": True}, "MAP"],
    "image_format": ["PNG", "jpg", "gif", "", None],
    "size": [0, -1, 8192, 8193, "8193", 1e3, 120.5, True, None, "", "Model", "1e2", 10**30],
    "colormap": ["Jet", "grey", "", None, 2],
    "alpha": [-0.001, 1.001, "half", True, None, "", float("nan"), float("inf"), "nan", "inf",
              10**400],
    "threshold": [1, "1", -1e-9, True, None, "", float("nan"), "NaN"],
    "faithfulness": ["all", "drop,", ["drop", None], None, 1, True, {}, "Drop", ["road", "x"]],
    "explain_when": ["", "true", True, 0, [], {}, "probability", "class in 1", "class in [99]"],
    "record": [2, "", None, "maybe"],
}  # fmt: skip
#: What every protocol accepts, though it is written oddly.
ACCEPTED: dict[str, list[Any]] = {
    "target": [" 0 ", "red-red", "red - blue", "predicted-predicted", "red, blue", "[1]",
               '["red", "top:2"]', ["top:2", "top:3"], [0] * 16, "٢"],
    "top_k": ["3", " 3 ", "+3", "3.0", 3.0],
    "explain": ["true", "False", "yes", "off", 0, 1],
    "method": ["gradcam  "],
    "layer": ["layer4.2,layer3.5", " layer3.5 ", '["layer3.5"]', ["layer3.5", "layer3.5"]],
    "outputs": ["map,boxes", "map, boxes", ["map", "map"], '["mask"]'],
    "size": [1, "1", "120"],
    "alpha": ["0.5", " 0.5 ", ".5", "5e-1", "1e-400", "-0"],
    "threshold": [0.999999, "0.5"],
    "faithfulness": ["drop,increase", "", "[]", '["drop"]', ["drop", "drop"], "drop, increase"],
    "explain_when": [" margin<0.1 ", "class not in [0]"],
    "record": ["true", "no", 1],
}  # fmt: skip
# What a path, a form or gRPC carries as another value than JSON does: a list of one as that one,
# null and numbers as text.
_DEPENDS: dict[str, list[Any]] = {
    "target": [1.0, ["red,blue"]], "top_k": [[3]], "explain": [1.0, [True]],
    "method": [["gradcam"]], "layer": [None], "image_format": [["png"]], "size": [[120]],
    "colormap": [["jet"]], "alpha": [[0.5]], "threshold": [[0.5]],
    "explain_when": [None], "record": [[True]],
}  # fmt: skip
_NEARLY = {
    name: [value for table in (REFUSED, ACCEPTED, _DEPENDS) for value in table.get(name, [])]
    for name in RIGHT
}
_NAMES = sorted(RIGHT)
# JSON may escape a lone surrogate, which UTF-8 cannot carry.
_texts = st.text(st.characters(), max_size=8)
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | _texts
ANYTHING = st.recursive(
    _leaves, lambda inner: st.lists(inner) | st.dictionaries(_texts, inner), max_leaves=5
)

# A condition asks for an explanation.
valid_options: st.SearchStrategy[Options] = st.fixed_dictionaries({}, optional=RIGHT).filter(
    lambda options: "explain_when" not in options or options.get("explain", True)
)
_almost_valid = st.sampled_from(_NAMES).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(_NEARLY[name]))
)
_wild = st.tuples(st.sampled_from(_NAMES), ANYTHING)
_unknown = st.tuples(st.sampled_from(["alhpa", "Target", "", " ", "model_nam", "x=y"]), _leaves)
unknown: st.SearchStrategy[Options] = st.builds(
    lambda base, name: {**base, **dict([name])}, valid_options, _unknown
)
arbitrary_options: st.SearchStrategy[Options] = st.builds(
    lambda base, changes: {**base, **dict(changes)},
    valid_options,
    st.lists(_almost_valid | _almost_valid | _wild | _unknown, min_size=1, max_size=2),
)


def text_of(value: Any) -> str:
    """An option's value as forms, query strings and gRPC carry it."""
    return value if isinstance(value, str) else json.dumps(value)


def path_of(options: Options) -> str:
    """Options at the end of the URL path, not yet escaped."""
    return ",".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else text_of(value)}"
        for name, value in options.items()
    )
