"""Answers to n photos -> the named output tensors of KServe v2 and Open Inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson

from camserve.protocols.schema import AnswerBody, Datatype, ExplanationBody, TensorBody


@dataclass(frozen=True)
class _Column:
    """An output tensor with a value for each prediction, or for each explanation.

    Attributes:
        datatype: KServe's name of it.
        of: the value of one.
        missing: what stands where a photo has fewer than others.
    """

    datatype: Datatype
    of: Callable[[Any], Any]
    missing: Any


def _b64(name: str) -> Callable[[ExplanationBody], Any]:
    return lambda explanation: explanation.get(name, {}).get("b64")  # type: ignore[attr-defined]


def _layers(explanation: ExplanationBody) -> str:
    layer = explanation["layer"]
    return layer if isinstance(layer, str) else ",".join(layer)


def _boxes(explanation: ExplanationBody) -> str | None:
    return orjson.dumps(explanation["boxes"]).decode() if "boxes" in explanation else None


_PREDICTIONS: Final = {
    "class_id": _Column("INT64", lambda p: p["class_id"], -1),
    "label": _Column("BYTES", lambda p: p["label"], ""),
    "probability": _Column("FP32", lambda p: p["probability"], 0.0),
    "score": _Column("FP32", lambda p: p["score"], 0.0),
}
_EXPLANATIONS: Final = {
    **{f"explained_{name}": column for name, column in _PREDICTIONS.items()},
    "against_class_id": _Column(
        "INT64", lambda e: e["against"]["class_id"] if "against" in e else None, -1
    ),
    "method": _Column("BYTES", lambda e: e["method"], ""),
    "layer": _Column("BYTES", _layers, ""),
    "evidence": _Column("BOOL", lambda e: e["evidence"], False),
    "peak": _Column("FP32", lambda e: e["peak"], 0.0),
    "heatmap": _Column("BYTES", _b64("heatmap"), ""),
    "overlay": _Column("BYTES", _b64("overlay"), ""),
    "mask": _Column("BYTES", _b64("mask"), ""),
    "boxes": _Column("BYTES", _boxes, ""),
}
#: The names that output tensors can have. Those of a photo are (n,), ``size`` (n, 2) and ``seen``
#: (n, 4), of its predictions (n, k), of its explanations (n, t), ``map`` (n, t, h, w).
TENSORS: Final = frozenset(
    {"size", "orientation", "seen", "map", "error", *_PREDICTIONS, *_EXPLANATIONS}
)


def output_tensors(answers: Sequence[AnswerBody | None]) -> Iterator[TensorBody]:
    """The output tensors of n photos; what a photo lacks is filled up."""
    n = len(answers)
    images = [answer["image"] if answer else None for answer in answers]
    sizes = [(image["width"], image["height"]) if image else (0, 0) for image in images]
    seen = [image["seen"] if image else [0.0] * 4 for image in images]
    yield tensor("size", "INT64", [n, 2], list(chain.from_iterable(sizes)))
    yield tensor("orientation", "INT64", [n], [i["orientation"] if i else 0 for i in images])
    yield tensor("seen", "FP32", [n, 4], list(chain.from_iterable(seen)))
    predictions = [answer["predictions"] if answer else [] for answer in answers]
    yield from _columns(_PREDICTIONS, predictions)
    explanations = [answer["explanations"] if answer else [] for answer in answers]
    yield from _columns(_EXPLANATIONS, explanations)
    if any("map" in explanation for row in explanations for explanation in row):
        yield _maps(explanations)


def _columns(columns: Mapping[str, _Column], rows: Sequence[Sequence[Any]]) -> Iterator[TensorBody]:
    """One tensor (n, longest row) for each column that any row has a value for."""
    longest = max(map(len, rows))
    for name, column in columns.items():
        values = [
            column.of(row[place]) if place < len(row) else None
            for row in rows
            for place in range(longest)
        ]
        if any(value is not None for value in values):
            data = [column.missing if value is None else value for value in values]
            yield tensor(name, column.datatype, [len(rows), longest], data)


def _maps(rows: Sequence[Sequence[ExplanationBody]]) -> TensorBody:
    """(n, t, h, w), filled up with -1, which no map holds."""
    longest = max(map(len, rows))
    shapes = [e["map"]["shape"] for row in rows for e in row if "map" in e]
    height, width = (max(lengths) for lengths in zip(*shapes, strict=True))
    data: list[float] = []
    for row in rows:
        for place in range(longest):
            found = row[place].get("map") if place < len(row) else None
            h, w = found["shape"] if found else (0, 0)
            values = found["values"] if found else []
            for y in range(h):
                data += [*values[y * w : (y + 1) * w], *[-1.0] * (width - w)]
            data += [-1.0] * (width * (height - h))
    return tensor("map", "FP32", [len(rows), longest, height, width], data)


def tensor(name: str, datatype: Datatype, shape: list[int], data: list[Any]) -> TensorBody:
    """``data`` must be flat: of nested lists, TorchServe's gRPC side dies."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
