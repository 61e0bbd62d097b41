"""Answers to several photos -> named tensors: shapes, types, and what fills a shorter photo up."""

from __future__ import annotations

import math

import pytest

from camserve.protocols.output_tensors import OUTPUT_NAMES, output_tensors, tensor_body
from tests.support import contract

MODEL = {"name": "m", "version": "1.0"}
CAT = {"class_id": 1, "label": "cat", "probability": 0.75, "score": 2.5}
DOG = {"class_id": 0, "label": "dog", "probability": 0.25, "score": 1.5}
HOW = {"method": "gradcam", "layer": "layer4.2", "evidence": True, "peak": 0.5}


def answer(*predictions, explanations=(), width=40, height=30, orientation=1):
    seen = [5.0, 0.0, 35.0, 30.0]
    return {
        "model": MODEL,
        "image": {"width": width, "height": height, "orientation": orientation, "seen": seen},
        "predictions": list(predictions),
        "explanations": list(explanations),
    }


def explanation(of=CAT, **more):
    return {**of, **HOW, **more}


def picture(text):
    return {"b64": text, "media_type": "image/png", "width": 1, "height": 1}


def map_of(height, width, *values):
    return {"shape": [height, width], "values": list(values)}


def tensors(*answers):
    """The output tensors by name; flat and as long as their shapes say."""
    found = list(output_tensors(answers))
    for one in found:
        assert one.keys() == {"name", "datatype", "shape", "data"}
        assert math.prod(one["shape"]) == len(one["data"]), one["name"]
        assert one["shape"][0] == len(answers)
        assert not any(isinstance(element, list | dict) for element in one["data"])
    names = [one["name"] for one in found]
    assert len(set(names)) == len(names)
    assert set(names) <= OUTPUT_NAMES
    return {one.pop("name"): one for one in found}


def of(datatype, shape, *data):
    return {"datatype": datatype, "shape": shape, "data": list(data)}


def test_a_tensor_is_what_torchserve_reads():
    assert tensor_body("label", "BYTES", [1, 2], ["cat", "dog"]) == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [1, 2],
        "data": ["cat", "dog"],
    }


def test_one_photo_without_an_explanation():
    assert tensors(answer(CAT, DOG)) == {
        "size": of("INT64", [1, 2], 40, 30),
        "orientation": of("INT64", [1], 1),
        "seen": of("FP32", [1, 4], 5.0, 0.0, 35.0, 30.0),
        "class_id": of("INT64", [1, 2], 1, 0),
        "label": of("BYTES", [1, 2], "cat", "dog"),
        "probability": of("FP32", [1, 2], 0.75, 0.25),
        "score": of("FP32", [1, 2], 2.5, 1.5),
    }


def test_one_explanation_with_everything():
    found = tensors(
        answer(
            CAT,
            explanations=[
                explanation(
                    against=DOG,
                    heatmap=picture("aGVhdA=="),
                    overlay=picture("b3Zlcg=="),
                    mask=picture("bWFzaw=="),
                    map=map_of(1, 2, 0.0, 1.0),
                    boxes=[{"box": [5.0, 0.0, 10.0, 30.0], "share": 0.5}],
                )
            ],
        )
    )
    assert found.keys() == OUTPUT_NAMES - {"error"}
    assert {name: found[name] for name in found if name.startswith("explained")} == {
        "explained_class_id": of("INT64", [1, 1], 1),
        "explained_label": of("BYTES", [1, 1], "cat"),
        "explained_probability": of("FP32", [1, 1], 0.75),
        "explained_score": of("FP32", [1, 1], 2.5),
    }
    assert found["against_class_id"] == of("INT64", [1, 1], 0)
    assert found["method"] == of("BYTES", [1, 1], "gradcam")
    assert found["layer"] == of("BYTES", [1, 1], "layer4.2")
    assert found["evidence"] == of("BOOL", [1, 1], True)
    assert found["peak"] == of("FP32", [1, 1], 0.5)
    assert found["heatmap"] == of("BYTES", [1, 1], "aGVhdA==")
    assert found["overlay"] == of("BYTES", [1, 1], "b3Zlcg==")
    assert found["mask"] == of("BYTES", [1, 1], "bWFzaw==")
    assert found["map"] == of("FP32", [1, 1, 1, 2], 0.0, 1.0)
    assert found["boxes"] == of("BYTES", [1, 1], '[{"box":[5.0,0.0,10.0,30.0],"share":0.5}]')


