"""Min-max normalisation of raw maps, each by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

#: The least range of a map that is not constant, as a multiple of what rounding errors change: over
#: a grid, errors range over some six times their standard deviation.
_MIN_RANGE: Final = 8


@dataclass(frozen=True)
class Maps:
    """M normalised maps.

    Attributes:
        values: (M, h, w) in [0, 1]; zeros where a map is constant.
        peak: (M,) the maximum of each raw map.
        evidence: (M,) bool, false where a raw map is constant but for rounding errors: nothing in
            it is evidence for the class.
    """

    values: Tensor
    peak: Tensor
    evidence: Tensor

    def as_tuple(self) -> tuple[Tensor, Tensor, Tensor]:
        """``values``, ``peak`` and ``evidence``."""
        return self.values, self.peak, self.evidence


def normalise_maps(raw: Tensor, perturbed: Tensor | None = None) -> Maps:
    """Normalise maps to [0, 1], each by its own minimum and maximum.

    Args:
        raw: (M, h, w).
        perturbed: the same maps of activations that differ by rounding errors. A map whose range is
            not well above what this changes is constant: its range would be that of the errors.
            None where the maps are exact.
    """
    cells = raw.flatten(1)
    low, peak = cells.aminmax(dim=1, keepdim=True)
    value_range = peak - low
    evidence = value_range > 0
    if perturbed is not None:
        errors = (perturbed - raw).flatten(1).abs().amax(dim=1, keepdim=True)
        evidence = value_range > _MIN_RANGE * errors
    values = ((cells - low) / value_range.where(evidence, 1)).where(evidence, 0)
    return Maps(values.view_as(raw), peak.squeeze(1), evidence.squeeze(1))
