"""Tasks and kinds of output: which classes are predicted, and what is explained of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve.description import describe
from camserve.errors import SettingsError
from camserve.pipeline import Pipeline
from tests.support.color_resnet import png
from tests.support.contract import as_v2_has_it, assert_replies_close
from tests.support.request_builders import (
    error_codes,
    json_request,
    photo_outcomes,
    single_reply,
    v1,
    v2,
)
from tests.support.task_network import BIAS, BINARY_WEIGHT, LABELS, WEIGHT, stripes

Load = Callable[..., Pipeline]
Map = NDArray[np.float64]
#: Logits 3, 3, -4 of red, green and blue.
RED_GREEN = png(stripes("red", "green"))
#: Logits 10, -4, -4; and -0.5, -4, -4, of which none is above 0.5.
RED = png(stripes("red"))
FAINT = png(stripes("red", "black", "black", "black"))
ALL = png(stripes("red", "green", "blue"))
#: A photo's stripes of red, green and blue as maps of 8 x 8, which a class' own weight makes.
SIDE = 8


@pytest.fixture(scope="module")
def multilabel(load_task: Load) -> Pipeline:
    return load_task(task="multilabel")


@pytest.fixture(scope="module")
def binary(load_task: Load) -> Pipeline:
    return load_task(["no", "yes"], task="binary", arch_kwargs={"binary": True})


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def answer(pipeline: Pipeline, photo: bytes, **options: Any) -> dict[str, Any]:
    (reply,) = single_reply(pipeline, json_request(photo, **{"outputs": ["map"], **options}))
    return reply


def explained(reply: dict[str, Any]) -> list[str]:
    return [explanation["label"] for explanation in reply["explanations"]]


def map_of(explanation: dict[str, Any]) -> Map:
    map = explanation["map"]
    values: Map = np.array(map["values"]).reshape(map["shape"])
    return values


def normalised(raw: Any) -> Map:
    positive = np.maximum(raw, 0)
    normalised: Map = (positive - positive.min()) / max(np.ptp(positive), 1e-12)
    return normalised


def cells(*colours: str) -> Map:
    """The activations (3, 8, 8) of layer ``cells``."""
    pixels = stripes(*colours) / 255
    means: Map = pixels.reshape(SIDE, 8, SIDE, 8, 3).mean((1, 3)).transpose(2, 0, 1)
    return means


# Multilabel


def test_each_class_has_its_own_probability_and_all_above_the_threshold_are_explained(
    multilabel: Pipeline,
) -> None:
    reply = answer(multilabel, RED_GREEN)
    probabilities = [one["probability"] for one in reply["predictions"]]
    np.testing.assert_allclose(
        [one["score"] for one in reply["predictions"]], [3, 3, -4], atol=1e-5
    )
    np.testing.assert_allclose(probabilities, [0.952574, 0.952574, 0.017986], atol=1e-6)
    assert explained(reply) == ["red", "green"]
    for index, explanation in enumerate(reply["explanations"]):
        np.testing.assert_allclose(map_of(explanation), cells("red", "green")[index], atol=1e-5)


@pytest.mark.parametrize(
    ("photo", "threshold", "labels"),
    [
        (RED_GREEN, 0.5, ["red", "green"]),
        (RED_GREEN, 0.95, ["red", "green"]),
        (RED_GREEN, 0.01, ["red", "green", "blue"]),
        (RED, 0.5, ["red"]),
        # None above it: the best one.
        (RED_GREEN, 0.96, ["red"]),
        (FAINT, 0.5, ["red"]),
        (FAINT, 0.9, ["red"]),
    ],
)
def test_predicted_are_the_classes_above_the_threshold_and_at_least_the_best(
    load_task: Load, photo: bytes, threshold: float, labels: list[str]
) -> None:
    pipeline = load_task(task="multilabel", decision_threshold=threshold)
    assert explained(answer(pipeline, photo)) == labels


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("top:1", ["red"]),
        ("top:3", ["red", "green", "blue"]),
        ("blue", ["blue"]),
        (["blue", "predicted"], ["blue", "red", "green"]),
        (["predicted", "blue", "predicted"], ["red", "green", "blue", "red", "green"]),
        ("predicted,top:2", ["red", "green", "red", "green"]),
        # A contrast compares two classes: of the predicted ones it is the best.
        ("predicted-blue", ["red"]),
        (["blue-predicted", "predicted"], ["blue", "red", "green"]),
    ],
)
def test_a_list_of_targets_keeps_its_order(
    multilabel: Pipeline, target: Any, labels: list[str]
) -> None:
    reply = answer(multilabel, RED_GREEN, target=target)
    assert explained(reply) == labels
    separate = [answer(multilabel, RED_GREEN, target=label)["explanations"] for label in labels]
    plain = [one for one in reply["explanations"] if "against" not in one]
    for explanation in plain:
        expected = next(one for (one,) in separate if one["label"] == explanation["label"])
        assert_replies_close(explanation, expected)


def test_a_contrast_is_the_difference_of_two_logits(multilabel: Pipeline) -> None:
    (explanation,) = answer(multilabel, RED_GREEN, target="red-green")["explanations"]
    red, green, _ = cells("red", "green")
    assert explanation["against"]["label"] == "green"
    np.testing.assert_allclose(map_of(explanation), normalised(red - green), atol=1e-5)


def test_no_class_is_explained_where_none_is_asked_for(multilabel: Pipeline) -> None:
    reply = answer(multilabel, RED_GREEN, explain=False)
    assert (explained(reply), len(reply["predictions"])) == ([], 3)


@pytest.mark.parametrize("protocol", [v1, v2])
def test_photos_of_a_request_have_different_numbers_of_explanations(
    multilabel: Pipeline, protocol: Callable[..., Any]
) -> None:
    photos = [RED_GREEN, RED, FAINT, RED_GREEN]
    (together,) = photo_outcomes(multilabel, protocol(*photos, outputs=["map"]))
    assert [explained(reply) for reply in together] == [
        ["red", "green"], ["red"], ["red"], ["red", "green"]
    ]  # fmt: skip
    for photo, reply in zip(photos, together, strict=True):
        alone = answer(multilabel, photo)
        assert_replies_close(reply, as_v2_has_it(alone) if protocol is v2 else alone)


def test_more_predicted_classes_than_may_be_explained_fail_for_their_photo_alone(
    load_task: Load,
) -> None:
    pipeline = load_task(task="multilabel", limits={"targets": 1})
    (found,) = photo_outcomes(pipeline, v1(RED, RED_GREEN, FAINT))
    assert error_codes(found) == [None, "too_many_targets", None]
    assert found[1]["error"]["message"] == (
        "of this photo 2 scores would be explained, as so many classes are predicted; accepted: up "
        "to 1, as target=top:1"
    )
    assert explained(answer(pipeline, RED_GREEN, target="top:1")) == ["red"]
    assert answer(pipeline, RED_GREEN, explain=False)["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(
    ("outputs", "limit", "codes"),
    [
        # A picture has 64 x 64 pixels: two of red and green, one of red.
        (["heatmap"], 4 * 4096, [None, None, None]),
        (["heatmap"], 4 * 4096 - 1, ["reply_too_large", None, None]),
        (["heatmap", "mask"], 8 * 4096, [None, None, None]),
        (["heatmap", "mask"], 8 * 4096 - 1, ["reply_too_large", None, None]),
        (["map", "boxes"], 1, [None, None, None]),
    ],
)
def test_pictures_of_all_predicted_classes_count(
    load_task: Load, outputs: list[str], limit: int, codes: list[str | None]
) -> None:
    pipeline = load_task(task="multilabel", limits={"drawn_pixels": limit}, batch_size=4)
    (found,) = photo_outcomes(pipeline, v1(RED_GREEN, RED, FAINT, outputs=outputs))
    assert error_codes(found) == codes


def test_the_message_counts_all_pictures_of_a_photo(load_task: Load) -> None:
    pipeline = load_task(task="multilabel", limits={"drawn_pixels": 5000})
    reply = answer(pipeline, RED_GREEN, outputs=["heatmap"])
    assert "would have 8192 pixels, with 5000 left of the 5000" in reply["error"]["message"]


def kinds(pipeline: Pipeline, *requests: Any) -> list[list[str]]:
    """By request, the kinds of its explanations' targets as the metrics count them."""
    batch = pipeline.preprocess(requests)
    pipeline.postprocess(pipeline.inference(batch))
    return [[one.target_kind for one in record.explanations] for record in batch.records]


