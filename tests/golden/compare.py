"""How a reply may differ from the one that was recorded.

- Status and content type are equal.
- An object may have gained keys. Every recorded key is there, with an equal value.
- A list has as many entries as it had, in the same order. The output tensors of KServe v2 are
  compared by name, and there may be new ones.
- Whole numbers, texts, booleans and null are equal. A whole number may not become a float, since a
  typed client reads the two differently. Floats are within :data:`TOLERANCES`.
- Pictures have the same type and size; their decoded pixels are within :data:`LEVELS`.
- Of an error, ``code``, ``status`` and ``type`` are equal. Its ``message`` is for people and may be
  reworded: it must be a text that is not empty.
- A recorded ``{"$any": TYPE}`` accepts every value of that JSON type. It stands for what depends on
  the machine, the versions or the moment.
- In a model's description of itself, lists may gain entries: of texts anywhere, as ``methods`` with
  a new method, of objects at the end. Every recorded entry is there, in the recorded order.

Tensors that carry JSON or pictures as text (``boxes``, ``error``, ``heatmap``, ..) are compared by
what the text holds.
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
    """Two floats are equal where their difference is within one of the two bounds."""

    relative: float
    absolute: float


_EXACT: Final = Tolerance(1e-6, 1e-9)
#: By the name of the field, or of the tensor without ``explained_``; it holds for all inside the
#: field. In float32, OpenVINO and PyTorch, with AVX-512 and without, differ by 1e-7 in a
#: probability, by 1e-6 in a map and by 3e-6 of a score or peak. The rest is for decoders: another
#: version may give a pixel of a JPEG another level. Bfloat16 changes a map by 5e-3, so it fails.
TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "probability": Tolerance(0, 1e-4),
    "score": Tolerance(0.01, 1e-4),
    "peak": Tolerance(0.01, 1e-6),
    "map": Tolerance(0, 2e-3),
    "boxes": Tolerance(0, 5e-3),
    # In pixels of the photo.
    "box": Tolerance(0, 1),
}


class _Levels(NamedTuple):
    """By how many of 255 levels a pixel may differ: at most, and on average over the picture."""

    most: float
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
_JSON_TEXTS: Final = ("boxes", "error")


def differences(recorded: Reply, got: Reply) -> list[str]:
    """What has changed, one line for each place; an empty list where nothing has."""
    found = [
        f"{name}: {getattr(got, name)!r}, recorded {getattr(recorded, name)!r}"
        for name in ("status", "content_type")
        if getattr(got, name) != getattr(recorded, name)
    ]
    comparison = _Comparison(lists_may_grow=_is_description(recorded.body))
    return [*found, *comparison.of(recorded.body, got.body, "body", _EXACT)]


def type_name(value: Any) -> str:
    """The JSON type of a value; ``integer`` and ``number`` are two."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and {"name", "datatype", "shape", "data"} <= value.keys()


