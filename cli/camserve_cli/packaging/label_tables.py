"""Reads labels from CSV, and from text with one label a line."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Final

from camserve.errors import short_repr
from camserve.networks import Labels

_DELIMITERS: Final = (",", ";", "\t", "|")
#: The header of a column, by what it holds; of several the first.
_INDEX_HEADERS: Final = (
    "index", "idx", "class_index", "class_idx", "class_id", "classid", "label_id", "label_index",
    "label_idx", "id", "class", "label", "target", "number", "",
)  # fmt: skip
#: Headers of columns that hold nothing but indices.
_CERTAIN_INDEX: Final = (
    "index", "idx", "class_index", "class_idx", "label_index", "label_idx",
)  # fmt: skip
_NAME_HEADERS: Final = (
    "name", "class_name", "classname", "label_name", "display_name", "label", "class", "category",
    "description", "title", "names", "labels", "classes", "species",
)  # fmt: skip
_WNID_HEADERS: Final = ("wnid", "synset", "synset_id", "wordnet_id", "wordnetid")
_WNID: Final = re.compile(r"n\d{8}")


#: What is accepted where indices have gaps, or stand there twice.
EACH_INDEX: Final = "accepted: each index from 0 once, without gaps"
_NAMED: Final = 3


def is_wnid(text: str) -> bool:
    """Whether a text is a WordNet ID, as n02123045."""
    return _WNID.fullmatch(text) is not None


class LabelTableError(Exception):
    """Lines or columns that cannot be read as labels.

    Attributes:
        accepted: what is, in a clause; the message says what is wrong and where.
    """

    def __init__(self, message: str, accepted: str) -> None:
        super().__init__(message)
        self.accepted = accepted


def read_table(text: str) -> tuple[Labels, list[str]]:
    """The labels of a CSV, with or without a header, or of text with one label a line.

    A CSV has columns of indices or names. Its delimiter is found: a comma, a semicolon, a tab or a
    bar. Text may have a class's index or WordNet ID before each name.

    Returns:
        The labels, and notes on lines and columns that are not among them.

    Raises:
        LabelTableError: rows differ in their columns, or indices have gaps.
    """
    # Blank lines at the end are of editors. One between is a class without a name.
    lines = text.rstrip().splitlines()
    for delimiter in _DELIMITERS:
        rows = _rows(lines, delimiter)
        if rows and (found := _from_rows(rows)):
            return found
    for delimiter in _DELIMITERS:
        _check_regular(lines, delimiter)
    if all(re.match(r"\s*\".*\"\s*$", line) for line in lines):
        lines = [line.strip()[1:-1].replace('""', '"') for line in lines]
    return _from_lines([line.strip() for line in lines])


def _rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The cells of a CSV; none where its rows have no columns, or not the same number."""
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return []
    widths = {len(row) for row in rows}
    if len(widths) != 1 or widths == {1}:
        return []
    return [[cell.strip() for cell in row] for row in rows]


def _from_rows(rows: list[list[str]]) -> tuple[Labels, list[str]] | None:
    """The labels of a CSV's rows; None where they are text that has commas."""
    header = [cell.casefold().replace(" ", "_").replace("-", "_") for cell in rows[0]]
    # A header names a column, and holds no number.
    known = {*_NAME_HEADERS, *_WNID_HEADERS, *_INDEX_HEADERS[:-1]}
    if len(rows) > 1 and known & {*header} and not any(cell.isdecimal() for cell in rows[0]):
        return _with_header(rows[0], header, rows[1:])
    index = next((n for n in (0, len(header) - 1) if _all_numbers(rows, n)), None)
    if index is None:
        return None
    rest = [n for n in range(len(header)) if n != index]
    wnids = next((n for n in rest if all(_WNID.fullmatch(row[n]) for row in rows)), None)
    columns = [n for n in rest if n != wnids]
    if len(columns) != 1:
        raise LabelTableError(
            f"line 1 has {len(header)} columns, and no header says which has the names",
            "accepted: a header, as index,name; a name that has a comma in quotes",
        )
    return _labels(rows, index, columns[0], wnids, first_line=1), []


