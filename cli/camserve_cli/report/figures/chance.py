"""What may be chance: exact tests and intervals of shares, and correlations of ranks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camserve_cli.report.explained_photos import Floats


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


def share_interval(hits: int, count: int, level: float = 0.95) -> Interval:
    """The exact interval of a share (Clopper and Pearson 1934); [0, 1] where there is no photo."""
    from scipy.stats import binomtest

    if count == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(hits, count).proportion_ci(level, "exact")
    return Interval(float(interval.low), float(interval.high))


def p_above(hits: int, count: int, limit: float) -> float:
    """How likely so many hits or more are where the true share is at the limit: exact binomial."""
    from scipy.stats import binomtest

    if count == 0:
        return 1.0
    return float(binomtest(hits, count, limit, alternative="greater").pvalue)


def p_sign(differences: Floats) -> float:
    """How likely so many positive differences are where either sign is: the sign test.

    Differences of zero are left out.
    """
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return p_above(above, above + below, 0.5)


class RankCorrelation(NamedTuple):
    """Spearman's correlation of ranks, and how likely one as far from zero is by chance."""

    rho: float
    p: float
    photos: int


def rank_correlation(one: Floats, other: Floats) -> RankCorrelation:
    """Of the places where both are numbers; zero and 1 where there are too few or all are equal."""
    from scipy.stats import spearmanr

    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    if len(one) < 5 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return RankCorrelation(0.0, 1.0, len(one))
    result = spearmanr(one, other)
    return RankCorrelation(float(result.statistic), float(result.pvalue), len(one))
