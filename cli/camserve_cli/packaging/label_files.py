"""Reads the classes' names from the files that people have: JSON, CSV or text.

The format is decided by the content, never by the suffix.
"""

from __future__ import annotations

import ast
import codecs
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NoReturn

from camserve.errors import short_repr
from camserve.networks import Labels
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.label_tables import (
    EACH_INDEX,
    LabelTableError,
    index_gap,
    is_wnid,
    read_table,
)

ACCEPTED: Final = (
    'accepted: a JSON list of names, {"0": "name", ..}, {"0": ["wnid", "name"], ..}, '
    '{"name": 0, ..}, id2label as in a config.json, a CSV with columns index and name, or text '
    "with one name a line"
)
#: Keys of a JSON object under which labels lie: of Hugging Face's config.json, of torchvision's
#: data sets, of timm's config.json, and of lists of several tools.
_NESTED: Final = (
    "id2label", "label2id", "class_to_idx", "idx_to_class", "label_names", "class_names", "names",
    "classes", "labels", "categories",
)  # fmt: skip
#: Byte order marks; UTF-32's begins with UTF-16's.
_MARKS: Final[Sequence[tuple[bytes, str]]] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: How many are named in a message.
_NAMED: Final = 3
_MAX_NAME: Final = 1000


def read_labels(path: Path) -> tuple[Labels, list[str]]:
    """The names of the classes, and their WordNet IDs where the file has them.

    Returns:
        The labels, and what a person should know of how they were read: names that several classes
        have, columns that were not read.

    Raises:
        PackageError: the file cannot be read, is of no format that is known, or has indices with
            gaps or a class without a name; the message says where.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        _refuse(path, "it is no file but a pipe or a device")
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise PackageError(f"labels {path}: {failure.strerror}; {ACCEPTED}") from None
    text = _decode(path, data)
    start = text.lstrip()
    notes: list[str] = []
    if not start:
        _refuse(path, "no label in it")
    if re.match(r"<(!doctype|html|\?xml|head)", start, re.I):
        _refuse(path, f"it is a web page or XML, which begins with {short_repr(start)}")
    if start.startswith("version https://git-lfs"):
        _refuse(path, "it is a Git LFS pointer, not the labels; run: git lfs pull")
    if start[0] in "{[":
        labels = _from_json(path, _parse(path, start))
    elif _is_json_value(start):
        _refuse(path, f"it is JSON of another kind, {short_repr(start)}")
    else:
        try:
            labels, notes = read_table(text)
        except LabelTableError as failure:
            _refuse(path, str(failure), failure.accepted)
    _check_names(path, labels)
    if all(re.fullmatch(r"LABEL_\d+", name) for name in labels.names):
        notes.append("the names are LABEL_0 and so on, which stand in for names that are missing")
    notes += _duplicates(labels)
    return labels, [f"labels {path}: {note}" for note in notes]


def differing_label(config: Mapping[Any, Any]) -> str | None:
    """The first name of which ``id2label`` and ``label2id`` of a config.json say different indices.

    Names that several classes have stand in label2id once, and are not compared. None where both
    agree, or where one of them is missing or empty.
    """
    names, ids = config.get("id2label"), config.get("label2id")
    if not isinstance(names, dict) or not isinstance(ids, dict) or not ids:
        return None
    counts = Counter(name for name in names.values() if isinstance(name, str))
    for index, name in names.items():
        if isinstance(name, str) and counts[name] == 1 and str(ids.get(name)) != str(index):
            return name
    return None


def half_character(name: str) -> str:
    """What is wrong with a name that has a half of a character, which no file can hold; or empty.

    JSON has characters beyond U+FFFF in two halves (surrogates), of which one may be lost.
    """
    found = re.search(r"[\ud800-\udfff]", name)
    if not found:
        return ""
    return f"{found[0]!a}, a half of a character that stands for nothing alone"


def _duplicates(labels: Labels) -> list[str]:
    """A note on names that several classes have."""
    several = {name: indices for name, indices in labels.indices.items() if len(indices) > 1}
    if not several:
        return []
    shown = "; ".join(
        f"{short_repr(name)} is of the classes {', '.join(map(str, indices[:5]))}"
        + (f" and {len(indices) - 5} more" if len(indices) > 5 else "")
        for name, indices in list(several.items())[:_NAMED]
    )
    more = f"; and {len(several) - _NAMED} more names" if len(several) > _NAMED else ""
    return [
        f"several classes have the same name: {shown}{more}; a request names such a class by its "
        "index"
    ]


def _decode(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as failure:
        line = data[: failure.start].count(b"\n") + 1
        _refuse(
            path,
            f"it is not {encoding.upper().removesuffix('-SIG')}: byte 0x{data[failure.start]:02x} "
            f"in line {line} is of another encoding, or the file is no text",
            "accepted: UTF-8, or UTF-16 with its byte order mark (iconv -f ENCODING -t UTF-8)",
        )
    # A BOM in the middle is of files that were joined.
    text = text.removeprefix("\ufeff")
    if found := re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        line = text[: found.start()].count("\n") + 1
        _refuse(
            path,
            f"line {line} has the control character {found[0]!r}",
            "accepted: UTF-8, or UTF-16 with its byte order mark (iconv -f ENCODING -t UTF-8)",
        )
    return text


def _parse(path: Path, text: str) -> Any:
    """A JSON value, or a Python one as print writes it."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(path, pairs))
    except RecursionError:
        _refuse(path, "it is JSON that is nested too deep")
    except ValueError as failure:
        reason = str(failure)
    value = _python_literal(path, text)
    if not isinstance(value, dict | list):
        _refuse(path, f"it begins as JSON does but is none: {reason}")
    return value


