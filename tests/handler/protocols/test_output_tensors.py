"""Answers to several photos -> named tensors: shapes, datatypes and padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import pytest

from camserve.protocols.output_tensors import OUTPUT_NAMES, output_tensors, tensor_body
from camserve.protocols.schema import (
    AnswerBody,
    ExplanationBody,
    MapBody,
    MapStatisticsBody,
    ModelBody,
    PictureBody,
    PredictionBody,
)
from tests.support import contract

MODEL: ModelBody = {"name": "m", "version": "1.0"}
CAT: PredictionBody = {"class_id": 1, "label": "cat", "probability": 0.75, "score": 2.5}
DOG: PredictionBody = {"class_id": 0, "label": "dog", "probability": 0.25, "score": 1.5}


STATISTICS: MapStatisticsBody = {
    "entropy": 1.5,
    "gini": 0.5,
    "centre": [20.0, 15.0],
    "spread": 4.0,
    "border": 0.25,
    "corners": 0.125,
    "explained": None,
}


def answer(
    *predictions: PredictionBody,
    explanations: Sequence[ExplanationBody] = (),
    width: int = 40,
    height: int = 30,
    orientation: int = 1,
) -> AnswerBody:
    seen = [5.0, 0.0, 35.0, 30.0]
    return {
        "model": MODEL,
        "image": {"width": width, "height": height, "orientation": orientation, "seen": seen},
        "predictions": list(predictions),
        "explanations": list(explanations),
    }


def explanation(prediction: PredictionBody = CAT, **fields: Any) -> ExplanationBody:
    body: dict[str, Any] = {
        **prediction,
        "method": "gradcam",
        "layer": "layer4.2",
        "evidence": True,
        "peak": 0.5,
        "map_statistics": STATISTICS,
        **fields,
    }
    return cast(ExplanationBody, body)


def picture(text: str) -> PictureBody:
    return {"b64": text, "media_type": "image/png", "width": 1, "height": 1}


def map_body(height: int, width: int, *values: float) -> MapBody:
    return {"shape": [height, width], "values": list(values)}


def tensors_by_name(*answers: AnswerBody | None) -> dict[str, dict[str, Any]]:
    """The output tensors; each is flat and has as many elements as its shape says."""
    tensors = list(output_tensors(answers))
    for tensor in tensors:
        assert tensor.keys() == {"name", "datatype", "shape", "data"}
        assert math.prod(tensor["shape"]) == len(tensor["data"]), tensor["name"]
        assert tensor["shape"][0] == len(answers)
        assert not any(isinstance(element, list | dict) for element in tensor["data"])
    names = [tensor["name"] for tensor in tensors]
    assert len(set(names)) == len(names)
    assert set(names) <= OUTPUT_NAMES
    return {
        tensor["name"]: nameless(tensor["datatype"], tensor["shape"], *tensor["data"])
        for tensor in tensors
    }


def nameless(datatype: str, shape: list[int], *data: Any) -> dict[str, Any]:
    return {"datatype": datatype, "shape": shape, "data": list(data)}


def test_a_tensor_has_the_keys_that_torchserve_reads() -> None:
    assert tensor_body("label", "BYTES", [1, 2], ["cat", "dog"]) == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [1, 2],
        "data": ["cat", "dog"],
    }


def test_tensors_of_one_photo_without_an_explanation() -> None:
    assert tensors_by_name(answer(CAT, DOG)) == {
        "size": nameless("INT64", [1, 2], 40, 30),
        "orientation": nameless("INT64", [1], 1),
        "seen": nameless("FP32", [1, 4], 5.0, 0.0, 35.0, 30.0),
        "class_id": nameless("INT64", [1, 2], 1, 0),
        "label": nameless("BYTES", [1, 2], "cat", "dog"),
        "probability": nameless("FP32", [1, 2], 0.75, 0.25),
        "score": nameless("FP32", [1, 2], 2.5, 1.5),
    }


def test_tensors_of_one_explanation_with_all_outputs() -> None:
    tensors = tensors_by_name(
        answer(
            CAT,
            explanations=[
                explanation(
                    against=DOG,
                    heatmap=picture("aGVhdA=="),
                    overlay=picture("b3Zlcg=="),
                    mask=picture("bWFzaw=="),
                    map=map_body(1, 2, 0.0, 1.0),
                    boxes=[{"box": [5.0, 0.0, 10.0, 30.0], "share": 0.5}],
                    faithfulness={"drop": {"value": 0.25, "random": None, "centre": 1.0}},
                    record={"record_version": 1},
                )
            ],
        )
    )
    of_the_photo = {"error", "warnings", "profile", "not_explained"}
    assert tensors.keys() == OUTPUT_NAMES - of_the_photo
    assert {name: tensors[name] for name in tensors if name.startswith("explained")} == {
        "explained_class_id": nameless("INT64", [1, 1], 1),
        "explained_label": nameless("BYTES", [1, 1], "cat"),
        "explained_probability": nameless("FP32", [1, 1], 0.75),
        "explained_score": nameless("FP32", [1, 1], 2.5),
    }
    assert tensors["against_class_id"] == nameless("INT64", [1, 1], 0)
    assert tensors["method"] == nameless("BYTES", [1, 1], "gradcam")
    assert tensors["layer"] == nameless("BYTES", [1, 1], "layer4.2")
    assert tensors["evidence"] == nameless("BOOL", [1, 1], True)
    assert tensors["peak"] == nameless("FP32", [1, 1], 0.5)
    assert tensors["heatmap"] == nameless("BYTES", [1, 1], "aGVhdA==")
    assert tensors["overlay"] == nameless("BYTES", [1, 1], "b3Zlcg==")
    assert tensors["mask"] == nameless("BYTES", [1, 1], "bWFzaw==")
    figures = '{"drop":{"value":0.25,"random":null,"centre":1.0}}'
    assert tensors["faithfulness"] == nameless("BYTES", [1, 1], figures)
    assert tensors["record"] == nameless("BYTES", [1, 1], '{"record_version":1}')
    assert tensors["map"] == nameless("FP32", [1, 1, 1, 2], 0.0, 1.0)
    assert tensors["boxes"] == nameless(
        "BYTES", [1, 1], '[{"box":[5.0,0.0,10.0,30.0],"share":0.5}]'
    )


def test_several_layers_are_joined_by_commas() -> None:
    (layer,) = tensors_by_name(answer(CAT, explanations=[explanation(layer=["a.1", "b"])]))[
        "layer"
    ]["data"]
    assert layer == "a.1,b"


def test_a_photo_with_fewer_predictions_is_padded() -> None:
    tensors = tensors_by_name(answer(CAT), answer(CAT, DOG))
    assert tensors["class_id"] == nameless("INT64", [2, 2], 1, -1, 1, 0)
    assert tensors["label"] == nameless("BYTES", [2, 2], "cat", "", "cat", "dog")
    assert tensors["probability"] == nameless("FP32", [2, 2], 0.75, 0.0, 0.75, 0.25)
    assert tensors["score"] == nameless("FP32", [2, 2], 2.5, 0.0, 2.5, 1.5)


def test_a_photo_with_fewer_explanations_is_padded() -> None:
    tensors = tensors_by_name(
        answer(CAT, explanations=[explanation(heatmap=picture("aGVhdA=="))]),
        answer(CAT),
        answer(CAT, explanations=[explanation(DOG, evidence=False), explanation(against=DOG)]),
    )
    assert tensors["explained_class_id"] == nameless("INT64", [3, 2], 1, -1, -1, -1, 0, 1)
    assert tensors["explained_label"] == nameless("BYTES", [3, 2], "cat", "", "", "", "dog", "cat")
    assert tensors["against_class_id"] == nameless("INT64", [3, 2], -1, -1, -1, -1, -1, 0)
    assert tensors["method"] == nameless(
        "BYTES", [3, 2], "gradcam", "", "", "", "gradcam", "gradcam"
    )
    assert tensors["evidence"] == nameless("BOOL", [3, 2], True, False, False, False, False, True)
    assert tensors["heatmap"] == nameless("BYTES", [3, 2], "aGVhdA==", "", "", "", "", "")


def test_maps_of_different_shapes_are_padded_with_minus_1() -> None:
    tensors = tensors_by_name(
        answer(CAT, explanations=[explanation(map=map_body(1, 3, 0.1, 0.2, 0.3))]),
        answer(
            CAT,
            explanations=[explanation(), explanation(map=map_body(2, 2, 0.4, 0.5, 0.6, 0.7))],
        ),
    )
    assert tensors["map"] == nameless(
        "FP32",
        [2, 2, 2, 3],
        *(0.1, 0.2, 0.3, -1.0, -1.0, -1.0),
        *[-1.0] * 6,
        *[-1.0] * 6,
        *(0.4, 0.5, -1.0, 0.6, 0.7, -1.0),
    )


def test_a_photo_that_failed_keeps_its_index() -> None:
    tensors = tensors_by_name(
        None, answer(CAT, explanations=[explanation(map=map_body(1, 1, 1.0))], orientation=6)
    )
    assert tensors["size"] == nameless("INT64", [2, 2], 0, 0, 40, 30)
    assert tensors["orientation"] == nameless("INT64", [2], 0, 6)
    assert tensors["seen"] == nameless("FP32", [2, 4], 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 35.0, 30.0)
    assert tensors["class_id"] == nameless("INT64", [2, 1], -1, 1)
    assert tensors["map"] == nameless("FP32", [2, 1, 1, 1], -1.0, 1.0)


@pytest.mark.parametrize("output", ["heatmap", "overlay", "mask", "map", "boxes"])
def test_an_output_that_no_photo_has_is_no_tensor(output: str) -> None:
    tensors = tensors_by_name(answer(CAT, explanations=[explanation()]), answer(CAT))
    assert output not in tensors
    assert "against_class_id" not in tensors


def test_an_empty_list_of_boxes_differs_from_boxes_not_requested() -> None:
    tensors = tensors_by_name(answer(CAT, explanations=[explanation(boxes=[])]), answer(CAT))
    assert tensors["boxes"] == nameless("BYTES", [2, 1], "[]", "")


def test_the_plain_answers_can_be_restored_from_the_tensors() -> None:
    answers = [
        answer(
            CAT,
            DOG,
            explanations=[
                explanation(against=DOG, mask=picture("bWFzaw=="), map=map_body(1, 2, 0.0, 1.0)),
                explanation(
                    DOG,
                    layer=["a", "b"],
                    heatmap=picture("aGVhdA=="),
                    map=map_body(2, 1, 1.0, 0.0),
                    boxes=[],
                ),
            ],
        ),
        answer(DOG, width=7, height=9, orientation=3),
    ]
    body = {
        "id": "",
        "model_name": "m",
        "model_version": "1.0",
        "outputs": list(output_tensors(answers)),
    }
    assert contract.replies_in(body) == [
        contract.as_v2_has_it(answer_body) for answer_body in answers
    ]
