"""The answers to n photos -> the named output tensors of KServe v2 and Open Inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson

from camserve.errors import RequestError
from camserve.protocols.replies import PhotoOutcome, error_body
from camserve.protocols.schema import AnswerBody, Datatype, ExplanationBody, TensorBody


@dataclass(frozen=True)
class _Column:
    """An output tensor that has an element for each prediction, or for each explanation.

    Attributes:
        datatype: of the elements.
        value_of: the value of a prediction or an explanation, or None.
        fill_value: the element where there is no value.
    """

    datatype: Datatype
    value_of: Callable[[Any], Any]
    fill_value: Any


def _picture_b64(name: str) -> Callable[[ExplanationBody], Any]:
    return lambda explanation: explanation.get(name, {}).get("b64")  # type: ignore[attr-defined]


def _layer_names(explanation: ExplanationBody) -> str:
    layer = explanation["layer"]
    return layer if isinstance(layer, str) else ",".join(layer)


def _json_of(name: str) -> Callable[[ExplanationBody], str | None]:
    return lambda explanation: (
        orjson.dumps(explanation[name]).decode()  # type: ignore[literal-required]
        if name in explanation
        else None
    )


_PREDICTION_COLUMNS: Final = {
    "class_id": _Column("INT64", lambda p: p["class_id"], -1),
    "label": _Column("BYTES", lambda p: p["label"], ""),
    "probability": _Column("FP32", lambda p: p["probability"], 0.0),
    "score": _Column("FP32", lambda p: p["score"], 0.0),
}
_EXPLANATION_COLUMNS: Final = {
    **{f"explained_{name}": column for name, column in _PREDICTION_COLUMNS.items()},
    "against_class_id": _Column(
        "INT64", lambda e: e["against"]["class_id"] if "against" in e else None, -1
    ),
    "method": _Column("BYTES", lambda e: e["method"], ""),
    "layer": _Column("BYTES", _layer_names, ""),
    "evidence": _Column("BOOL", lambda e: e["evidence"], False),
    "peak": _Column("FP32", lambda e: e["peak"], 0.0),
    "map_statistics": _Column("BYTES", _json_of("map_statistics"), ""),
    "faithfulness": _Column("BYTES", _json_of("faithfulness"), ""),
    "record": _Column("BYTES", _json_of("record"), ""),
    "heatmap": _Column("BYTES", _picture_b64("heatmap"), ""),
    "overlay": _Column("BYTES", _picture_b64("overlay"), ""),
    "mask": _Column("BYTES", _picture_b64("mask"), ""),
    "boxes": _Column("BYTES", _json_of("boxes"), ""),
}
#: The tensors that can name their best classes as texts in their place.
RANKED_NAMES: Final = ("probability", "score")
#: The datatype and the shape of each output tensor, by name. -1 is an axis of any length: n photos,
#: then k predictions, or t explanations (and a map's height and width).
OUTPUT_METADATA: Final[Mapping[str, tuple[Datatype, tuple[int, ...]]]] = {
    "size": ("INT64", (-1, 2)),
    "orientation": ("INT64", (-1,)),
    "seen": ("FP32", (-1, 4)),
    "warnings": ("BYTES", (-1,)),
    "profile": ("BYTES", (-1,)),
    "not_explained": ("BYTES", (-1,)),
    **{name: (column.datatype, (-1, -1)) for name, column in _PREDICTION_COLUMNS.items()},
    **{name: (column.datatype, (-1, -1)) for name, column in _EXPLANATION_COLUMNS.items()},
    "map": ("FP32", (-1, -1, -1, -1)),
    "error": ("BYTES", (-1,)),
}
#: The names of all output tensors.
OUTPUT_NAMES: Final = frozenset(OUTPUT_METADATA)


def output_tensors(answers: Sequence[AnswerBody | None]) -> Iterator[TensorBody]:
    """The output tensors of n photos, without ``error``.

    A tensor is padded where a photo has fewer predictions or explanations than another, or has no
    answer. A tensor that no photo has a value for is left out.

    Args:
        answers: one for each photo; None for a photo that failed. At least one is an answer.
    """
    n = len(answers)
    images = [answer["image"] if answer else None for answer in answers]
    sizes = [(image["width"], image["height"]) if image else (0, 0) for image in images]
    orientations = [image["orientation"] if image else 0 for image in images]
    seen = [image["seen"] if image else [0.0] * 4 for image in images]
    yield tensor_body("size", "INT64", [n, 2], list(chain.from_iterable(sizes)))
    yield tensor_body("orientation", "INT64", [n], orientations)
    yield tensor_body("seen", "FP32", [n, 4], list(chain.from_iterable(seen)))
    if any("warnings" in image for image in images if image):
        warnings = [image.get("warnings", []) if image else [] for image in images]
        yield tensor_body("warnings", "BYTES", [n], [orjson.dumps(w).decode() for w in warnings])
    if any("profile" in image for image in images if image):
        profiles = [image.get("profile", "") if image else "" for image in images]
        yield tensor_body("profile", "BYTES", [n], profiles)
    if any("not_explained" in answer for answer in answers if answer):
        reasons = [answer.get("not_explained") if answer else None for answer in answers]
        texts = [orjson.dumps(reason).decode() if reason else "" for reason in reasons]
        yield tensor_body("not_explained", "BYTES", [n], texts)
    predictions = [answer["predictions"] if answer else [] for answer in answers]
    yield from _column_tensors(_PREDICTION_COLUMNS, predictions)
    explanations = [answer["explanations"] if answer else [] for answer in answers]
    yield from _column_tensors(_EXPLANATION_COLUMNS, explanations)
    if any("map" in explanation for row in explanations for explanation in row):
        yield _map_tensor(explanations)


def error_tensor(outcomes: Sequence[PhotoOutcome]) -> TensorBody:
    """The tensor ``error`` (n,): a photo's error as JSON, or an empty text."""
    errors = [
        orjson.dumps(error_body(outcome)["error"]).decode()
        if isinstance(outcome, RequestError)
        else ""
        for outcome in outcomes
    ]
    return tensor_body("error", "BYTES", [len(errors)], errors)


