"""All that a report computes of its photos, in the order in which the page tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.figures.accuracy import Accuracy, measure_accuracy
from camserve_cli.report.figures.box_agreement import BoxAgreement, measure_box_agreement
from camserve_cli.report.figures.calibration import Calibration, measure_calibration
from camserve_cli.report.figures.comparison import Comparison, compare
from camserve_cli.report.figures.confusion import ConfusedPair, confused_pairs
from camserve_cli.report.figures.faithfulness import FaithfulnessSummary, summarise_faithfulness
from camserve_cli.report.figures.location import Location, locate_heat
from camserve_cli.report.figures.map_clusters import ClassClusters, cluster_classes
from camserve_cli.report.figures.property_effects import (
    CameraEffect,
    PropertyEffect,
    camera_effects,
    property_effects,
)
from camserve_cli.report.findings import Finding
from camserve_cli.report.shortcuts.search import ShortcutSearch
from camserve_cli.report.verdict import MILD, judge

#: The kinds that a shortcut is told as come first.
_ORDER = (
    "corner", "border", "cluster", "image_property", "outside_box", "no_evidence", "accuracy",
    "calibration", "confusion",
)  # fmt: skip


@dataclass(frozen=True)
class Analysis:
    """What was computed; see the modules of the types.

    Attributes:
        search: for shortcuts; None where there was none.
        cluster_of: (N,) the cluster of each photo within its predicted class, -1 where none.
    """

    findings: Sequence[Finding]
    search: ShortcutSearch | None
    accuracy: Accuracy
    calibration: Calibration
    pairs: Sequence[ConfusedPair]
    location: Location
    clusters: Sequence[ClassClusters]
    cluster_of: NDArray[np.int64]
    boxes: Sequence[BoxAgreement]
    faithfulness: Sequence[FaithfulnessSummary]
    effects: Sequence[PropertyEffect]
    cameras: Sequence[CameraEffect]
    comparison: Comparison | None

    @property
    def grave(self) -> Sequence[Finding]:
        """The findings that count without ``--strict``."""
        return [one for one in self.findings if one.kind not in MILD]


def analyse(columns: ReportColumns, compared: str, shortcuts: ShortcutSearch | None) -> Analysis:
    """Compute all.

    Args:
        columns: of the photos, at least one.
        compared: the name of the other model; empty where there is none.
        shortcuts: what their search found; None where there was none.
    """
    accuracy, calibration = measure_accuracy(columns), measure_calibration(columns)
    pairs = confused_pairs(columns)
    effects, cameras = property_effects(columns), camera_effects(columns)
    clusters, cluster_of = cluster_classes(columns)
    findings = [
        *(shortcuts.findings if shortcuts is not None else ()),
        *judge(columns, accuracy, calibration, pairs, effects, cameras),
    ]
    findings.sort(key=lambda one: _ORDER.index(one.kind))
    return Analysis(
        findings=findings,
        search=shortcuts,
        accuracy=accuracy,
        calibration=calibration,
        pairs=pairs,
        location=locate_heat(columns),
        clusters=clusters,
        cluster_of=cluster_of,
        boxes=measure_box_agreement(columns),
        faithfulness=summarise_faithfulness(columns),
        effects=effects,
        cameras=cameras,
        comparison=compare(columns, compared) if compared else None,
    )