def test_several_layers_are_one_text():
    (layer,) = tensors(answer(CAT, explanations=[explanation(layer=["a.1", "b"])]))["layer"]["data"]
    assert layer == "a.1,b"


def test_fewer_predictions_are_filled_up():
    found = tensors(answer(CAT), answer(CAT, DOG))
    assert found["class_id"] == of("INT64", [2, 2], 1, -1, 1, 0)
    assert found["label"] == of("BYTES", [2, 2], "cat", "", "cat", "dog")
    assert found["probability"] == of("FP32", [2, 2], 0.75, 0.0, 0.75, 0.25)
    assert found["score"] == of("FP32", [2, 2], 2.5, 0.0, 2.5, 1.5)


def test_fewer_explanations_are_filled_up():
    found = tensors(
        answer(CAT, explanations=[explanation(heatmap=picture("aGVhdA=="))]),
        answer(CAT),
        answer(CAT, explanations=[explanation(DOG, evidence=False), explanation(against=DOG)]),
    )
    assert found["explained_class_id"] == of("INT64", [3, 2], 1, -1, -1, -1, 0, 1)
    assert found["explained_label"] == of("BYTES", [3, 2], "cat", "", "", "", "dog", "cat")
    assert found["against_class_id"] == of("INT64", [3, 2], -1, -1, -1, -1, -1, 0)
    assert found["method"] == of("BYTES", [3, 2], "gradcam", "", "", "", "gradcam", "gradcam")
    assert found["evidence"] == of("BOOL", [3, 2], True, False, False, False, False, True)
    assert found["heatmap"] == of("BYTES", [3, 2], "aGVhdA==", "", "", "", "", "")


def test_maps_of_other_shapes_are_filled_up_with_what_no_map_holds():
    found = tensors(
        answer(CAT, explanations=[explanation(map=map_of(1, 3, 0.1, 0.2, 0.3))]),
        answer(
            CAT,
            explanations=[explanation(), explanation(map=map_of(2, 2, 0.4, 0.5, 0.6, 0.7))],
        ),
    )
    assert found["map"] == of(
        "FP32",
        [2, 2, 2, 3],
        *(0.1, 0.2, 0.3, -1.0, -1.0, -1.0),
        *[-1.0] * 6,
        *[-1.0] * 6,
        *(0.4, 0.5, -1.0, 0.6, 0.7, -1.0),
    )


def test_a_photo_that_failed_keeps_its_place():
    found = tensors(
        None, answer(CAT, explanations=[explanation(map=map_of(1, 1, 1.0))], orientation=6)
    )
    assert found["size"] == of("INT64", [2, 2], 0, 0, 40, 30)
    assert found["orientation"] == of("INT64", [2], 0, 6)
    assert found["seen"] == of("FP32", [2, 4], 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 35.0, 30.0)
    assert found["class_id"] == of("INT64", [2, 1], -1, 1)
    assert found["map"] == of("FP32", [2, 1, 1, 1], -1.0, 1.0)


@pytest.mark.parametrize("output", ["heatmap", "overlay", "mask", "map", "boxes"])
def test_what_no_photo_has_is_no_tensor(output):
    found = tensors(answer(CAT, explanations=[explanation()]), answer(CAT))
    assert output not in found
    assert "against_class_id" not in found


def test_no_boxes_differ_from_none_asked_for():
    found = tensors(answer(CAT, explanations=[explanation(boxes=[])]), answer(CAT))
    assert found["boxes"] == of("BYTES", [2, 1], "[]", "")


def test_nothing_is_lost_but_what_v2_lacks():
    answers = [
        answer(
            CAT,
            DOG,
            explanations=[
                explanation(against=DOG, mask=picture("bWFzaw=="), map=map_of(1, 2, 0.0, 1.0)),
                explanation(
                    DOG,
                    layer=["a", "b"],
                    heatmap=picture("aGVhdA=="),
                    map=map_of(2, 1, 1.0, 0.0),
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
    assert contract.replies_in(body) == [contract.as_v2_has_it(one) for one in answers]
