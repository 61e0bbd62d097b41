"""The contract on the wire as tests read it: what every reply must be, and KServe v2 unpacked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict, is_typeddict

from camserve.errors import HTTP_STATUS
from camserve.protocols import schema

PICTURES = ("heatmap", "overlay", "mask")
_MAGIC = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}


# What every reply must be


def forbid_extra_keys(kind: Any) -> Any:
    """A type of ``protocols.schema`` with no key beside its own, and no number for another.

    It is a copy; the type itself stays as it is.
    """
    if is_typeddict(kind):
        fields = get_type_hints(kind, include_extras=True)
        make: Any = TypedDict
        copy = make(kind.__name__, {n: forbid_extra_keys(field) for n, field in fields.items()})
        copy.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        return copy
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return list[forbid_extra_keys(inner[0])]  # type: ignore[misc]
    if origin is NotRequired:
        return NotRequired[forbid_extra_keys(inner[0])]
    if origin in (Union, UnionType):
        return reduce(or_, map(forbid_extra_keys, inner))
    return kind


Protocol = Literal["plain", "v1", "v2"]
_STRICT: dict[Protocol, TypeAdapter[Any]] = {
    "plain": TypeAdapter(forbid_extra_keys(schema.AnswerBody | schema.ErrorBody)),
    "v1": TypeAdapter(
        forbid_extra_keys(schema.V1Predictions | schema.V1Explanations | schema.ErrorBody)
    ),
    "v2": TypeAdapter(forbid_extra_keys(schema.V2Body)),
}


def outcomes(body: Mapping[str, Any], protocol: Protocol) -> list[dict[str, Any]]:
    """Each photo's plain reply, or its error, in a body that must be as the contract has it.

    The error of a whole request is one outcome.
    """
    _STRICT[protocol].validate_python(body)
    if protocol == "v2":
        found = replies_in(body)
    elif protocol == "plain" or "error" in body:
        found = [dict(body)]
    else:
        (found,) = body.values()
    for outcome in found:
        if "error" in outcome:
            _check_error(outcome["error"])
        else:
            _check_answer(outcome)
    return found


def _check_error(error: Mapping[str, Any]) -> None:
    assert error.keys() == {"code", "status", "message"}
    assert HTTP_STATUS[error["code"]] == error["status"]
    assert error["message"].strip()


def _check_answer(answer: Mapping[str, Any]) -> None:
    image = answer["image"]
    x0, y0, x1, y1 = image["seen"]
    assert 0 <= x0 < x1 <= image["width"]
    assert 0 <= y0 < y1 <= image["height"]
    predictions = answer["predictions"]
    assert predictions
    scores = [prediction["score"] for prediction in predictions]
    assert scores == sorted(scores, reverse=True)
    assert len({prediction["class_id"] for prediction in predictions}) == len(predictions)
    assert all(0 <= prediction["probability"] <= 1 for prediction in predictions)
    for explanation in answer["explanations"]:
        _check_explanation(explanation, image)


def _check_explanation(explanation: Mapping[str, Any], image: Mapping[str, Any]) -> None:
    assert explanation["peak"] >= 0
    outputs = explanation.keys() & {"map", "boxes", *PICTURES}
    assert outputs
    for name in outputs & {*PICTURES}:
        assert decoded(explanation[name]).size
    # A map is empty where none was asked for.
    values = explanation["map"]["values"] if "map" in outputs else []
    height, width = explanation["map"]["shape"] if "map" in outputs else (0, 0)
    assert len(values) == height * width
    assert all(0 <= value <= 1 for value in values)
    assert any(values) is (explanation["evidence"] and "map" in outputs)
    x0, y0, x1, y1 = image["seen"]
    shares = [region["share"] for region in explanation.get("boxes", [])]
    assert shares == sorted(shares, reverse=True)
    assert all(share > 0 for share in shares)
    assert sum(shares) <= 1 + 1e-6
    for region in explanation.get("boxes", []):
        left, top, right, bottom = region["box"]
        assert x0 - 0.01 <= left < right <= x1 + 0.01
        assert y0 - 0.01 <= top < bottom <= y1 + 0.01


def decoded(picture: Mapping[str, Any]) -> NDArray[np.uint8]:
    """A picture of a reply -> (h, w, 3) RGB; it is of the type and size that it claims."""
    data = base64.b64decode(picture["b64"], validate=True)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None
    (kind,) = (kind for kind, magic in _MAGIC.items() if data.startswith(magic))
    height, width = pixels.shape[:2]
    # KServe v2 claims nothing.
    claims = {name: value for name, value in picture.items() if name != "b64"}
    assert claims.items() <= {"media_type": kind, "width": width, "height": height}.items()
    return np.asarray(pixels, np.uint8)


def assert_replies_close(got: Any, expected: Any, place: str = "reply") -> None:
    """Numbers equal to 1e-4, pictures to 2 grey levels of the map, all else exactly."""
    found, wanted = dict(_leaves(got, place)), dict(_leaves(expected, place))
    numbers = {at: value for at, value in wanted.items() if isinstance(value, float)}
    pictures = {at: value for at, value in wanted.items() if isinstance(value, Mapping)}
    exact = wanted.keys() - numbers.keys() - pictures.keys()
    assert {at: found.get(at) for at in exact} == {at: wanted[at] for at in exact}
    assert found.keys() == wanted.keys()
    assert {at: found[at] for at in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-4)
    for at, picture in pictures.items():
        assert found[at].keys() == picture.keys(), at
        assert found[at].get("media_type") == picture.get("media_type"), at
        assert decoded(found[at]).shape == decoded(picture).shape, at
        difference = np.abs(decoded(found[at]).astype(np.int16) - decoded(picture))
        # Where a colormap is steepest it takes 6 levels of a channel for one of the map.
        assert difference.max() <= 12, at
        assert difference.mean() <= 0.5, at


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The parts of a value by their places: of an object its keys, of a list its length."""
    inner: list[tuple[str, Any]] = []
    if isinstance(value, dict) and "b64" not in value:
        inner = [(f"{place}.{key}", one) for key, one in value.items()]
        value = list(value)
    elif isinstance(value, list):
        inner = [(f"{place}[{n}]", one) for n, one in enumerate(value)]
        value = len(value)
    yield place, value
    for at, one in inner:
        yield from _leaves(one, at)


