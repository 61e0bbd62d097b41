"""Holds an archive to its publisher's network while it is packaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from camserve_cli.packaging.check_photos import check_photos
from camserve_cli.packaging.publisher import Publisher, compare
from camserve_cli.packaging.weights_source import WeightsSource, has_own_preprocess


@dataclass(frozen=True)
class Comparison:
    """The comparison of an archive with its publisher.

    Attributes:
        publisher: None where it is not known: then nothing is compared.
        own_settings: the person changed ``handler.preprocess``.
        photos: to be scored by the archive.
        notes: what was found, filled by :meth:`judge`.
    """

    publisher: Publisher | None
    own_settings: bool
    photos: tuple[Image.Image, ...]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        source: WeightsSource,
        handler: Mapping[str, Any],
        state: Mapping[str, Tensor],
        classes: int,
        settings: list[str],
    ) -> Comparison:
        """The comparison for weights and the settings that they are packaged with."""
        own = has_own_preprocess(settings)
        if source.publisher is None:
            return cls(None, own, ())
        publisher = source.publisher(handler["arch_kwargs"], state, classes)
        return cls(publisher, own, tuple(check_photos()))

    def judge(self, found: Mapping[str, Any]) -> None:
        """Compare what the archive's check found.

        Raises:
            PackageError: the scores differ by more than rounding errors.
        """
        if self.publisher is not None:
            precision, scores = found["precision"], found["scores"]
            self.notes.append(
                compare(self.publisher, self.photos, scores, precision, self.own_settings)
            )