def _python_literal(path: Path, text: str) -> Any:
    """A Python dictionary or list as print writes it; None where the text is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = ast.literal_eval(tree)
        tokens = [one.type for one in tokenize.generate_tokens(io.StringIO(text).readline)]
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError, tokenize.TokenError):
        return None
    # Python joins two texts with no comma between, and keeps the last of two equal keys.
    words = [kind for kind in tokens if kind not in (tokenize.NL, tokenize.COMMENT)]
    if (tokenize.STRING, tokenize.STRING) in pairwise(words):
        return None
    if isinstance(tree.body, ast.Dict):
        keys = [ast.literal_eval(key) for key in tree.body.keys if key is not None]
        _object(path, [(str(key), None) for key in keys])
    return value


def _object(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; json would keep the last of two equal keys without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse(path, f"the key {short_repr(twice)} is given twice", EACH_INDEX)
    return found


def _is_json_value(text: str) -> bool:
    """Whether a text is a number, a quoted text, null or a boolean."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _from_json(path: Path, content: Any) -> Labels:
    """Labels of a parsed list or object."""
    if isinstance(content, Mapping):
        content = _unwrapped(path, content)
    if isinstance(content, Mapping):
        content = _by_index(path, content)
    if not content:
        _refuse(path, "no label in it")
    names, wnids = [], []
    for index, entry in enumerate(content):
        match entry:
            case str(name):
                wnid = ""
            case [str(name)]:
                wnid = ""
            case [str(name), str(wnid)] if is_wnid(wnid) and not is_wnid(name):
                pass
            case [str(wnid), str(name)]:
                pass
            case [*_, str(name)]:
                wnid = ""
            case _:
                _refuse(path, f"class {index} is {short_repr(entry)}, which is no name")
        names.append(name)
        wnids.append(wnid)
    return Labels(names, wnids)


def _unwrapped(path: Path, content: Mapping[Any, Any]) -> Any:
    """The labels in an object that has them under a key, as Hugging Face's config.json."""
    if (name := differing_label(content)) is not None:
        _refuse(
            path,
            f"id2label and label2id differ, in {short_repr(name)}",
            "accepted: both alike, or id2label alone",
        )
    for key in _NESTED:
        value = content.get(key)
        if isinstance(value, dict | list) and (
            # A class may have such a name, in {"names": 0, ..} a number and in {"0": ..} no key.
            not all(isinstance(other, int) for other in content.values())
        ):
            return value
    if "model_type" in content or "architectures" in content:
        _refuse(path, "it is a config.json without id2label")
    return content


def _by_index(path: Path, content: Mapping[Any, Any]) -> list[Any]:
    """The labels of index -> label, or of label -> index, in the order of the indices."""
    by_index: dict[int, Any] = {}
    if all(type(value) is int for value in content.values()):
        pairs = [(index, str(name)) for name, index in content.items()]
    elif all(re.fullmatch(r"\s*\d{1,9}\s*", str(key)) for key in content):
        pairs = [(int(key), label) for key, label in content.items()]
    else:
        key = next(iter(content))
        _refuse(path, f"{short_repr(key)}: {short_repr(content[key])} is no index and name")
    for index, label in pairs:
        if index in by_index:
            _refuse(
                path,
                f"index {index} is given twice, to {short_repr(by_index[index])} and "
                f"{short_repr(label)}",
                EACH_INDEX,
            )
        by_index[index] = label
    if gap := index_gap(list(by_index)):
        _refuse(path, gap, EACH_INDEX)
    return [by_index[index] for index in range(len(by_index))]


def _check_names(path: Path, labels: Labels) -> None:
    for index, name in enumerate(labels.names):
        if not name.strip():
            _refuse(path, f"class {index} has an empty name", "accepted: a name for each class")
        if half := half_character(name):
            _refuse(
                path,
                f"class {index} has a name with {half}",
                "accepted: whole characters, as \\ud83d\\ude00 or the character itself",
            )
        if len(name) > _MAX_NAME:
            _refuse(
                path,
                f"class {index} has a name of {len(name)} characters",
                f"accepted: up to {_MAX_NAME}",
            )


def _refuse(path: Path, what: str, cure: str = ACCEPTED) -> NoReturn:
    raise PackageError(f"labels {path}: {what}; {cure}")
