"""What goes back, byte for byte as the contract has it."""

from __future__ import annotations

import base64
import json

import pytest

from camserve.errors import STATUS_OF, RequestError
from camserve.pictures import Frame
from camserve.render import Image
from camserve.replies import Explanation, Model, Prediction, explained, refused

MODEL = Model("resnet50", "1.0")
FRAME = Frame(451, 300, (80.3505747, 5.1724138, 370.6494253, 294.8275862))
TABBY = Prediction(281, "tabby", 0.625, 9.125)
TIGER = Prediction(282, "tiger cat", 0.25, 8.5)
EXPLANATION = Explanation(
    TABBY,
    "gradcam",
    "layer4.2",
    evidence=True,
    peak=0.4375,
    images={
        "heatmap": Image(b"\x89PNG heatmap", "image/png", 224, 224),
        "overlay": Image(b"\x89PNG overlay", "image/png", 224, 224),
    },
)


def compact(document):
    """The document's bytes, keys in their order."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def test_reply_is_the_contracts_document():
    reply = explained(MODEL, FRAME, [TABBY, TIGER], [EXPLANATION])
    assert reply.body == compact(
        {
            "model": {"name": "resnet50", "version": "1.0"},
            "image": {"width": 451, "height": 300, "seen": [80.351, 5.172, 370.649, 294.828]},
            "predictions": [
                {"class_id": 281, "label": "tabby", "probability": 0.625, "score": 9.125},
                {"class_id": 282, "label": "tiger cat", "probability": 0.25, "score": 8.5},
            ],
            "explanations": [
                {
                    "class_id": 281,
                    "label": "tabby",
                    "probability": 0.625,
                    "score": 9.125,
                    "method": "gradcam",
                    "layer": "layer4.2",
                    "evidence": True,
                    "peak": 0.4375,
                    "heatmap": {
                        "b64": "iVBORyBoZWF0bWFw",
                        "media_type": "image/png",
                        "width": 224,
                        "height": 224,
                    },
                    "overlay": {
                        "b64": "iVBORyBvdmVybGF5",
                        "media_type": "image/png",
                        "width": 224,
                        "height": 224,
                    },
                }
            ],
        }
    )


def test_reply_is_json_with_status_200():
    reply = explained(MODEL, FRAME, [TABBY], [])
    assert (reply.status, reply.content_type) == (200, "application/json")


def test_reply_without_an_explanation_has_an_empty_list():
    assert json.loads(explained(MODEL, FRAME, [TABBY], []).body)["explanations"] == []


def test_base64_gives_the_pictures_bytes():
    data = bytes(range(256))
    images = {"mask": Image(data, "image/png", 1, 1)}
    explanation = Explanation(TABBY, "gradcam", "layer4.2", False, 0.0, images)
    document = json.loads(explained(MODEL, FRAME, [TABBY], [explanation]).body)
    text = document["explanations"][0]["mask"]["b64"]
    assert base64.b64decode(text, validate=True) == data


def test_label_keeps_its_letters():
    reply = explained(MODEL, FRAME, [Prediction(0, "Häher 鳥", 1.0, 1.0)], [])
    assert json.loads(reply.body.decode("utf-8"))["predictions"][0]["label"] == "Häher 鳥"


def test_error_is_the_contracts_document():
    reply = refused(RequestError("invalid_option", "option 'alpha': 2 is not accepted"))
    assert reply.body == compact(
        {
            "error": {
                "code": "invalid_option",
                "status": 400,
                "message": "option 'alpha': 2 is not accepted",
            }
        }
    )


@pytest.mark.parametrize(("code", "status"), STATUS_OF.items())
def test_error_says_its_status_in_the_body_too(code, status):
    reply = refused(RequestError(code, "why"))
    assert reply.status == json.loads(reply.body)["error"]["status"] == status
    assert reply.content_type == "application/json"


def test_statuses_are_those_of_http():
    assert {400 <= status < 600 for status in STATUS_OF.values()} == {True}
