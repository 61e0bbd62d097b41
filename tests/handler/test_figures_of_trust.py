"""The options ``faithfulness``, ``explain_when`` and ``record``, through a whole pipeline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch

from camserve.description import describe
from camserve.errors import SettingsError
from camserve.explain import faithfulness
from camserve.options import FaithfulnessMetric
from camserve.pipeline import Pipeline
from tests.support.color_resnet import photo, png
from tests.support.contract import as_v2_has_it, assert_replies_close
from tests.support.request_builders import (
    error_codes,
    json_request,
    photo_outcomes,
    raw,
    single_reply,
    v1,
    v2,
)
from tests.support.small_networks import forward_hook
from tests.support.task_network import stripes

Load = Callable[..., Pipeline]
METRICS = list(get_args(FaithfulnessMetric))
#: A disc that fills half of the photo, and a smaller one in a corner.
PHOTO = png(photo(("red", (90, 120), 80), ("blue", (270, 60), 40)))
OTHER = png(photo(("green", (160, 120), 100)))
#: Nothing in it is cyan.
RED = png(photo(("red", (160, 120), 60)))


def reply_to(pipeline: Pipeline, picture: bytes = PHOTO, **options: Any) -> dict[str, Any]:
    (reply,) = single_reply(pipeline, json_request(picture, **{"outputs": ["map"], **options}))
    return reply


# faithfulness


def test_each_figure_that_is_asked_for_is_given_beside_those_of_two_references(
    color_pipeline: Pipeline,
) -> None:
    (explanation,) = reply_to(color_pipeline, faithfulness=METRICS)["explanations"]
    figures = explanation["faithfulness"]
    assert list(figures) == METRICS
    assert all(figure.keys() == {"value", "random", "centre"} for figure in figures.values())
    # The class is the colour: its disc alone keeps the score, and hiding the disc loses it.
    assert figures["drop"]["value"] < min(figures["drop"]["random"], figures["drop"]["centre"])
    assert figures["deletion"]["value"] < figures["deletion"]["random"]
    assert figures["road"]["value"] > figures["road"]["random"]


def test_an_option_that_is_not_given_costs_nothing(color_pipeline: Pipeline) -> None:
    sizes: list[int] = []
    with forward_hook(color_pipeline, lambda module, args, output: sizes.append(len(output))):
        (explanation,) = reply_to(color_pipeline, faithfulness=[])["explanations"]
        assert "faithfulness" not in explanation
        assert sizes == [1]
        sizes.clear()
        reply_to(color_pipeline, faithfulness="drop,increase")
        # One masked photo for each of three maps.
        assert sum(sizes) == 1 + 3


def test_masked_photos_run_after_all_backwards_and_in_full_batches(load: Load) -> None:
    pipeline = load()
    events: list[str] = []
    rows = [
        json_request(PHOTO, outputs=["map"], faithfulness=["insertion"]),
        json_request(OTHER, outputs=["map"]),
        json_request(OTHER, outputs=["map"], target="top:2", faithfulness=["drop"]),
    ]
    with forward_hook(pipeline, lambda module, args, output: events.append(str(len(output)))):
        single_reply(pipeline, *rows)
    size = pipeline.batch_size
    expected = 16 + 4
    # The three photos first.
    photos = [3] if size >= 3 else [size] * (3 // size) + [3 % size] * (3 % size > 0)
    masked = [size] * (expected // size) + [expected % size] * (expected % size > 0)
    assert [int(event) for event in events] == [*photos, *masked]


def test_the_random_map_is_seeded_by_the_photo(color_pipeline: Pipeline) -> None:
    first, again, other = (
        reply_to(color_pipeline, picture, target="red", faithfulness=["deletion"])
        for picture in (PHOTO, PHOTO, OTHER)
    )
    assert first == again
    seed = int(hashlib.sha256(PHOTO).hexdigest()[:15], 16)
    assert not torch.equal(
        faithfulness.random_map((7, 7), seed), faithfulness.random_map((7, 7), seed + 1)
    )
    (one,), (two,) = first["explanations"], other["explanations"]
    assert one["faithfulness"]["deletion"]["random"] != two["faithfulness"]["deletion"]["random"]


def test_figures_are_the_same_in_every_protocol_and_beside_any_neighbour(
    color_pipeline: Pipeline,
) -> None:
    options: dict[str, Any] = {"outputs": ["map"], "faithfulness": METRICS, "record": True}
    (plain,) = single_reply(color_pipeline, json_request(PHOTO, **options))
    found = photo_outcomes(
        color_pipeline,
        v1(PHOTO, **options),
        v2(PHOTO, **options),
        raw(PHOTO, json.dumps(options)),
        json_request(b"no photo", **options),
        v1((OTHER, {"faithfulness": ["drop"]}), OTHER, outputs=["map"]),
    )
    assert_replies_close(found[0][0], plain)
    assert_replies_close(found[1][0], as_v2_has_it(plain))
    assert_replies_close(found[2][0], plain)
    assert error_codes(found[3]) == ["unsupported_format"]
    with_figures, without = (one["explanations"][0] for one in found[4])
    assert "faithfulness" in with_figures
    assert "faithfulness" not in without


def test_a_map_without_evidence_has_null(color_pipeline: Pipeline) -> None:
    reply = reply_to(color_pipeline, RED, faithfulness=METRICS, target="cyan")
    (explanation,) = reply["explanations"]
    assert explanation["evidence"] is False
    assert [figure["value"] for figure in explanation["faithfulness"].values()] == [None] * 5
    references = [figure["random"] for figure in explanation["faithfulness"].values()]
    assert all(isinstance(value, float) for value in references)


def test_contrasts_and_several_layers_have_figures(load: Load) -> None:
    pipeline = load(layers=["layer4.1"])
    reply = reply_to(
        pipeline, target="red-blue", layer=["layer4.2", "layer4.1"], faithfulness=["drop"]
    )
    (explanation,) = reply["explanations"]
    figure = explanation["faithfulness"]["drop"]
    # With the map of red alone, red is more certain against blue.
    assert figure["value"] == 0
    assert figure["random"] >= 0


def test_more_forwards_than_the_limit_are_refused_with_their_number(load: Load) -> None:
    pipeline = load()
    options: dict[str, Any] = {"outputs": ["map"], "faithfulness": METRICS}
    found = photo_outcomes(
        pipeline,
        json_request(PHOTO, **options),
        json_request(PHOTO, target="top:2", **options),
        v1(PHOTO, PHOTO, **options),
        json_request(PHOTO, target="top:2", explain=False, **options),
    )
    codes = [code for outcomes in found for code in error_codes(outcomes)]
    assert codes == [None, "too_many_forwards", None, "too_many_forwards", None]
    assert found[1][0]["error"]["status"] == 413
    assert "asks for 78 forward passes" in found[1][0]["error"]["message"]
    assert "5 left of the 64" in found[2][1]["error"]["message"]


def test_a_multilabel_network_may_predict_more_classes_than_there_are_forwards_for(
    load_task: Load,
) -> None:
    pipeline = load_task(task="multilabel", limits={"forwards": 16})
    two, one = png(stripes("red", "green")), png(stripes("red", "black"))
    options: dict[str, Any] = {"outputs": ["map"], "faithfulness": ["deletion"]}
    found = single_reply(pipeline, json_request(two, **options), json_request(one, **options))
    assert error_codes(found) == ["too_many_forwards", None]
    (figures,) = (explanation["faithfulness"] for explanation in found[1]["explanations"])
    assert figures["deletion"]["value"] is not None


def test_a_network_that_fails_on_masked_photos_fails_that_photo_alone(load: Load) -> None:
    pipeline = load()
    calls: list[int] = []

    def fail_later(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        calls.append(len(output))
        # The photos themselves, and then nothing but masked ones of the first.
        return output * torch.nan if len(calls) > 1 else None

    rows = [
        json_request(PHOTO, outputs=["map"], faithfulness=["drop"]),
        json_request(OTHER, outputs=["map"]),
    ]
    with forward_hook(pipeline, fail_later):
        found = single_reply(pipeline, *rows)
    assert error_codes(found) == ["non_finite_scores", None]


# explain_when


def test_a_photo_is_explained_only_where_the_condition_holds(color_pipeline: Pipeline) -> None:
    probability = reply_to(color_pipeline)["predictions"][0]["probability"]
    explained = reply_to(color_pipeline, explain_when=f"probability<{probability + 0.001:.4f}")
    assert len(explained["explanations"]) == 1
    assert "not_explained" not in explained
    condition = f"probability<{probability - 0.001:.4f}"
    skipped = reply_to(color_pipeline, explain_when=condition, faithfulness=["drop"])
    assert skipped["explanations"] == []
    assert skipped["not_explained"]["condition"] == condition
    assert skipped["not_explained"]["value"] == pytest.approx(probability)
    assert skipped["predictions"] == explained["predictions"]


def test_several_comparisons_have_several_values(color_pipeline: Pipeline) -> None:
    condition = "probability<0.001 or class in [4]"
    reply = reply_to(color_pipeline, explain_when=condition)
    first, second = reply["not_explained"]["value"]
    assert first == pytest.approx(reply["predictions"][0]["probability"])
    assert second == reply["predictions"][0]["class_id"] == 0


@pytest.mark.parametrize("target", ["red", "top:2", ["predicted", "red"], "red-blue"])
def test_any_target_may_have_a_condition_a_record_and_figures(
    color_pipeline: Pipeline, target: Any
) -> None:
    reply = reply_to(
        color_pipeline,
        target=target,
        explain_when="class in [5]",
        record=True,
        faithfulness=["drop"],
    )
    assert reply["explanations"] == []
    assert reply["not_explained"]["value"] == 0


def test_no_backward_runs_where_the_condition_does_not_hold(
    color_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    backwards: list[Any] = []
    original = torch.autograd.grad

    def grad(*args: Any, **kwargs: Any) -> Any:
        backwards.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    reply_to(color_pipeline, explain_when="class in [5]")
    assert backwards == []
    reply_to(color_pipeline, explain_when="class in [0]")
    assert backwards == [1]


def test_each_photo_of_a_batch_is_judged_by_its_own_condition(color_pipeline: Pipeline) -> None:
    found = photo_outcomes(
        color_pipeline,
        v1(
            (PHOTO, {"explain_when": "class in [5]"}),
            PHOTO,
            (OTHER, {"explain_when": 'class in ["green"]'}),
            (OTHER, {"explain_when": "probability"}),
            outputs=["map"],
        ),
        v2(PHOTO, OTHER, outputs=["map"], explain_when='class in ["green"]'),
    )
    counts = [[len(one.get("explanations", [])) for one in outcomes] for outcomes in found]
    assert counts == [[0, 1, 1, 0], [0, 1]]
    assert error_codes(found[0]) == [None, None, None, "invalid_option"]
    assert found[1][0]["not_explained"] == {"condition": 'class in ["green"]', "value": 0}
    assert "not_explained" not in found[1][1]


def test_a_call_that_always_explains_has_no_condition(load: Load) -> None:
    pipeline = load(defaults={"explain_when": "class in [5]", "outputs": ["map"]})
    found = photo_outcomes(
        pipeline,
        v1(PHOTO),
        v1(PHOTO, force_explain=True),
        v1(PHOTO, force_explain=True, explain_when="class in [0]"),
        v1(PHOTO, explain_when="class in [0]"),
    )
    assert [len(one.get("explanations", [])) for (one,) in found] == [0, 1, 0, 1]
    assert error_codes(found[2]) == ["conflicting_options"]
    assert "always explains" in found[2][0]["error"]["message"]


def test_a_condition_asks_for_an_explanation(load: Load) -> None:
    pipeline = load(defaults={"explain": False, "outputs": ["map"]})
    assert len(reply_to(pipeline, explain_when="class in [0]")["explanations"]) == 1
    assert reply_to(pipeline)["explanations"] == []
    (refused,) = single_reply(
        pipeline, json_request(PHOTO, explain=False, explain_when="class in [0]")
    )
    assert error_codes([refused]) == ["conflicting_options"]


def test_a_default_that_is_no_condition_stops_the_load(load: Load) -> None:
    with pytest.raises(SettingsError, match=r"handler\.defaults\.explain_when.*comparisons as"):
        load(defaults={"explain_when": "probability is low"})


# record


def test_a_record_says_what_the_explanation_was_made_of(color_pipeline: Pipeline) -> None:
    reply = reply_to(color_pipeline, record=True, top_k=2)
    (explanation,) = reply["explanations"]
    record = explanation["record"]
    described = describe(color_pipeline.model, color_pipeline.loaded)
    assert record["record_version"] == 1
    assert record["model"] == {
        **reply["model"],
        "arch": "resnet50",
        "weights_sha256": described["model"]["weights_sha256"],
        "task": "multiclass",
        "output": "logits",
    }
    image = reply["image"]
    assert record["photo"] == {
        "sha256": hashlib.sha256(PHOTO).hexdigest(),
        **{name: image[name] for name in ("width", "height", "seen")},
    }
    assert record["prediction"] == reply["predictions"][0]
    assert record["layers"] == [{"name": "layer4.2", "layout": "grid", "shape": [2048, 7, 7]}]
    for name in ("method", "evidence", "peak", "map", "map_statistics"):
        assert record[name] == explanation[name]
    assert record["options"]["top_k"] == 2
    assert record["target_kind"] == "predicted"
    assert "target" not in record["options"]
    assert record["preprocess"]["resize"] == 232
    assert record["precision"]["trunk"] == described["model"]["precision"]
    assert record["versions"] == described["versions"]


def test_a_record_has_the_map_whether_the_reply_has_it_or_not(color_pipeline: Pipeline) -> None:
    with_map = reply_to(color_pipeline, record=True)["explanations"][0]
    without = reply_to(color_pipeline, record=True, outputs=["boxes"])["explanations"][0]
    assert "map" not in without
    assert without["record"]["map"] == with_map["map"]


def test_a_record_of_a_tensor_has_the_digest_of_its_bytes(color_pipeline: Pipeline) -> None:
    pixels = photo(("red", (90, 120), 80))
    body = {
        "inputs": [
            {
                "name": "pixels",
                "datatype": "UINT8",
                "shape": list(pixels.shape),
                "data": pixels.ravel().tolist(),
            },
            {"name": "record", "datatype": "BOOL", "shape": [1], "data": [True]},
            {"name": "outputs", "datatype": "BYTES", "shape": [1], "data": ["map"]},
        ]
    }
    row = v2(PHOTO)
    row.fields["body"].update(body)
    (reply,) = single_reply(color_pipeline, row)
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    assert reply["explanations"][0]["record"]["photo"]["sha256"] == digest


def test_a_record_holds_nothing_of_the_photo_but_its_digest_and_size(
    color_pipeline: Pipeline,
) -> None:
    text = json.dumps(reply_to(color_pipeline, record=True)["explanations"][0]["record"])
    assert len(text) < 6000
    assert "orientation" not in text


def test_a_contrast_records_both_classes(color_pipeline: Pipeline) -> None:
    explanation = reply_to(color_pipeline, record=True, target="red-blue")["explanations"][0]
    assert explanation["record"]["against"] == explanation["against"]


@pytest.mark.parametrize(
    ("path", "condition", "top_k"),
    [
        ("explain_when=class in [1,2],top_k=2", "class in [1,2]", 2),
        (
            "explain_when=class in [1,2] and probability<=0.5,top_k=3",
            "class in [1,2] and probability<=0.5",
            3,
        ),
        ("top_k=4,explain_when=probability<=0.01", "probability<=0.01", 4),
    ],
)
def test_a_condition_in_the_url_path(
    color_pipeline: Pipeline, path: str, condition: str, top_k: int
) -> None:
    reply = photo_outcomes(color_pipeline, raw(PHOTO, path=path))[0][0]
    assert reply["not_explained"]["condition"] == condition
    assert len(reply["predictions"]) == top_k