class _Comparison:
    """The differences between a recorded value and another one.

    Args:
        lists_may_grow: lists of texts, and lists of objects at their end, may have gained entries.
    """

    def __init__(self, lists_may_grow: bool) -> None:
        self.lists_may_grow = lists_may_grow

    def of(self, recorded: Any, got: Any, place: str, tolerance: Tolerance) -> Iterator[str]:
        if isinstance(recorded, dict) and recorded.keys() == {ANY}:
            if type_name(got) != recorded[ANY]:
                yield f"{place}: {type_name(got)}, accepted is any {recorded[ANY]}"
        elif type(recorded) is float:
            if type(got) not in (int, float) or not _close(recorded, got, tolerance):
                yield f"{place}: {_short(got)}, recorded {recorded!r} {tolerance}"
        elif type(recorded) is not type(got):
            yield f"{place}: {_short(got)}, recorded {_short(recorded)}"
        elif isinstance(recorded, dict):
            yield from self._objects(recorded, got, place, tolerance)
        elif isinstance(recorded, list) and recorded and all(map(is_tensor, recorded)):
            yield from self._tensors(recorded, got, place)
        elif isinstance(recorded, list):
            yield from self._lists(recorded, got, place, tolerance)
        elif recorded != got:
            yield f"{place}: {_short(got)}, recorded {_short(recorded)}"

    def _objects(
        self, recorded: dict[str, Any], got: dict[str, Any], place: str, tolerance: Tolerance
    ) -> Iterator[str]:
        is_error = {"code", "message"} <= recorded.keys()
        for key, value in recorded.items():
            inside = f"{place}.{key}"
            if key not in got:
                yield f"{inside}: missing, recorded {_short(value)}"
            elif key == "b64":
                yield from _picture_differences(value, got[key], inside)
            elif key == "message" and is_error:
                if not isinstance(got[key], str) or not got[key].strip():
                    yield f"{inside}: {_short(got[key])}, accepted is any text that is not empty"
            else:
                closer = TOLERANCES.get(key.removeprefix("explained_"), tolerance)
                yield from self.of(value, got[key], inside, closer)

    def _lists(
        self, recorded: list[Any], got: list[Any], place: str, tolerance: Tolerance
    ) -> Iterator[str]:
        if self.lists_may_grow:
            got = _without_new(recorded, got)
        if len(recorded) != len(got):
            yield f"{place}: {len(got)} entries, recorded {len(recorded)}"
            return
        for n, (one, other) in enumerate(zip(recorded, got, strict=True)):
            yield from self.of(one, other, f"{place}[{n}]", tolerance)

    def _tensors(self, recorded: list[Any], got: list[Any], place: str) -> Iterator[str]:
        try:
            named = _by_name(got)
        except (ValueError, KeyError, TypeError) as failure:
            yield f"{place}: no tensors with distinct names and readable data: {failure!r}"
        else:
            yield from self.of(_by_name(recorded), named, place, _EXACT)


def _is_description(body: Any) -> bool:
    return isinstance(body, list) and any("customizedMetadata" in one for one in body)


def _without_new(recorded: list[Any], got: list[Any]) -> list[Any]:
    """``got`` without the entries that a list of texts or of objects has gained."""
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
    """Tensors by name, with what the texts of their data hold in the place of these.

    An empty text, which fills a tensor up, stays as it is.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in tensors:
        name, data = one["name"], one["data"]
        if name in found:
            raise ValueError(f"two tensors {name!r}")
        if name in _PICTURES:
            data = [text and {"b64": text} for text in data]
        if name in _JSON_TEXTS:
            data = [text and json.loads(text) for text in data]
        found[name] = {**one, "data": data}
    return found


def _close(recorded: float, got: float, tolerance: Tolerance) -> bool:
    relative, absolute = tolerance
    return math.isclose(recorded, got, rel_tol=relative, abs_tol=absolute)


def _picture_differences(recorded: str, got: Any, place: str) -> Iterator[str]:
    """Of two pictures in base64."""
    try:
        (kind, before), (other_kind, now) = _decoded(recorded), _decoded(got)
    except (ValueError, TypeError) as failure:
        yield f"{place}: no picture in base64: {failure}"
        return
    if (kind, before.shape) != (other_kind, now.shape):
        yield f"{place}: {other_kind} of shape {now.shape}, recorded {kind} of {before.shape}"
        return
    levels = np.abs(before.astype(np.int32) - now)
    most, mean = LEVELS[kind]
    if levels.max() > most or levels.mean() > mean:
        yield (
            f"{place}: pixels differ by {levels.max()} levels at most, {levels.mean():.3f} on "
            f"average; accepted are {most} and {mean}"
        )


def _decoded(text: str) -> tuple[str, NDArray[np.uint8]]:
    """A picture's media type by its first bytes, and its pixels as they are stored.

    Raises:
        ValueError: it is no base64, or no picture.
    """
    data = base64.b64decode(text, validate=True)
    kinds = [kind for magic, kind in _MAGIC.items() if data.startswith(magic)]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if kinds else None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes that cannot be decoded")
    return kinds[0], pixels


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}.."
