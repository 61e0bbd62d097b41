"""Compares a reply with the recorded one.

- Status and content type are equal.
- An object may have gained keys. Every recorded key is there, with an equal value.
- A list has as many entries as it had, in the same order. The output tensors of KServe v2 are
  compared by name, and there may be new ones.
- Whole numbers, strings, booleans and null are equal. A whole number may not become a float, since
  a typed client reads the two differently. Floats are within :data:`TOLERANCES`.
- Pictures have the same type and size; their decoded pixels are within :data:`LEVELS`.
- Of an error, ``code``, ``status`` and ``type`` are equal. Its ``message``, which is the text
  ``error`` in KServe v2, is for people and may be reworded: it must be a string that is not empty.
- A recorded ``{"$any": TYPE}`` accepts every value of that JSON type. It stands for what depends on
  the machine, the versions or the time.
- In a model's description of itself, lists of strings may gain entries anywhere (``methods`` has a
  new one), and lists of objects at the end. Every recorded entry is there, in the recorded order.

Tensors that carry JSON or pictures as text (``boxes``, ``error``, ``heatmap``, ..) are compared by
the content of that text.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.golden.records import Reply

ANY: Final = "$any"


class Tolerance(NamedTuple):
    """Two floats are equal where their difference is within either bound."""

    relative: float
    absolute: float


_EXACT: Final = Tolerance(1e-6, 1e-9)
#: By the name of the field, or of the tensor without ``explained_``; a tolerance holds for all
#: values inside the field. In float32, OpenVINO and PyTorch, with and without AVX-512, differ by
#: 1e-7 in a probability, by 1e-6 in a map and by 3e-6 of a score or peak. The rest is for decoders:
#: another version may decode a pixel of a JPEG to another level. Bfloat16 changes a map by 5e-3, so
#: it fails.
TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "probability": Tolerance(0, 1e-4),
    "score": Tolerance(0.01, 1e-4),
    "peak": Tolerance(0.01, 1e-6),
    "map": Tolerance(0, 2e-3),
    "boxes": Tolerance(0, 5e-3),
    "map_statistics": Tolerance(1e-3, 1e-3),
    "faithfulness": Tolerance(0, 0.01),
    "not_explained": Tolerance(0, 1e-4),
    # In pixels of the photo.
    "box": Tolerance(0, 1),
}


class _Levels(NamedTuple):
    """By how many of 255 levels pixels may differ: at most, and on average over the picture."""

    maximum: float
    mean: float


_LOSSY: Final = _Levels(32, 1.5)
#: By media type.
LEVELS: Final[Mapping[str, _Levels]] = {
    "image/png": _Levels(8, 0.5),
    "image/jpeg": _LOSSY,
    "image/webp": _LOSSY,
}
_MAGIC: Final = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
_PICTURES: Final = ("heatmap", "overlay", "mask")
_JSON_TEXTS: Final = ("boxes", "error", "faithfulness", "map_statistics", "not_explained")


def differences(recorded: Reply, got: Reply) -> list[str]:
    """What has changed, a line for each value; an empty list where nothing has."""
    changed = [
        f"{name}: {getattr(got, name)!r}, recorded {getattr(recorded, name)!r}"
        for name in ("status", "content_type")
        if getattr(got, name) != getattr(recorded, name)
    ]
    comparison = _Comparison(lists_may_grow=_is_description(recorded.body))
    return [*changed, *comparison.compare(recorded.body, got.body, "body", _EXACT)]


def type_name(value: Any) -> str:
    """The JSON type of a value; ``integer`` and ``number`` are distinct."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and {"name", "datatype", "shape", "data"} <= value.keys()


