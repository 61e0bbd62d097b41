"""Names that stand in labels, boxes and folders -> the model's classes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from camserve_cli.engines.engine import ModelDescription


class LabelNames:
    """The names of a model's classes: labels, WordNet IDs and indices.

    A label may stand in another case. Where two classes have one label, it means the first.

    Args:
        description: of the model.
    """

    def __init__(self, description: ModelDescription) -> None:
        self.classes: Sequence[str] = description.classes
        self._exact: dict[str, int] = {}
        self._any_case: dict[str, int] = {}
        for index, label in enumerate(description.classes):
            self._exact.setdefault(label, index)
            self._any_case.setdefault(label.casefold(), index)
        for index, wnid in enumerate(description.wnids):
            if wnid:
                self._exact.setdefault(wnid, index)

    def find(self, name: str) -> int | None:
        """The index of the class that a name means; None where it means none."""
        name = name.strip()
        found = self._exact.get(name)
        if found is None:
            # A folder's name has "_" where a label has a space, as "tiger_cat".
            for spelled in (name, name.replace("_", " ")):
                found = self._any_case.get(spelled.casefold())
                if found is not None:
                    return found
            # A longer number is no index, and one of thousands of digits no number to Python.
            is_number = name.isascii() and name.isdecimal() and len(name) < 10
            if is_number and int(name) < len(self.classes):
                return int(name)
        return found

    def nearest(self, name: str) -> str:
        """What an error says of a name that is no class's."""
        close = get_close_matches(name, self.classes, 3, 0.6)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        shown = ", ".join(map(repr, self.classes[:3]))
        return f"accepted: one of the model's {len(self.classes)} labels, as {shown}"
