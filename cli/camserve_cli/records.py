"""The provenance records of explanations: found in files, and compared with those made anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from camserve_cli.errors import CommandError

#: The version of records that this command reads.
RECORD_VERSION: Final = 1
#: Options that say what is shown of an explanation, or whether there is one.
_NOT_OF_THE_MAP: Final = ("explain_when", "faithfulness")

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
        values = [json.loads(text)]
    except (ValueError, RecursionError):
        try:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise RecordError(f"{path}: no JSON; {_ACCEPTED}") from None
    records = [record for value in values for record in _records_in(value)]
    if not records:
        raise RecordError(f"{path}: no record in it; {_ACCEPTED}")
    for record in records:
        if record["record_version"] != RECORD_VERSION:
            raise RecordError(
                f"{path}: a record of version {record['record_version']}; accepted: version "
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
    return {**options, "target": target, "explain": True, "outputs": ["map"], "record": True}


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
            ("the class's name", record["prediction"]["label"], anew["prediction"]["label"]),
            ("the method", record["method"], anew["method"]),
            ("the layers", record["layers"], anew["layers"]),
            ("evidence", record["evidence"], anew["evidence"]),
            ("the map's shape", record["map"]["shape"], anew["map"]["shape"]),
        )
        if old != new
    ]
    tolerance = max(one["precision"]["tolerance"] for one in (record, anew))
    for what, value_of in (("the probability", _probability), ("the map", _map)):
        gap = _largest_gap(value_of(record), value_of(anew))
        if gap > tolerance:
            found.append(f"{what}: it differs by {gap:.3g}, and {tolerance:g} is within rounding")
    return found


def largest_map_gap(record: Record, anew: Record) -> float:
    """The largest difference of a value of both maps, in [0, 1]."""
    return _largest_gap(_map(record), _map(anew))


def short(value: Any) -> str:
    """A value in a message."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}.."


def _probability(record: Record) -> Sequence[float]:
    return [record["prediction"]["probability"]]


def _map(record: Record) -> Sequence[float]:
    values: Sequence[float] = record["map"]["values"]
    return values


def _largest_gap(old: Sequence[float], new: Sequence[float]) -> float:
    """Zero where the lengths differ, as shapes then do."""
    if len(old) != len(new):
        return 0.0
    return max((abs(one - other) for one, other in zip(old, new, strict=True)), default=0.0)


def _records_in(value: Any) -> Iterator[Record]:
    if isinstance(value, list):
        for item in value:
            yield from _records_in(item)
    elif isinstance(value, dict):
        if "record_version" in value:
            yield value
            return
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
        sizes = [*record["map"]["shape"]]
        fits = len(record["map"]["values"]) == sizes[0] * sizes[1]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        fits = False
    if not fits:
        raise RecordError(f"{path}: a record of which something is missing; {_ACCEPTED}")