class _Comparison:
    """The differences between a recorded value and another one.

    Args:
        lists_may_grow: lists of strings, and lists of objects at their end, may have gained
            entries.
    """

    def __init__(self, lists_may_grow: bool) -> None:
        self.lists_may_grow = lists_may_grow

    def compare(self, recorded: Any, got: Any, path: str, tolerance: Tolerance) -> Iterator[str]:
        if isinstance(recorded, dict) and recorded.keys() == {ANY}:
            if type_name(got) != recorded[ANY]:
                yield f"{path}: {type_name(got)}, accepted is any {recorded[ANY]}"
        elif type(recorded) is float:
            if type(got) not in (int, float) or not _close(recorded, got, tolerance):
                yield f"{path}: {_short(got)}, recorded {recorded!r} {tolerance}"
        elif type(recorded) is not type(got):
            yield f"{path}: {_short(got)}, recorded {_short(recorded)}"
        elif isinstance(recorded, dict):
            yield from self._objects(recorded, got, path, tolerance)
        elif isinstance(recorded, list) and recorded and all(map(is_tensor, recorded)):
            yield from self._tensors(recorded, got, path)
        elif isinstance(recorded, list):
            yield from self._lists(recorded, got, path, tolerance)
        elif recorded != got:
            yield f"{path}: {_short(got)}, recorded {_short(recorded)}"

    def _objects(
        self, recorded: dict[str, Any], got: dict[str, Any], path: str, tolerance: Tolerance
    ) -> Iterator[str]:
        # KServe v2 has the message as text under "error".
        messages = {
            *(["message"] if {"code", "message"} <= recorded.keys() else []),
            *(["error"] if "error_detail" in recorded else []),
        }
        for key, value in recorded.items():
            inner_path = f"{path}.{key}"
            if key not in got:
                yield f"{inner_path}: missing, recorded {_short(value)}"
            elif key == "b64":
                yield from _picture_differences(value, got[key], inner_path)
            elif key in messages:
                if not isinstance(got[key], str) or not got[key].strip():
                    yield f"{inner_path}: {_short(got[key])}, accepted is any nonempty string"
            else:
                inner_tolerance = TOLERANCES.get(key.removeprefix("explained_"), tolerance)
                yield from self.compare(value, got[key], inner_path, inner_tolerance)

    def _lists(
        self, recorded: list[Any], got: list[Any], path: str, tolerance: Tolerance
    ) -> Iterator[str]:
        if self.lists_may_grow:
            got = _without_new(recorded, got)
        if len(recorded) != len(got):
            yield f"{path}: {len(got)} entries, recorded {len(recorded)}"
            return
        for n, (before, now) in enumerate(zip(recorded, got, strict=True)):
            yield from self.compare(before, now, f"{path}[{n}]", tolerance)

    def _tensors(self, recorded: list[Any], got: list[Any], path: str) -> Iterator[str]:
        try:
            named = _by_name(got)
        except (ValueError, KeyError, TypeError) as failure:
            yield f"{path}: not tensors with distinct names and readable data: {failure!r}"
        else:
            yield from self.compare(_by_name(recorded), named, path, _EXACT)


def _is_description(body: Any) -> bool:
    return isinstance(body, list) and any("customizedMetadata" in entry for entry in body)


def _without_new(recorded: list[Any], got: list[Any]) -> list[Any]:
    """``got`` without the entries that a list of strings or of objects has gained."""
    if all(isinstance(entry, dict) for entry in recorded):
        return got[: len(recorded)]
    if not all(isinstance(entry, str) for entry in recorded):
        return got
    kept: list[Any] = []
    for entry in got:
        if len(kept) < len(recorded) and entry == recorded[len(kept)]:
            kept.append(entry)
    return kept


def _by_name(tensors: list[Any]) -> dict[str, dict[str, Any]]:
    """Tensors by name; text data that holds JSON or a picture is replaced by its content.

    An empty text is padding and stays as it is.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for tensor in tensors:
        name, data = tensor["name"], tensor["data"]
        if name in by_name:
            raise ValueError(f"two tensors {name!r}")
        if name in _PICTURES:
            data = [text and {"b64": text} for text in data]
        if name in _JSON_TEXTS:
            data = [text and json.loads(text) for text in data]
        by_name[name] = {**tensor, "data": data}
    return by_name


def _close(recorded: float, got: float, tolerance: Tolerance) -> bool:
    relative, absolute = tolerance
    return math.isclose(recorded, got, rel_tol=relative, abs_tol=absolute)


def _picture_differences(recorded: str, got: Any, path: str) -> Iterator[str]:
    """The differences of two pictures in base64."""
    try:
        (media_type, before), (now_type, now) = _decoded(recorded), _decoded(got)
    except (ValueError, TypeError) as failure:
        yield f"{path}: not a picture in base64: {failure}"
        return
    if (media_type, before.shape) != (now_type, now.shape):
        yield f"{path}: {now_type} of shape {now.shape}, recorded {media_type} of {before.shape}"
        return
    levels = np.abs(before.astype(np.int32) - now)
    maximum, mean = LEVELS[media_type]
    if levels.max() > maximum or levels.mean() > mean:
        yield (
            f"{path}: pixels differ by {levels.max()} levels at most, {levels.mean():.3f} on "
            f"average; accepted are {maximum} and {mean}"
        )


def _decoded(text: str) -> tuple[str, NDArray[np.uint8]]:
    """A picture's media type by its first bytes, and its pixels as they are stored.

    Raises:
        ValueError: it is not base64, or not a picture.
    """
    data = base64.b64decode(text, validate=True)
    types = [media_type for magic, media_type in _MAGIC.items() if data.startswith(magic)]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if types else None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes that cannot be decoded")
    return types[0], np.asarray(pixels, np.uint8)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}.."