# KServe v2

#: The datatype for each type of an option's value.
_DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES", bytes: "BYTES"}
_ARRAYS: dict[str, tuple[Any, tuple[type, ...]]] = {
    "BYTES": (object, (str,)),
    "INT64": (np.int64, (int,)),
    "FP32": (np.float32, (float,)),
    "BOOL": (bool, (bool,)),
}
_PREDICTION = ("class_id", "label", "probability", "score")


def tensor(name: str, datatype: str, data: Sequence[Any], *shape: int) -> dict[str, Any]:
    """A tensor as it stands in JSON, its shape (n,) where none is given."""
    shape = shape or (len(data),)
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": list(data)}


def inputs_of(photos: Sequence[str | bytes], **options: Any) -> list[dict[str, Any]]:
    """Input tensors: photos (base64 over HTTP, bytes over gRPC) and the options of all of them.

    A list or an object travels as JSON text.
    """
    inputs = [tensor("image", "BYTES", photos)]
    for name, value in options.items():
        if isinstance(value, list | tuple | dict | None):
            value = json.dumps(value)
        inputs.append(tensor(name, _DATATYPES[type(value)], [value]))
    return inputs


def arrays(body: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """A reply's output tensors by name; they are flat, and their elements of their datatype."""
    found = {}
    for one in body["outputs"]:
        assert one["name"] not in found
        kind, types = _ARRAYS[one["datatype"]]
        assert all(type(element) in types for element in one["data"]), one["name"]
        found[one["name"]] = np.array(one["data"], kind).reshape(one["shape"])
    assert len({len(array) for array in found.values()}) <= 1
    return found


def replies_in(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A reply to a request that names no output -> each photo's plain reply, or its error.

    What v2 lacks is missing: pictures are base64 alone, and of a class that another is explained
    against there is only the index.
    """
    found = arrays(body)
    errors = found.get("error", np.array([""] * len(found.get("size", []))))
    model = {"name": body["model_name"], "version": body["model_version"]}
    replies = [
        {"error": json.loads(error)} if error else {"model": model, **_reply(found, n)}
        for n, error in enumerate(errors)
    ]
    # The most severe error stands beside the tensors, too, where no photo is answered; TorchServe's
    # gRPC has no field for it.
    failed = [reply["error"] for reply in replies if "error" in reply]
    worst = max(failed, key=lambda error: error["status"]) if len(failed) == len(replies) else {}
    assert body.get("error_detail", worst) == worst
    assert body.get("error") == body.get("error_detail", {}).get("message")
    return replies


def as_v2_has_it(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A plain reply without what v2 lacks, its outputs in their own order."""
    explanations = []
    for explanation in reply["explanations"]:
        bare = dict(explanation)
        if "against" in bare:
            bare["against"] = {"class_id": bare["against"]["class_id"]}
        for name in ("against", *PICTURES, "map", "boxes", "faithfulness", "record"):
            if name in bare:
                value = bare.pop(name)
                bare[name] = {"b64": value["b64"]} if name in PICTURES else value
        explanations.append(bare)
    return {**reply, "explanations": explanations}


def _reply(found: Mapping[str, NDArray[Any]], n: int) -> dict[str, Any]:
    explained = found.get("explained_class_id", np.full((n + 1, 0), -1))
    reply: dict[str, Any] = {
        "image": {
            "width": int(found["size"][n, 0]),
            "height": int(found["size"][n, 1]),
            "orientation": int(found["orientation"][n]),
            "seen": found["seen"][n].tolist(),
        },
        "predictions": [
            {name: _value(found[name][n, k]) for name in _PREDICTION}
            for k in _filled(found["class_id"][n])
        ],
        "explanations": [_explanation(found, n, t) for t in _filled(explained[n])],
    }
    if "not_explained" in found and found["not_explained"][n]:
        reply["not_explained"] = json.loads(found["not_explained"][n])
    return reply


def _explanation(found: Mapping[str, NDArray[Any]], n: int, t: int) -> dict[str, Any]:
    explanation = {name: _value(found[f"explained_{name}"][n, t]) for name in _PREDICTION}
    explanation |= {
        name: _value(found[name][n, t]) for name in ("method", "layer", "evidence", "peak")
    }
    explanation["map_statistics"] = json.loads(found["map_statistics"][n, t])
    if "," in explanation["layer"]:
        explanation["layer"] = explanation["layer"].split(",")
    if "against_class_id" in found and found["against_class_id"][n, t] >= 0:
        explanation["against"] = {"class_id": int(found["against_class_id"][n, t])}
    for name in PICTURES:
        if name in found and found[name][n, t]:
            explanation[name] = {"b64": found[name][n, t]}
    if "map" in found:
        grid = found["map"][n, t]
        grid = grid[(grid >= 0).any(axis=1)][:, (grid >= 0).any(axis=0)]
        if grid.size:
            explanation["map"] = {"shape": list(grid.shape), "values": grid.ravel().tolist()}
    for name in ("boxes", "faithfulness", "record"):
        if name in found and found[name][n, t]:
            explanation[name] = json.loads(found[name][n, t])
    return explanation


def _filled(class_ids: NDArray[np.int64]) -> list[int]:
    """The places that hold a class; those behind fill a shorter row up."""
    count = int((class_ids >= 0).sum())
    assert (class_ids[:count] >= 0).all()
    return list(range(count))


def _value(element: Any) -> Any:
    return element.item() if isinstance(element, np.generic) else element
