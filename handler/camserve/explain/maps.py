"""Min-max normalisation of raw maps, each by itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Maps:
    """M normalised maps.

    Attributes:
        values: (M, h, w) in [0, 1]; zeros where a map is constant.
        peak: (M,) the maximum of each raw map.
        evidence: (M,) bool, false where a raw map is constant: nothing in it is evidence for the
            class.
    """

    values: Tensor
    peak: Tensor
    evidence: Tensor

    def as_tuple(self) -> tuple[Tensor, Tensor, Tensor]:
        """``values``, ``peak`` and ``evidence``."""
        return self.values, self.peak, self.evidence


def normalise_maps(raw: Tensor) -> Maps:
    """Normalise each (h, w) map of (M, h, w) to [0, 1] by its own minimum and maximum."""
    cells = raw.flatten(1)
    low, peak = cells.aminmax(dim=1, keepdim=True)
    value_range = peak - low
    evidence = value_range > 0
    values = (cells - low) / value_range.where(evidence, 1)
    return Maps(values.view_as(raw), peak.squeeze(1), evidence.squeeze(1))