def test_the_metrics_count_each_explanation(multilabel: Pipeline) -> None:
    target = ["top:2", "predicted", "blue", "predicted", "red-blue"]
    assert kinds(
        multilabel,
        json_request(RED_GREEN, target=target),
        json_request(RED, target=target),
        json_request(RED_GREEN, explain=False),
        json_request(RED_GREEN),
    ) == [
        ["predicted", "ranked", *["predicted"] * 2, "class", *["predicted"] * 2, "contrast"],
        ["predicted", "ranked", "predicted", "class", "predicted", "contrast"],
        [],
        ["predicted", "predicted"],
    ]


# Binary


@pytest.mark.parametrize(
    ("colours", "predicted"),
    # Its score is 14 x (red - blue) - 4.
    [(("red", "green"), "yes"), (("red", "red", "red", "blue"), "yes"), (("blue",), "no"),
     (("black",), "no"), (("red", "black", "black", "black"), "no")],
)  # fmt: skip
def test_a_binary_networks_two_labels_have_a_sigmoid_and_its_rest(
    binary: Pipeline, colours: Sequence[str], predicted: str
) -> None:
    reply = answer(binary, png(stripes(*colours)))
    score = float((BINARY_WEIGHT @ cells(*colours).mean((1, 2)))[0] + BIAS)
    found = {one["label"]: (one["probability"], one["score"]) for one in reply["predictions"]}
    np.testing.assert_allclose(found["yes"], (sigmoid(score), score), atol=1e-5)
    np.testing.assert_allclose(found["no"], (1 - sigmoid(score), -score), atol=1e-5)
    assert (explained(reply), reply["predictions"][0]["label"]) == ([predicted], predicted)


