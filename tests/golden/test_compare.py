"""The comparison of golden replies finds every kind of change, and accepts additions."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.golden.compare import ANY, differences
from tests.golden.records import Reply

Change = Callable[[Any], object]


def gradient(height: int = 12, width: int = 20) -> NDArray[np.uint8]:
    """A smooth picture, (height, width, 3)."""
    rows = np.linspace(0, 200, height)[:, None, None]
    columns = np.linspace(0, 50, width)[None, :, None]
    return np.broadcast_to(rows + columns, (height, width, 3)).astype(np.uint8)


def encoded(pixels: NDArray[Any], image_format: str = "png") -> str:
    return base64.b64encode(cv2.imencode(f".{image_format}", pixels)[1].tobytes()).decode()


def picture(pixels: NDArray[Any], image_format: str = "png") -> dict[str, Any]:
    height, width = pixels.shape[:2]
    media_type = f"image/{image_format}"
    b64 = encoded(pixels, image_format)
    return {"b64": b64, "media_type": media_type, "width": width, "height": height}


def plain() -> dict[str, Any]:
    score = {"class_id": 0, "label": "red", "probability": 0.25, "score": 0.5}
    return {
        "image": {"width": 96, "height": 64, "seen": [17.0, 1.0, 79.0, 63.0]},
        "predictions": [score, {**score, "class_id": 1, "label": "green", "score": 0.4}],
        "explanations": [
            {
                **score,
                "evidence": True,
                "peak": 0.04,
                "map": {"shape": [1, 2], "values": [0.0, 1.0]},
                "boxes": [{"box": [17.0, 1.0, 40.0, 30.0], "share": 0.5}],
                "heatmap": picture(gradient()),
                "overlay": picture(gradient(), "jpeg"),
            }
        ],
        "nothing": None,
    }


def tensor(name: str, datatype: str, *data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1, len(data)], "data": list(data)}


ERROR = {"code": "unknown_class", "status": 400, "message": "no such class"}


def v2() -> dict[str, Any]:
    box = {"box": [17.0, 1.0, 40.0, 30.0], "share": 0.5}
    return {
        "id": "7",
        "outputs": [
            tensor("label", "BYTES", "red", "green"),
            tensor("explained_score", "FP32", 0.5, 0.4),
            tensor("map", "FP32", 0.0, 1.0),
            tensor("heatmap", "BYTES", encoded(gradient()), ""),
            tensor("boxes", "BYTES", json.dumps([box]), ""),
            tensor("error", "BYTES", json.dumps(ERROR), ""),
        ],
    }


def differences_after(body: Any, change: Change) -> list[str]:
    """The differences that are found after a change of a body."""
    changed = copy.deepcopy(body)
    change(changed)
    recorded = Reply(200, "application/json", body)
    return differences(recorded, Reply(200, "application/json", changed))


def explanation(body: Any) -> Any:
    return body["explanations"][0]


def output(body: Any, name: str) -> Any:
    (tensor,) = (tensor for tensor in body["outputs"] if tensor["name"] == name)
    return tensor


def data(name: str, *values: Any) -> Change:
    """A change that gives a tensor other data."""
    return lambda body: output(body, name).update(data=list(values))


def with_pixel(level: int) -> NDArray[np.uint8]:
    """The picture with one pixel changed by ``level``."""
    changed = gradient()
    changed[3, 4, 0] += level
    return changed


ACCEPTED: dict[str, Change] = {
    "nothing": lambda body: None,
    "a new key at the top": lambda body: body.update(warnings=[]),
    "a new key in an object of a list": lambda body: body["predictions"][1].update(wnid="n1"),
    "a new key beside a picture": lambda body: explanation(body)["heatmap"].update(dpi=72),
    "another order of keys": lambda body: body.update(image=body.pop("image")),
    "a probability within its tolerance": lambda body: body["predictions"][0].update(
        probability=0.25005
    ),
    "a score within its tolerance": lambda body: body["predictions"][0].update(score=0.504),
    "a map's value within its tolerance": lambda body: explanation(body)["map"].update(
        values=[0.001, 0.999]
    ),
    "a box within a pixel": lambda body: explanation(body)["boxes"][0].update(
        box=[17.5, 1.5, 39.5, 30.5]
    ),
    "a float without a fraction": lambda body: body["image"].update(seen=[17, 1, 79, 63]),
    "a pixel within its tolerance": lambda body: explanation(body).update(
        heatmap=picture(with_pixel(2))
    ),
    "other bytes of the same pixels": lambda body: explanation(body)["heatmap"].update(
        b64=base64.b64encode(
            cv2.imencode(".png", gradient(), [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
        ).decode()
    ),
}  # fmt: skip
DETECTED: dict[str, Change] = {
    "a missing key": lambda body: explanation(body).pop("peak"),
    "a missing picture": lambda body: explanation(body).pop("heatmap"),
    "a probability": lambda body: body["predictions"][0].update(probability=0.2502),
    "a score": lambda body: body["predictions"][0].update(score=0.51),
    "a peak": lambda body: explanation(body).update(peak=0.0405),
    "a map's value": lambda body: explanation(body)["map"].update(values=[0.0, 0.99]),
    "a map's shape": lambda body: explanation(body)["map"].update(shape=[2, 1]),
    "a box": lambda body: explanation(body)["boxes"][0].update(box=[17.0, 1.0, 42.0, 30.0]),
    "a box's share": lambda body: explanation(body)["boxes"][0].update(share=0.52),
    "what the network saw": lambda body: body["image"].update(seen=[17.0, 1.0, 79.0, 63.1]),
    "a whole number": lambda body: body["image"].update(width=97),
    "a whole number to a float": lambda body: body["image"].update(width=96.0),
    "a float to a text": lambda body: explanation(body).update(peak="0.04"),
    "a float to a boolean": lambda body: explanation(body)["map"].update(values=[0.0, True]),
    "a boolean": lambda body: explanation(body).update(evidence=False),
    "a boolean to a number": lambda body: explanation(body).update(evidence=1),
    "a text": lambda body: body["predictions"][0].update(label="Red"),
    "null to a text": lambda body: body.update(nothing=""),
    "an object to a list": lambda body: body.update(image=[]),
    "the order of a list": lambda body: body["predictions"].reverse(),
    "a shorter list": lambda body: body["predictions"].pop(),
    "a longer list": lambda body: body["predictions"].append(body["predictions"][0]),
    "no entries": lambda body: body.update(explanations=[]),
    "a pixel": lambda body: explanation(body).update(heatmap=picture(with_pixel(30))),
    "all pixels, a little": lambda body: explanation(body).update(
        heatmap=picture(gradient() + 1)
    ),
    "pixels of a JPEG": lambda body: explanation(body).update(
        overlay=picture(gradient() + 5, "jpeg")
    ),
    "a picture's size": lambda body: explanation(body)["heatmap"].update(b64=encoded(gradient(11))),
    "a picture's channels": lambda body: explanation(body)["heatmap"].update(
        b64=encoded(gradient()[..., 0])
    ),
    "a picture's claimed size": lambda body: explanation(body)["heatmap"].update(width=21),
    "a picture's type": lambda body: explanation(body).update(heatmap=picture(gradient(), "webp")),
    "a picture's bytes alone": lambda body: explanation(body)["heatmap"].update(
        b64=encoded(gradient(), "webp")
    ),
    "a picture's base64": lambda body: explanation(body)["heatmap"].update(b64="@"),
    "a picture that is none": lambda body: explanation(body)["heatmap"].update(
        b64=base64.b64encode(b"\x89PNG").decode()
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_additions_and_values_within_tolerance_are_no_difference(change: Change) -> None:
    assert differences_after(plain(), change) == []


@pytest.mark.parametrize("change", DETECTED.values(), ids=DETECTED)
def test_a_change_is_a_difference(change: Change) -> None:
    assert differences_after(plain(), change) != []


ACCEPTED_IN_TENSORS: dict[str, Change] = {
    "a new tensor": lambda body: body["outputs"].insert(0, tensor("warnings", "BYTES", "")),
    "another order of tensors": lambda body: body["outputs"].reverse(),
    "a score within its tolerance": data("explained_score", 0.503, 0.401),
    "other spaces in JSON": data(
        "boxes", json.dumps([{"share": 0.5, "box": [17, 1, 40, 30]}], indent=1), ""
    ),
    "another message": data("error", json.dumps({**ERROR, "message": "unknown"}), ""),
}
DETECTED_IN_TENSORS: dict[str, Change] = {
    "a missing tensor": lambda body: body["outputs"].pop(0),
    "two of one name": lambda body: body["outputs"].append(body["outputs"][0]),
    "no list of tensors": lambda body: body.update(outputs=[{}]),
    "a datatype": lambda body: output(body, "map").update(datatype="FP64"),
    "a shape": lambda body: output(body, "map").update(shape=[2, 1]),
    "a text": data("label", "red", "Green"),
    "the order of elements": data("label", "green", "red"),
    "a score": data("explained_score", 0.5, 0.41),
    "a map's value": data("map", 0.01, 1.0),
    "an element less": data("map", 0.0),
    "a pixel": data("heatmap", encoded(with_pixel(30)), ""),
    "a picture that fills up": data("heatmap", encoded(gradient()), encoded(gradient())),
    "a missing picture": data("heatmap", "", ""),
    "a box": data("boxes", json.dumps([{"box": [17, 1, 42, 30], "share": 0.5}]), ""),
    "no JSON": data("boxes", "[", ""),
    "an error's code": data("error", json.dumps({**ERROR, "code": "invalid_option"}), ""),
    "no error": data("error", "", ""),
}


@pytest.mark.parametrize("change", ACCEPTED_IN_TENSORS.values(), ids=ACCEPTED_IN_TENSORS)
def test_tensors_may_be_added(change: Change) -> None:
    assert differences_after(v2(), change) == []


@pytest.mark.parametrize("change", DETECTED_IN_TENSORS.values(), ids=DETECTED_IN_TENSORS)
def test_a_change_in_a_tensor_is_a_difference(change: Change) -> None:
    assert differences_after(v2(), change) != []


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"message": "unknown class"}, True),
        ({"hint": "new"}, True),
        ({"message": " "}, False),
        ({"message": None}, False),
        ({"code": "invalid_option"}, False),
        ({"status": 404}, False),
    ],
)
def test_an_error_keeps_code_and_status_and_its_message_may_be_reworded(
    change: dict[str, Any], same: bool
) -> None:
    assert (
        differences_after({"error": ERROR}, lambda body: body["error"].update(change)) == []
    ) is same


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"error": "unknown class"}, True),
        ({"error": ""}, False),
        ({"error": ERROR}, False),
        ({"error_detail": {**ERROR, "message": "unknown class"}}, True),
        ({"error_detail": {**ERROR, "code": "invalid_option"}}, False),
    ],
)
def test_an_error_of_kserve_v2_is_a_text_beside_its_code(
    change: dict[str, Any], same: bool
) -> None:
    recorded = {"error": ERROR["message"], "error_detail": ERROR}
    assert (differences_after(recorded, lambda body: body.update(change)) == []) is same


@pytest.mark.parametrize(
    ("recorded", "got"),
    [
        (Reply(200, "application/json", {}), Reply(400, "application/json", {})),
        (Reply(200, "application/json", {}), Reply(200, "application/json; charset=utf-8", {})),
        (Reply(200, "application/json", {}), Reply(200, None, {})),
        (Reply("OK", None, {}), Reply("INTERNAL", None, {})),
        (Reply("OK", None, [{}]), Reply("OK", None, [{}, {}])),
        (Reply("INTERNAL", None, None), Reply("INTERNAL", None, {})),
    ],
)
def test_another_status_content_type_or_number_of_messages_is_a_difference(
    recorded: Reply, got: Reply
) -> None:
    assert differences(recorded, recorded) == []
    assert len(differences(recorded, got)) == 1


def description() -> list[dict[str, Any]]:
    model = {"precision": "float32", "versions": {ANY: "object"}}
    options = {"anyOf": [{"type": "string"}, {"type": "array"}]}
    content = {"model": model, "methods": ["gradcam", "eigencam"], "mean": [0.5], **options}
    return [{"customizedMetadata": content}]


def content(body: Any) -> Any:
    return body[0]["customizedMetadata"]


DESCRIPTIONS: dict[str, tuple[Change, bool]] = {
    "any value": (lambda body: content(body)["model"].update(versions={"torch": "3"}), True),
    "any value of another type": (lambda body: content(body)["model"].update(versions="3"), False),
    "no value": (lambda body: content(body)["model"].pop("versions"), False),
    "another value": (lambda body: content(body)["model"].update(precision="bfloat16"), False),
    "a new text at the end": (lambda body: content(body)["methods"].append("legrad"), True),
    "a new text between": (lambda body: content(body)["methods"].insert(1, "legrad"), True),
    "another order": (lambda body: content(body)["methods"].reverse(), False),
    "a missing text": (lambda body: content(body)["methods"].pop(), False),
    "a new object at the end": (lambda body: content(body)["anyOf"].append({}), True),
    "a missing object": (lambda body: content(body)["anyOf"].pop(0), False),
    "a new number": (lambda body: content(body)["mean"].append(0.5), False),
    "no description": (lambda body: body.clear(), False),
}


@pytest.mark.parametrize(("change", "same"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_may_gain_entries(change: Change, same: bool) -> None:
    described = {"versions": {"torch": "2"}}

    def changed(body: Any) -> None:
        content(body)["model"].update(described)
        change(body)

    assert (differences_after(description(), changed) == []) is same
