"""Names that stand in labels, boxes and folders -> the model's classes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from camserve_cli.engines.engine import ModelDescription


class LabelNames:
    """The names of a model's classes: labels, WordNet IDs and indices.

    A label may stand in another case. One that several classes have means none of them, as "crane"
    of ImageNet, which is a bird and a machine.

    Args:
        description: of the model.
    """

    def __init__(self, description: ModelDescription) -> None:
        self.classes: Sequence[str] = description.classes
        self._exact: dict[str, list[int]] = {}
        self._any_case: dict[str, list[int]] = {}
        for index, label in enumerate(description.classes):
            self._exact.setdefault(label, []).append(index)
            self._any_case.setdefault(label.casefold(), []).append(index)
        for index, wnid in enumerate(description.wnids):
            if wnid:
                self._exact.setdefault(wnid, []).append(index)

    def find(self, name: str) -> int | None:
        """The index of the class that a name means; None where it means none."""
        meant = self._meant(name)
        return meant[0] if len(meant) == 1 else None

    def problem(self, name: str) -> str:
        """What an error says of a name that is not one class's."""
        if meant := self._meant(name):
            return (
                f"{name!r} is the label of the classes {', '.join(map(str, meant))}; accepted: "
                "their indices"
            )
        return f"the model has no label {name!r}; {self._nearest(name)}"

    def _meant(self, name: str) -> Sequence[int]:
        """The classes that a name may mean."""
        name = name.strip()
        if name in self._exact:
            return self._exact[name]
        # A folder's name has "_" where a label has a space, as "tiger_cat".
        for spelled in (name, name.replace("_", " ")):
            if spelled.casefold() in self._any_case:
                return self._any_case[spelled.casefold()]
        # A longer number is no index, and one of thousands of digits no number to Python.
        is_number = name.isascii() and name.isdecimal() and len(name) < 10
        return [int(name)] if is_number and int(name) < len(self.classes) else []

    def _nearest(self, name: str) -> str:
        close = get_close_matches(name, self.classes, 3, 0.6)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        shown = ", ".join(map(repr, self.classes[:3]))
        return f"accepted: one of the model's {len(self.classes)} labels, as {shown}"