def test_no_is_explained_by_what_is_against_yes(binary: Pipeline, load_task: Load) -> None:
    photo = png(stripes("red", "green", "blue", "black"))
    no, yes = answer(binary, photo, target=["no", "yes"])["explanations"]
    red, _, blue = cells("red", "green", "blue", "black")
    np.testing.assert_allclose(map_of(yes), normalised(red - blue), atol=1e-5)
    np.testing.assert_allclose(map_of(no), normalised(blue - red), atol=1e-5)
    negated = load_task(["no", "yes"], task="binary", arch_kwargs={"binary": True, "negated": True})
    (expected,) = answer(negated, photo, target="yes")["explanations"]
    np.testing.assert_allclose(map_of(no), map_of(expected), atol=1e-6)


# Outputs that are no logits


COLOURS = ("red", "red", "green", "blue", "black", "red", "green", "black")


@pytest.mark.parametrize("compile", ["off", "auto"])
@pytest.mark.parametrize(
    ("task", "end", "output"),
    [
        ("multilabel", "sigmoid", "probabilities"),
        ("multilabel", "logsigmoid", "log_probabilities"),
        ("binary", "sigmoid", "probabilities"),
        ("binary", "logsigmoid", "log_probabilities"),
    ],
)
def test_behind_a_sigmoid_all_is_as_without_it(
    load_task: Load, task: str, end: str, output: str, compile: str
) -> None:
    labels = ["no", "yes"] if task == "binary" else LABELS
    kwargs = {"binary": task == "binary"}
    plain = load_task(labels, task=task, arch_kwargs=kwargs)
    ended = load_task(
        labels, task=task, output=output, arch_kwargs={**kwargs, "end": end}, compile=compile
    )
    options = {"target": f"top:{len(labels)}", "outputs": ["map", "boxes"]}
    assert ended.loaded.acceleration.compiled == (compile == "auto")
    for colours in (COLOURS, ("red", "green"), ("black", "blue")):
        photo = png(stripes(*colours))
        assert_replies_close(answer(ended, photo, **options), answer(plain, photo, **options))


@pytest.mark.parametrize("compile", ["off", "auto"])
@pytest.mark.parametrize(
    ("end", "output"), [("softmax", "probabilities"), ("log_softmax", "log_probabilities")]
)
def test_behind_a_softmax_the_logarithm_is_explained(
    load_task: Load, end: str, output: str, compile: str
) -> None:
    pipeline = load_task(output=output, arch_kwargs={"end": end}, compile=compile)
    assert pipeline.loaded.acceleration.compiled == (compile == "auto")
    activations = cells(*COLOURS)
    logits = WEIGHT @ activations.mean((1, 2)) + BIAS
    p = np.exp(logits) / np.exp(logits).sum()
    reply = answer(pipeline, png(stripes(*COLOURS)), target=LABELS)
    for index, explanation in enumerate(reply["explanations"]):
        weights = (np.eye(3)[index] - p) @ WEIGHT
        assert explanation["label"] == LABELS[index]
        np.testing.assert_allclose(explanation["probability"], p[index], rtol=0, atol=1e-6)
        np.testing.assert_allclose(explanation["score"], np.log(p[index]), rtol=0, atol=1e-5)
        np.testing.assert_allclose(
            map_of(explanation), normalised(np.tensordot(weights, activations, 1)), atol=1e-4
        )


