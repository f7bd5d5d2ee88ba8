"""The profile of a concept over a unit's range: prevalence per bin, and the shape it has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from hf_midrange.scoring import wilson_interval


BINS = 5
_Z = float(special.ndtri(0.975))


class Profile(NamedTuple):
    """Prevalence in equal bins of one side's own ranks, from the bottom up, with 95 % Wilson intervals."""

    prevalence: np.ndarray
    low: np.ndarray
    high: np.ndarray
    shape: str
    """`rising`, `falling`, `humped`, `dipped` or `flat`."""


def equal_bins(values: np.ndarray) -> np.ndarray:
    """Return the bin of each value, of shape `(n,)`: fifths of the rows from the bottom up."""
    bins = np.empty(len(values), dtype=np.int64)
    bins[np.argsort(values, kind="stable")] = np.arange(len(values)) * BINS // max(len(values), 1)
    return bins


def profile(bins: np.ndarray, has: np.ndarray) -> Profile:
    """Return the profile of one concept over the rows of one side.

    Args:
        bins: `equal_bins` of the unit's values on these rows.
        has: which of the rows have the concept, boolean.
    """
    totals = np.bincount(bins, minlength=BINS).astype(np.float64)
    hits = np.bincount(bins, weights=has, minlength=BINS)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / totals
    low, high = wilson_interval(hits, totals)
    trend, hump = trend_and_hump(hits, totals)
    return Profile(share, low, high, shape_of(trend, hump))


def trend_and_hump(hits: np.ndarray, totals: np.ndarray) -> tuple[float, float]:
    """Return two z statistics: the Cochran-Armitage trend over the bins, and the inner bins against the two ends."""
    inner = np.ones(len(hits))
    inner[[0, -1]] = 0
    return _score_test(hits, totals, np.arange(len(hits), dtype=np.float64)), _score_test(hits, totals, inner)


def shape_of(trend: float, hump: float) -> str:
    """Return the shape that two z statistics show at 5 %: the larger one names it."""
    if abs(hump) > _Z and abs(hump) > abs(trend):
        return "humped" if hump > 0 else "dipped"
    if abs(trend) > _Z:
        return "rising" if trend > 0 else "falling"
    return "flat"


def _score_test(hits: np.ndarray, totals: np.ndarray, scores: np.ndarray) -> float:
    """Return the z statistic of a linear trend in proportions over `scores` (Armitage 1955)."""
    n = totals.sum()
    share = hits.sum() / n if n else 0.0
    if not 0 < share < 1:
        return 0.0
    centred = scores - (totals * scores).sum() / n
    return float((hits * centred).sum() / np.sqrt(share * (1 - share) * (totals * centred**2).sum()))
