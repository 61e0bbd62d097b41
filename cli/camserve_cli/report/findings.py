"""A finding: one thing that a report says of a model, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

#: What a finding is about.
FindingKind = Literal[
    "corner", "border", "cluster", "outside_box", "image_property", "no_evidence",
    "accuracy", "calibration", "confusion",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that the report found.

    Attributes:
        kind: what it is about.
        label: of the class that it concerns; empty where it concerns all.
        share: the measured share of ``count`` photos, in [0, 1].
        count: how many photos were looked at.
        limit: the share from which on it is a finding.
        photos: the paths of some that show it, the clearest first.
        text: in one or two sentences for a person.
    """

    kind: FindingKind
    label: str
    share: float
    count: int
    limit: float
    photos: tuple[str, ...]
    text: str

    def to_json(self) -> dict[str, Any]:
        """The entry of findings.json."""
        return {
            "kind": self.kind,
            "class": self.label,
            "share": self.share,
            "count": self.count,
            "limit": self.limit,
            "photos": list(self.photos),
            "text": self.text,
        }