@pytest.mark.parametrize("end", ["half_sigmoid", "double_sigmoid"])
def test_probabilities_of_other_number_formats_are_as_float32s(load_task: Load, end: str) -> None:
    reply = answer(
        load_task(task="multilabel", output="probabilities", arch_kwargs={"end": end}), RED_GREEN
    )
    np.testing.assert_allclose(
        [one["probability"] for one in reply["predictions"]], [0.952574, 0.952574, 0.017986],
        atol=3e-4 if end == "half_sigmoid" else 1e-6,
    )  # fmt: skip
    assert explained(reply) == ["red", "green"]


FORMS = [
    "half", "double", "grid", "tuple", "list", "dict", "out", "by_number", "named_tuple",
    "dataclass", "object", "nested",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_networks_that_return_scores_in_any_form_answer_alike(load_task: Load, form: str) -> None:
    expected = answer(load_task(), RED_GREEN, target=LABELS)
    pipeline = load_task(arch_kwargs={"end": form})
    assert_replies_close(answer(pipeline, RED_GREEN, target=LABELS), expected)


@pytest.mark.parametrize("form", ["grid", "tuple", "dict", "named_tuple", "dataclass", "nested"])
def test_such_a_networks_trunk_is_compiled(load_task: Load, form: str) -> None:
    pipeline = load_task(arch_kwargs={"end": form}, compile="auto")
    assert pipeline.loaded.acceleration.compiled
    assert explained(answer(pipeline, RED)) == ["red"]


# Batching


@pytest.mark.parametrize(
    "arch_kwargs", [{"end": "minus_mean"}, {"end": "one_by_one"}, {"batch_norm": True}]
)
def test_a_network_that_mixes_photos_is_served_one_by_one(
    load_task: Load, arch_kwargs: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=r"handler\.batching=alone"):
        load_task(arch_kwargs=arch_kwargs)
    pipeline = load_task(arch_kwargs=arch_kwargs, batching="alone", batch_size=8)
    photos = [RED_GREEN, RED, FAINT, ALL]
    options: dict[str, Any] = {"outputs": ["map"], "target": LABELS}
    batch = [json_request(photo, **options) for photo in photos]
    alone = [answer(pipeline, photo, **options) for photo in photos]
    assert_replies_close(single_reply(pipeline, *batch), alone)
    (instances,) = photo_outcomes(pipeline, v1(*photos, **options))
    assert_replies_close(instances, alone)


# The description, and settings that do not fit


def test_the_description_names_task_output_and_batching(load_task: Load) -> None:
    pipeline = load_task(
        task="multilabel", decision_threshold=0.3, output="probabilities", batching="alone",
        arch_kwargs={"end": "sigmoid"},
    )  # fmt: skip
    found = describe(pipeline.model, pipeline.loaded)["model"]
    names = ("task", "decision_threshold", "output", "batching")
    assert [found[name] for name in names] == ["multilabel", 0.3, "probabilities", "alone"]


def test_the_description_names_the_defaults(load_task: Load) -> None:
    pipeline = load_task()
    found = describe(pipeline.model, pipeline.loaded)["model"]
    names = ("task", "decision_threshold", "output", "batching")
    assert [found[name] for name in names] == ["multiclass", 0.5, "logits", "together"]


@pytest.mark.parametrize(
    ("labels", "section", "message"),
    [
        (LABELS, {"task": "binary", "arch_kwargs": {"binary": True}},
         "handler.task is binary, and labels.json names 3; accepted: two labels"),
        (LABELS[:2], {"task": "multilabel"}, "scores 3 classes, but labels.json names 2"),
        (LABELS, {"decision_threshold": 0.7}, "0.7 is not accepted with handler.task=multiclass"),
        (["no", "yes"], {"decision_threshold": 0.7, "task": "binary"}, "with handler.task=binary"),
        (LABELS, {"decision_threshold": 1.0, "task": "multilabel"}, "1.0 is not accepted; accepte"),
        (LABELS, {"task": "regression"}, "accepted: multiclass, multilabel or binary"),
        (LABELS, {"output": "odds"}, "accepted: logits, probabilities or log_probabilities"),
        (LABELS, {"batching": "off"}, "accepted: together or alone"),
        (LABELS, {"arch_kwargs": {"end": "softmax"}}, r"accepted: .*handler\.output=probabilities"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_with_what_is_accepted(
    load_task: Load, labels: list[str], section: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_task(labels, **section)
