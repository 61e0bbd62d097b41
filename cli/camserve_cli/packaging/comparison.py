"""Holds an archive to its publisher's network while it is packaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from camserve.settings import Settings
from camserve_cli.packaging.check_photos import check_photos
from camserve_cli.packaging.publisher import Publisher, compare


@dataclass(frozen=True)
class Comparison:
    """The comparison of an archive with its publisher.

    Attributes:
        publisher: None where it is not known: then nothing is compared.
        settings: of the archive.
        own_preprocess: the person changed ``handler.preprocess``.
        photos: to be scored by the archive.
        notes: what was found, filled by :meth:`judge`.
    """

    publisher: Publisher | None
    settings: Settings
    own_preprocess: bool
    photos: Sequence[Image.Image]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, publisher: Publisher | None, settings: Settings, own_preprocess: bool
    ) -> Comparison:
        """The comparison on the usual photos, where the publisher has inputs of the same size."""
        photos = check_photos() if publisher else []
        if publisher is None:
            return cls(None, settings, own_preprocess, photos)
        size, own = publisher.input_size(photos[0]), settings.preprocess.input_size
        if size == own:
            return cls(publisher, settings, own_preprocess, photos)
        note = (
            "the archive's scores are not compared with those of the publisher's own network and "
            f"preparation of photos ({publisher.name}): inputs of that are {size[0]} high and "
            f"{size[1]} wide, and handler.preprocess makes {own.height} x {own.width}"
        )
        return cls(None, settings, own_preprocess, [], [note])

    def judge(self, found: Mapping[str, Any]) -> None:
        """Compare what the archive's check found.

        Raises:
            PackageError: the scores differ by more than rounding errors.
        """
        if self.publisher is None:
            return
        expected = self.publisher.scores(self.photos, self.settings, found["classes"])
        ours = torch.tensor(found["scores"])
        self.notes.append(
            compare(self.publisher.name, expected, ours, found["precision"], self.own_preprocess)
        )