def classification_tensor(
    name: str, count: int, answers: Sequence[AnswerBody | None]
) -> TensorBody:
    """Triton's form of a tensor's best classes: (n, k) texts ``value:index:label``.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md

    Args:
        name: of the tensor, one of :data:`RANKED_NAMES`.
        count: the largest k.
        answers: one for each photo; None for a photo that failed.
    """
    rows = [answer["predictions"][:count] if answer else [] for answer in answers]
    value_of = _PREDICTION_COLUMNS[name].value_of
    column = _Column("BYTES", lambda p: f"{value_of(p):f}:{p['class_id']}:{p['label']}", "")
    (tensor,) = _column_tensors({name: column}, rows)
    return tensor


def tensor_body(name: str, datatype: Datatype, shape: list[int], data: list[Any]) -> TensorBody:
    """A tensor as JSON.

    Args:
        name: of the tensor.
        datatype: of its elements.
        shape: the lengths of its axes.
        data: its elements in a flat list, row by row. TorchServe's gRPC frontend crashes on nested
            lists.
    """
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _column_tensors(
    columns: Mapping[str, _Column], rows: Sequence[Sequence[Any]]
) -> Iterator[TensorBody]:
    """A tensor (n, longest row) for each column that has a value in any row."""
    longest = max(map(len, rows))
    for name, column in columns.items():
        values = [
            column.value_of(row[index]) if index < len(row) else None
            for row in rows
            for index in range(longest)
        ]
        if any(value is not None for value in values):
            data = [column.fill_value if value is None else value for value in values]
            yield tensor_body(name, column.datatype, [len(rows), longest], data)


def _map_tensor(rows: Sequence[Sequence[ExplanationBody]]) -> TensorBody:
    """The tensor ``map`` (n, t, h, w), padded with -1, a value that no map has."""
    longest = max(map(len, rows))
    shapes = [
        explanation["map"]["shape"] for row in rows for explanation in row if "map" in explanation
    ]
    height, width = (max(lengths) for lengths in zip(*shapes, strict=True))
    data: list[float] = []
    for row in rows:
        for index in range(longest):
            map_body = row[index].get("map") if index < len(row) else None
            h, w = map_body["shape"] if map_body else (0, 0)
            values = map_body["values"] if map_body else []
            for y in range(h):
                data += [*values[y * w : (y + 1) * w], *[-1.0] * (width - w)]
            data += [-1.0] * (width * (height - h))
    return tensor_body("map", "FP32", [len(rows), longest, height, width], data)
