"""The names of the classes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from camserve.errors import SettingsError

_ACCEPTED: Final = (
    'accepted are a JSON list of names, {"0": "name", ..}, or {"0": ["wnid", "name"], ..}'
)
#: How much of an unknown name is compared with the known ones, which takes time: more than the
#: longest label has.
_MAX_COMPARED: Final = 100


class Labels:
    """The names of the classes, by index.

    Args:
        names: of all classes. Several classes may have the same name, as "crane" in some lists of
            ImageNet's classes, which is both the bird and the machine.
        wnids: their WordNet IDs, as ``n02123045``, or other IDs; empty where a class has none. None
            where no class has one.

    Attributes:
        names: the argument.
        wnids: the argument; an empty text for each class where none has one.
        indices: for each name the indices of its classes, in ascending order.
        wnid_indices: the same for each ID.
    """

    def __init__(self, names: Sequence[str], wnids: Sequence[str] | None = None) -> None:
        self.names = tuple(names)
        self.wnids = tuple(wnids) if wnids is not None else ("",) * len(self.names)
        self.indices = _indices(self.names)
        self.wnid_indices = _indices(self.wnids)
        self.wnid_indices.pop("", None)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def nearest(self, name: str) -> str:
        """The names and IDs that an unknown one may be meant for, for a message; may be empty."""
        known = [*self.indices, *self.wnid_indices]
        return " or ".join(map(repr, difflib.get_close_matches(name[:_MAX_COMPARED], known, n=3)))

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read an archive's labels: a JSON list of names, or TorchServe's index_to_name.json.

        Raises:
            SettingsError: the file is missing, empty, or has another format.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except OSError as failure:
            raise SettingsError(f"labels {path.name}: {failure.strerror}") from None
        except (ValueError, RecursionError) as failure:
            raise SettingsError(f"labels {path.name}: {failure}; {_ACCEPTED}") from None
        if isinstance(content, dict):
            content = _sorted_by_index(content, path.name)
        entries = content if isinstance(content, list) else [None]
        names: list[Any] = [
            entry[-1] if isinstance(entry, list) and entry else entry for entry in entries
        ]
        if not all(isinstance(name, str) for name in names):
            raise SettingsError(f"labels {path.name}: {_ACCEPTED}")
        if not names:
            raise SettingsError(f"labels {path.name}: no label in it; {_ACCEPTED}")
        return cls(names, [_wnid(entry) for entry in entries])

    def to_json(self) -> list[str] | dict[str, str | list[str]]:
        """What an archive keeps: a list of names, with IDs where they are known.

        Releases that know no IDs read both.
        """
        if not self.wnid_indices:
            return list(self.names)
        return {
            str(index): [wnid, name] if wnid else name
            for index, (wnid, name) in enumerate(zip(self.wnids, self.names, strict=True))
        }


def _indices(texts: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        found.setdefault(text, []).append(index)
    return found


def _wnid(entry: Any) -> str:
    """The ID in ``[wnid, name]``; empty in other forms of a label."""
    match entry:
        case [str(wnid), _]:
            return wnid
        case _:
            return ""


def _sorted_by_index(content: Mapping[str, Any], file_name: str) -> list[Any]:
    """The labels of TorchServe's format: index -> label, or index -> [wnid, label]."""
    labels = []
    for index in map(str, range(len(content))):
        if index not in content:
            raise SettingsError(f"labels {file_name}: the keys must be 0 to {len(content) - 1}")
        labels.append(content[index])
    return labels
