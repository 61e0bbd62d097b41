"""The names of the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from camserve.errors import SettingsError

_ACCEPTED: Final = 'accepted are a JSON list of names, or {"0": "name", ..}'


class Labels:
    """The names of the classes, by index.

    Args:
        names: of all classes. Several classes may have the same name, as "crane" in some lists of
            ImageNet's classes, which is both the bird and the machine.

    Attributes:
        names: the argument.
        indices: for each name the indices of its classes, in ascending order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.indices: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self.indices.setdefault(name, []).append(index)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read a JSON list of names, or TorchServe's index_to_name.json.

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
        if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
            raise SettingsError(f"labels {path.name}: {_ACCEPTED}")
        if not content:
            raise SettingsError(f"labels {path.name}: no label in it")
        return cls(tuple(content))


def _sorted_by_index(content: Mapping[str, Any], file_name: str) -> list[Any]:
    """Labels from TorchServe's format: index -> label, or index -> [.., label] as for ImageNet."""
    labels = []
    for index in map(str, range(len(content))):
        if index not in content:
            raise SettingsError(f"labels {file_name}: the keys must be 0 to {len(content) - 1}")
        label = content[index]
        labels.append(label[-1] if isinstance(label, list) and label else label)
    return labels
