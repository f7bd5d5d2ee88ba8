"""The profile of a concept over a unit's range: prevalence per bin within labels, and the shape it has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from hf_midrange.association.ranks import LabelRanks
from hf_midrange.association.sources import as_normal
from hf_midrange.scoring import wilson_interval


BINS = 5
_Z = float(special.ndtri(0.975))


class Profile(NamedTuple):
    """Prevalence in fifths of each label's own rows, from the bottom up, with 95 % Wilson intervals."""

    prevalence: np.ndarray
    low: np.ndarray
    high: np.ndarray
    shape: str
    """`rising`, `falling`, `humped`, `dipped` or `flat`."""


def fifths(ranked: LabelRanks, ids: np.ndarray) -> np.ndarray:
    """Return the bin of each row, of shape `(n,)`: fifths of its own label's rows from the bottom up.

    Equal values share their mean rank and so their bin: with many of them bins are unequal.
    """
    return np.minimum(((ranked.ranks - 0.5) / ranked.sizes[ids] * BINS).astype(np.int64), BINS - 1)


def profile(bins: np.ndarray, ids: np.ndarray, has: np.ndarray, sources: np.ndarray | None = None) -> Profile:
    """Return the profile of one concept over the rows of one side.

    Every bin holds a fifth of each label, so that labels which differ in the concept and in the unit do not draw a
    shape; what ties make of this is taken out: a bin's prevalence is the side's own, plus the mean over the bin of how
    far its rows depart from their label's prevalence.

    Args:
        bins: `fifths` of the unit's values on these rows.
        ids: their labels.
        has: which of the rows have the concept, boolean.
        sources: their sources, numbered from 0, where rows share them: intervals and shape are then by source.
    """
    label = np.unique(ids, return_inverse=True)[1]
    size = np.bincount(label)
    expected = np.bincount(label, weights=has)[label] / size[label]
    totals = np.bincount(bins, minlength=BINS).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        departure = np.bincount(bins, weights=has - expected, minlength=BINS) / totals
    share = np.clip(has.mean() + departure, 0, 1)
    rows = totals if sources is None else totals / _design_effects(bins, has, totals, sources)
    low, high = wilson_interval(share * rows, rows)
    return Profile(share, low, high, shape_of(*trend_and_hump(bins, label, has, sources)))


def trend_and_hump(
    bins: np.ndarray, label: np.ndarray, has: np.ndarray, sources: np.ndarray | None = None
) -> tuple[float, float]:
    """Return two z statistics: the trend over the bins within labels, and the inner bins against the two ends.

    The trend of one label is that of Cochran and Armitage (1955), of several Mantel's (1963) sum over labels.
    """
    inner = ((bins > 0) & (bins < BINS - 1)).astype(np.float64)
    return _score_test(bins.astype(np.float64), label, has, sources), _score_test(inner, label, has, sources)


def shape_of(trend: float, hump: float) -> str:
    """Return the shape that two z statistics show at 5 %: the larger one names it."""
    if abs(hump) > _Z and abs(hump) > abs(trend):
        return "humped" if hump > 0 else "dipped"
    if abs(trend) > _Z:
        return "rising" if trend > 0 else "falling"
    return "flat"


def _score_test(scores: np.ndarray, label: np.ndarray, has: np.ndarray, sources: np.ndarray | None) -> float:
    """Return the z statistic of a linear trend in proportions over `scores` within labels; 0 where nothing varies."""
    size = np.maximum(np.bincount(label), 1)
    share = np.bincount(label, weights=has) / size
    centred = scores - (np.bincount(label, weights=scores) / size)[label]
    parts = (has - share[label]) * centred
    if sources is None:
        variance = float(((share * (1 - share))[label] * centred**2).sum())
        return float(parts.sum()) / np.sqrt(variance) if variance > 0 else 0.0
    sums = np.bincount(sources, weights=parts)
    variance = float((sums**2).sum())
    with_it = len(np.unique(sources[has])) if has.any() else 0
    return float(as_normal(parts.sum() / np.sqrt(variance), np.array(with_it))) if variance > 0 else 0.0


def _design_effects(bins: np.ndarray, has: np.ndarray, totals: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return how many times the variance of each bin's prevalence is that of independent rows; at least 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.bincount(bins, weights=has, minlength=BINS) / totals
        number = int(sources.max()) + 1
        sums = np.bincount(bins * number + sources, weights=has - share[bins], minlength=BINS * number)
        effect = (sums.reshape(BINS, number) ** 2).sum(axis=1) / (totals * share * (1 - share))
    return np.maximum(np.nan_to_num(effect, nan=1.0, posinf=1.0), 1.0)