def _with_header(
    titles: Sequence[str], header: Sequence[str], body: Sequence[Sequence[str]]
) -> tuple[Labels, list[str]]:
    """The labels of a CSV with a header, ``titles`` as written and ``header`` in lower case."""
    for name in _CERTAIN_INDEX:
        if name in header and not _all_numbers(body, header.index(name)):
            raise LabelTableError(
                f"the column {titles[header.index(name)]!r} has other values than whole numbers",
                EACH_INDEX,
            )
    numbers = [n for n in range(len(header)) if _all_numbers(body, n)]
    index = _column(
        [name if n in numbers else "-" for n, name in enumerate(header)], _INDEX_HEADERS
    )
    wnids = _column(header, _WNID_HEADERS)
    names = _column(
        ["-" if n in (index, wnids) else name for n, name in enumerate(header)], _NAME_HEADERS
    )
    if names is None:
        raise LabelTableError(
            f"the header {', '.join(titles)} has no column of names",
            "accepted: a header, as index,name",
        )
    unread = [title for n, title in enumerate(titles) if n not in (index, wnids, names)]
    notes = [f"the column of names is {titles[names]!r}; not read: {', '.join(unread)}"]
    return _labels(body, index, names, wnids, first_line=2), notes if unread else []


def _column(header: Sequence[str], known: Sequence[str]) -> int | None:
    """The column with the first of several headers."""
    return next((header.index(name) for name in known if name in header), None)


def _all_numbers(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(re.fullmatch(r"\d{1,9}", row[column]) for row in rows)


def _labels(
    rows: Sequence[Sequence[str]],
    index: int | None,
    names: int,
    wnids: int | None,
    first_line: int,
) -> Labels:
    """The labels of a CSV's columns, in the order of the indices."""
    if index is not None:
        lines: dict[int, int] = {}
        for line, row in enumerate(rows, first_line):
            number = int(row[index])
            if number in lines:
                raise LabelTableError(
                    f"index {number} is given twice, in the lines {lines[number]} and {line}",
                    EACH_INDEX,
                )
            lines[number] = line
        if gap := index_gap(list(lines)):
            raise LabelTableError(gap, EACH_INDEX)
        rows = sorted(rows, key=lambda row: int(row[index]))
    return Labels(
        [row[names] for row in rows], [row[wnids] if wnids is not None else "" for row in rows]
    )


def index_gap(indices: Sequence[int]) -> str:
    """What is wrong with indices that are not 0 to n - 1; empty where nothing is."""
    missing = sorted(set(range(len(indices))) - set(indices))
    if not missing:
        return ""
    shown = ", ".join(map(str, missing[:_NAMED]))
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"the indices of its {len(indices)} labels are {min(indices)} to {max(indices)}, and "
        f"{shown}{more} {'is' if len(missing) == 1 else 'are'} missing; the indices must be 0 to "
        f"{len(indices) - 1}"
    )


def _check_regular(lines: Sequence[str], delimiter: str) -> None:
    """Refuse a CSV with an index in each row, whose rows differ in their number of columns."""
    if not all(re.match(rf"\s*\d{{1,9}}\s*{re.escape(delimiter)}", line) for line in lines):
        return
    counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
    for line, count in enumerate(counts, 1):
        if count != counts[0]:
            raise LabelTableError(
                f"line {line} has {count} columns, {short_repr(lines[line - 1])}, and line 1 has "
                f"{counts[0]}",
                f"accepted: as many in each line; a name that has {delimiter!r} in quotes",
            )


def _from_lines(lines: list[str]) -> tuple[Labels, list[str]]:
    """The labels of text with one a line; before a name may be its index or WordNet ID."""
    for line, label in enumerate(lines, 1):
        if not label:
            raise LabelTableError(
                f"line {line} is empty: class {line - 1} has an empty name",
                "accepted: a name in each line",
            )
    if lines[0].casefold() in _NAME_HEADERS and len(lines) > 1:
        # A CSV of one column.
        labels, notes = _from_lines(lines[1:])
        return labels, [f"its first line, {lines[0]!r}, is read as a header, not a name", *notes]
    numbered = [re.fullmatch(r"(\d{1,9})\s*[:=\s]\s*(\S.*)", line) for line in lines]
    found = sorted((int(match[1]), match[2]) for match in numbered if match)
    indices = [number for number, _ in found]
    if indices == list(range(len(lines))):
        return Labels([name for _, name in found]), []
    if len(lines) > 1 and indices == list(range(1, len(lines) + 1)):
        raise LabelTableError(
            f"each line begins with a number, from 1 to {len(lines)}",
            "accepted: indices from 0; names that begin with a number as a JSON list",
        )
    if all(re.match(r"[-*]\s+\S", line) for line in lines):
        # A list of YAML or Markdown.
        return _from_lines([line[1:].lstrip() for line in lines])
    if len(lines) > 1 and all(line.endswith(",") for line in lines[:-1]):
        return _from_lines([line.removesuffix(",").rstrip() for line in lines])
    synsets = [match for line in lines if (match := re.fullmatch(r"(n\d{8})\s+(\S.*)", line))]
    if len(synsets) == len(lines):
        return Labels([match[2] for match in synsets], [match[1] for match in synsets]), []
    return Labels(lines), []
