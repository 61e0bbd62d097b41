"""The provenance records of explanations: found in files, and compared with those made anew."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from camserve_cli.errors import CommandError

#: The version of records that this command reads.
RECORD_VERSION: Final = 1
#: Options that are not asked for again.
_NOT_OF_THE_MAP: Final = ("explain_when", "faithfulness")
#: A condition that always holds: the operator's own may not.
_ALWAYS: Final = "probability>=0"
#: The largest tolerance of any precision, whatever a record says of its own.
_LARGEST_TOLERANCE: Final = 0.15

Record = Mapping[str, Any]


class RecordError(CommandError):
    """A file holds no record."""


def read_records(path: Path) -> list[Record]:
    """Every record in a file: one itself, or those in explanations, replies or lines of JSON.

    Raises:
        RecordError: the file cannot be read, or holds none of the version that is known.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is no text"
        raise RecordError(f"{path}: {reason}") from None
    try:
        values = [_parse(text)]
    except (ValueError, RecursionError):
        try:
            values = [_parse(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise RecordError(f"{path}: no JSON; {_ACCEPTED}") from None
    try:
        records = [record for value in values for record in _records_in(value)]
    except (ValueError, TypeError, RecursionError):
        raise RecordError(f"{path}: no record in it; {_ACCEPTED}") from None
    if not records:
        raise RecordError(f"{path}: no record in it; {_ACCEPTED}")
    for record in records:
        if record["record_version"] != RECORD_VERSION:
            raise RecordError(
                f"{path}: a record of version {record['record_version']!r:.80}; accepted: version "
                f"{RECORD_VERSION}"
            )
        _check(path, record)
    return records


_ACCEPTED: Final = (
    "accepted: a record, or a reply or JSON lines with records (camserve explain --option "
    "record=true writes them)"
)


def request_options(record: Record) -> dict[str, Any]:
    """The options that ask for a record's explanation again, by its class."""
    target = str(record["prediction"]["class_id"])
    if "against" in record:
        target += f"-{record['against']['class_id']}"
    options = {
        name: value
        for name, value in record["options"].items()
        if value is not None and name not in _NOT_OF_THE_MAP
    }
    return {
        **options,
        "target": target,
        "explain": True,
        "explain_when": _ALWAYS,
        "outputs": ["map"],
        "record": True,
    }


def differences(record: Record, anew: Record) -> list[str]:
    """In what an explanation differs from the one that was made anew; empty where it is the same.

    Values are compared within the tolerance of the coarser of both precisions.

    Args:
        record: of the explanation.
        anew: of the one that was made anew.
    """
    found = [
        f"{what}: the record has {short(old)}, now it is {short(new)}"
        for what, old, new in (
            ("the photo's SHA-256", record["photo"]["sha256"], anew["photo"]["sha256"]),
            (
                "the weights' SHA-256",
                record["model"]["weights_sha256"],
                anew["model"]["weights_sha256"],
            ),
            ("the network", record["model"]["arch"], anew["model"]["arch"]),
            ("the task", record["model"]["task"], anew["model"]["task"]),
            ("the preprocessing", record["preprocess"], anew["preprocess"]),
            ("what the network sees", record["photo"]["seen"], anew["photo"]["seen"]),
            ("the photo's size", _size(record), _size(anew)),
            ("the network's output", record["model"]["output"], anew["model"]["output"]),
            ("the class's name", record["prediction"]["label"], anew["prediction"]["label"]),
            ("the other class's name", _other_label(record), _other_label(anew)),
            ("the method", record["method"], anew["method"]),
            ("the layers", record["layers"], anew["layers"]),
            ("evidence", record["evidence"], anew["evidence"]),
            ("the map's shape", record["map"]["shape"], anew["map"]["shape"]),
        )
        if old != new
    ]
    tolerance = min(
        _LARGEST_TOLERANCE, max(one["precision"]["tolerance"] for one in (record, anew))
    )
    for what, value_of in _FIGURES.items():
        gap = _largest_gap(value_of(record), value_of(anew))
        # Not "gap > tolerance", which is false for NaN.
        if not gap <= tolerance:
            found.append(f"{what}: it differs by {gap:.3g}, and {tolerance:g} is within rounding")
    return found


def prediction_difference(record: Record, best: Mapping[str, Any]) -> list[str]:
    """In what the predicted class differs from that of a record that says so; of one class of many.

    Args:
        record: of the explanation.
        best: the first prediction now.
    """
    explained = record["prediction"]
    if (
        record["target_kind"] != "predicted"
        or record["model"]["task"] == "multilabel"
        or explained["class_id"] == best["class_id"]
    ):
        return []
    return [
        f"the predicted class: the record has {short(explained['label'])}, now it is "
        f"{short(best['label'])}"
    ]


def largest_map_gap(record: Record, anew: Record) -> float:
    """The largest difference of a value of both maps, in [0, 1]."""
    return _largest_gap(_map(record), _map(anew))


def short(value: Any) -> str:
    """A value in a message."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}.."


def _size(record: Record) -> list[int]:
    return [record["photo"]["width"], record["photo"]["height"]]


def _other_label(record: Record) -> str:
    """The name of the class that a contrast is against; empty where there is none."""
    return str(record.get("against", {}).get("label", ""))


def _map(record: Record) -> Sequence[float]:
    values: Sequence[float] = record["map"]["values"]
    return values


def _shares(record: Record) -> Sequence[float]:
    """The statistics of the map that are in [0, 1]."""
    figures = [record["map_statistics"][name] for name in ("gini", "border", "corners")]
    return [figure for figure in figures if figure is not None]


def _relative(value: float) -> float:
    """A value whose difference is compared in parts of the value, where that is above 1."""
    return math.copysign(math.log1p(abs(value)), value)


#: What is compared within a tolerance.
_FIGURES: Final[Mapping[str, Callable[[Record], Sequence[float]]]] = {
    "the probability": lambda record: [record["prediction"]["probability"]],
    "the score": lambda record: [_relative(record["prediction"]["score"])],
    "the peak": lambda record: [_relative(record["peak"])],
    "the map": _map,
    "the map's statistics": _shares,
}


def _largest_gap(old: Sequence[float], new: Sequence[float]) -> float:
    """Zero where the lengths differ, as shapes then do."""
    if len(old) != len(new):
        return 0.0
    gaps = [abs(one - other) for one, other in zip(old, new, strict=True)]
    return next((gap for gap in gaps if math.isnan(gap)), max(gaps, default=0.0))


def _parse(text: str) -> Any:
    """JSON, which has no NaN and no infinity.

    Raises:
        ValueError, RecursionError: it is none.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def _records_in(value: Any) -> Iterator[Record]:
    """The records in a value of JSON; those of KServe v2 are texts in a tensor."""
    if isinstance(value, list):
        for item in value:
            yield from _records_in(item)
    elif isinstance(value, dict):
        if "record_version" in value:
            yield value
            return
        if value.get("name") == "record" and isinstance(value.get("data"), list):
            value = {"data": [_parse(text) for text in value["data"] if text]}
        for item in value.values():
            yield from _records_in(item)


def _check(path: Path, record: Record) -> None:
    """Check that what is compared is there.

    Raises:
        RecordError: something is missing, or of another kind.
    """
    try:
        differences(record, record)
        request_options(record)
        prediction_difference(record, record["prediction"])
        classes = [record["prediction"], *([record["against"]] if "against" in record else [])]
        sizes = [*record["map"]["shape"]]
        fits = (
            len(record["map"]["values"]) == sizes[0] * sizes[1]
            and isinstance(record["model"]["name"], str)
            and all(type(one["class_id"]) is int for one in classes)
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        fits = False
    if not fits:
        raise RecordError(f"{path}: a record of which something is missing; {_ACCEPTED}")
