"""Results as they stand in a reply, as the contract has it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from camserve.images.geometry import Box, InputFrame
from camserve.images.map_statistics import MapStatistics
from camserve.images.regions import HotRegion
from camserve.images.render import EncodedImage
from camserve.protocols.schema import ModelBody, PredictionBody
from camserve.serialize import ExplanationFields, photo_reply

MODEL: ModelBody = {"name": "resnet50", "version": "1.0"}
FRAME = InputFrame(451, 300, 1, Box(80.3505747, 5.1724138, 370.6494253, 294.8275862))
TABBY: PredictionBody = {"class_id": 281, "label": "tabby", "probability": 0.625, "score": 9.125}
STATISTICS = MapStatistics(1.25, 0.5, (10.12345, -0.0), 3.5, 0.25, 0.125)
TIGER: PredictionBody = {"class_id": 282, "label": "tiger cat", "probability": 0.25, "score": 8.5}


def explanation(
    drawings: dict[Any, Any],
    against: PredictionBody | None = None,
    layers: tuple[str, ...] = ("layer4.2",),
    evidence: bool = True,
    peak: float = 0.4375,
) -> ExplanationFields:
    return ExplanationFields(
        TABBY, against, "gradcam", layers, evidence, peak, STATISTICS, 0.5, {}, drawings
    )


def explained(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """The one explanation of a reply."""
    (body,) = photo_reply(MODEL, FRAME, [TABBY], [explanation(*args, **kwargs)])["explanations"]
    return dict(body)


def test_reply_is_the_contracts_document() -> None:
    drawings = {
        "heatmap": EncodedImage(b"\x89PNG heatmap", "image/png", 224, 224),
        "overlay": EncodedImage(b"\x89PNG overlay", "image/png", 451, 300),
    }
    reply = photo_reply(MODEL, FRAME, [TABBY, TIGER], [explanation(drawings)])
    assert reply == {
        "model": {"name": "resnet50", "version": "1.0"},
        "image": {
            "width": 451,
            "height": 300,
            "orientation": 1,
            "seen": [80.351, 5.172, 370.649, 294.828],
        },
        "predictions": [TABBY, TIGER],
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
                "map_statistics": {
                    "entropy": 1.25,
                    "gini": 0.5,
                    "centre": [10.123, 0.0],
                    "spread": 3.5,
                    "border": 0.25,
                    "corners": 0.125,
                    "explained": 0.5,
                },
                "heatmap": {
                    "b64": "iVBORyBoZWF0bWFw",
                    "media_type": "image/png",
                    "width": 224,
                    "height": 224,
                },
                "overlay": {
                    "b64": "iVBORyBvdmVybGF5",
                    "media_type": "image/png",
                    "width": 451,
                    "height": 300,
                },
            }
        ],
    }
    assert list(reply) == ["model", "image", "predictions", "explanations"]


def test_reply_without_an_explanation_has_an_empty_list() -> None:
    assert photo_reply(MODEL, FRAME, [TABBY], [])["explanations"] == []


@pytest.mark.parametrize("name", ["heatmap", "overlay", "mask"])
def test_base64_gives_the_pictures_bytes(name: str) -> None:
    data = bytes(range(256))
    text = explained({name: EncodedImage(data, "image/webp", 1, 1)})[name]["b64"]
    assert base64.b64decode(text, validate=True) == data


def test_map_is_its_shape_and_its_values_row_by_row() -> None:
    map = np.array([[0, 0.25, 0.5], [0.75, 1, 0]], np.float32)
    assert explained({"map": map})["map"] == {
        "shape": [2, 3],
        "values": [0.0, 0.25, 0.5, 0.75, 1.0, 0.0],
    }


def test_boxes_are_in_thousandths_of_a_pixel_with_their_share() -> None:
    regions = (
        HotRegion(Box(80.35057, 5.17241, 100, 20.00049), 0.75),
        HotRegion(Box(-0.0, 0, 1, 1), 0.1),
    )
    boxes = explained({"boxes": regions})["boxes"]
    assert boxes == [
        {"box": [80.351, 5.172, 100.0, 20.0], "share": 0.75},
        {"box": [0.0, 0.0, 1.0, 1.0], "share": 0.1},
    ]
    assert str(boxes[1]["box"][0]) == "0.0"


def test_no_box_is_an_empty_list() -> None:
    assert explained({"boxes": ()})["boxes"] == []


def test_one_layer_is_a_name_and_several_are_a_list() -> None:
    assert explained({})["layer"] == "layer4.2"
    assert explained({}, layers=("layer4.2", "layer3.5"))["layer"] == ["layer4.2", "layer3.5"]


def test_against_is_there_only_where_there_is_one() -> None:
    assert "against" not in explained({})
    assert explained({}, against=TIGER)["against"] == TIGER


def test_outputs_stand_in_the_order_asked_for_and_no_others() -> None:
    drawings = {"map": np.zeros((1, 1), np.float32), "boxes": ()}
    assert list(explained(drawings))[-2:] == ["map", "boxes"]
    assert not {"heatmap", "overlay", "mask"} & explained(drawings).keys()


def test_orientation_and_what_was_seen_are_the_files() -> None:
    # Stored on its side (6: transposed, then mirrored), 300 x 451 upright.
    frame = InputFrame(451, 300, 6, Box(10, 20, 250, 260))
    image = photo_reply(MODEL, frame, [TABBY], [])["image"]
    assert image == {
        "width": 451,
        "height": 300,
        "orientation": 6,
        "seen": [20.0, 50.0, 260.0, 290.0],
    }
