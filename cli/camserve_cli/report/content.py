"""All that a report is written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camserve_cli.engines.engine import ModelDescription
from camserve_cli.report.analysis import Analysis
from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.contrasts import Contrast
from camserve_cli.report.dataset import Dataset


@dataclass(frozen=True)
class ReportContent:
    """The photos, the model, and what was computed.

    Attributes:
        contrasts: of each of ``analysis.pairs`` a few photos.
    """

    dataset: Dataset
    description: ModelDescription
    columns: ReportColumns
    analysis: Analysis
    contrasts: Sequence[Sequence[Contrast]]
