"""Maps, normalised each by itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Maps:
    """One map for each of M pairs of sample and score.

    Attributes:
        values: (M, h, w) in [0, 1]; zeros where a map is constant.
        peak: (M,) the raw maximum, before normalisation.
        evidence: (M,) false where the map is constant, so that nothing speaks for the class.
    """

    values: Tensor
    peak: Tensor
    evidence: Tensor

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """``values``, ``peak`` and ``evidence``."""
        return self.values, self.peak, self.evidence


def normalise_maps(raw: Tensor) -> Maps:
    """Min-max normalisation of each (h, w) map of (M, h, w) to [0, 1]."""
    flat = raw.flatten(1)
    low, peak = flat.aminmax(dim=1, keepdim=True)
    spread = peak - low
    evidence = spread > 0
    values = (flat - low) / spread.where(evidence, 1)
    return Maps(values.view_as(raw), peak.squeeze(1), evidence.squeeze(1))
