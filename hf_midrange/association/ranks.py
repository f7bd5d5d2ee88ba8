"""The whole range in one test: does the concept raise the unit, within labels?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from hf_midrange.association.sources import Sources, as_normal
from hf_midrange.association.tables import MINIMUM_ROWS, OddsRatios


class LabelRanks(NamedTuple):
    """Ranks of one unit's values within each label, ties sharing their mean rank."""

    ranks: np.ndarray
    """Of shape `(n,)`."""
    sizes: np.ndarray
    """Rows of each label, of shape `(C,)`."""
    ties: np.ndarray
    """Sum of `t^3 - t` over runs of `t` equal values of each label, of shape `(C,)`."""


class Shift(NamedTuple):
    """How far a concept raises a unit, each of shape `(t,)`; NaN where too few rows have or lack it."""

    auc: np.ndarray
    """Chance that a row with the concept stands above one without it, of the same label; 0.5 is no effect."""
    error: np.ndarray
    """Standard error of `auc` where there is no effect."""
    sources: np.ndarray | None = None
    """From how many sources it comes, where rows share them: the fewer of those with the concept and without."""

    @property
    def z(self) -> np.ndarray:
        """Standard normal where there is no effect, positive where the concept raises the unit."""
        z = (self.auc - 0.5) / self.error
        return z if self.sources is None else as_normal(z, self.sources)

    @property
    def p(self) -> np.ndarray:
        """Two-sided p-values."""
        return special.erfc(np.abs(self.z) / np.sqrt(2))


def label_ranks(values: np.ndarray, ids: np.ndarray, classes: int) -> LabelRanks:
    """Return the ranks of `values`, of shape `(n,)`, within the labels `ids`."""
    order = np.argsort(values)
    small = ids.astype(np.int16) if classes < 2**15 else ids  # small integers are sorted by their digits: faster
    order = order[np.argsort(small[order], kind="stable")]
    label, value = ids[order], values[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (label[1:] != label[:-1]) | (value[1:] != value[:-1])
    first = np.flatnonzero(new)
    length = np.diff(first, append=len(order))
    sizes = np.bincount(ids, minlength=classes)
    before = (np.cumsum(sizes) - sizes)[label[first]]
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(first - before + (length + 1) / 2, length)
    runs = length.astype(np.float64)
    ties = np.bincount(label[first], weights=runs**3 - runs, minlength=classes)
    return LabelRanks(ranks, sizes.astype(np.float64), ties)


def rows_with(present: sparse.csc_matrix, ids: np.ndarray, classes: int) -> np.ndarray:
    """Return how many rows of each label have each concept, of shape `(C, t)`."""
    tests = present.shape[1]
    cell = ids[present.indices] * tests + np.repeat(np.arange(tests), np.diff(present.indptr))
    return np.bincount(cell, minlength=classes * tests).reshape(classes, tests).astype(np.float64)


def stratified_shift(
    ranked: LabelRanks,
    ids: np.ndarray,
    present: sparse.csc_matrix,
    strata: np.ndarray,
    least: int = 1,
    with_concept: np.ndarray | None = None,
    shared: Sources | None = None,
) -> Shift:
    """Return the Wilcoxon rank sum test of each concept, pooled over labels as van Elteren (1960) does.

    Each label's rank sum is weighted by `1 / (N + 1)`; variances are corrected for ties; normal approximation without
    continuity correction, two-sided. With one label it is the Mann-Whitney test.

    Args:
        ranked: the unit's ranks within labels.
        ids: class ids, of shape `(n,)`.
        present: which row has which concept, of shape `(n, t)`.
        strata: which labels to pool, boolean of shape `(C,)`.
        least: fewest rows with the concept, and without it, in labels that have both; fewest sources where rows share
            them.
        with_concept: `rows_with` of the same rows, if it is known.
        shared: the sources of the rows: variances are then by source.
    """
    n = ranked.sizes
    n1 = rows_with(present, ids, len(n)) if with_concept is None else with_concept
    pairs = n1 * (n[:, None] - n1) * strata[:, None]
    weight = strata / (n + 1)
    # Ranks less their label's mean: labels where all rows or none have the concept add nothing to the sum.
    residual = weight[ids] * (ranked.ranks - (n[ids] + 1) / 2)
    excess = present.T @ residual
    live = pairs > 0
    tied = ranked.ties / np.maximum(n * (n - 1), 1)
    variance = (weight**2 / 12 * (n + 1 - tied)) @ pairs
    number = np.minimum((n1 * live).sum(0), ((n[:, None] - n1) * live).sum(0))
    untestable = (number < least) | (variance <= 0)
    if shared is not None:
        everyone = np.arange(len(excess))
        picked = shared.picked(present, everyone)
        number = np.min(shared.having(picked, strata, len(excess)), axis=0)
        sums, share = np.bincount(shared.pair, residual, len(shared.size))[:, None], n1 / np.maximum(n, 1)[:, None]
        squares = shared.squares(picked, residual[picked.rows], sums, np.zeros_like(everyone), share)
        variance = np.maximum(variance, squares)
        untestable |= number < least
    with np.errstate(divide="ignore", invalid="ignore"):
        auc, error = (np.where(untestable, np.nan, v / (weight @ pairs)) for v in (excess, np.sqrt(variance)))
    return Shift(0.5 + auc, error, None if shared is None else number)


class RankedRows(NamedTuple):
    """Rows whose units are ranked in turn: what is the same for all units is made once."""

    ids: np.ndarray
    classes: int
    present: sparse.csc_matrix
    """Which row has which concept, of shape `(n, m)`."""
    with_concept: np.ndarray
    """Rows of each label with each concept, of shape `(C, m)`."""
    sources: Sources | None

    @classmethod
    def of(cls, ids: np.ndarray, classes: int, present: sparse.spmatrix, sources: Sources | None = None) -> RankedRows:
        """Return the rows with labels `ids`, concepts `present` and, where rows share them, `sources`."""
        table = sparse.csc_matrix(present, dtype=np.float64)
        return cls(ids, classes, table, rows_with(table, ids, classes), sources)

    def shift(self, values: np.ndarray, strata: np.ndarray | None = None, least: int = MINIMUM_ROWS) -> Shift:
        """Return how far each concept raises the unit of these values in some labels; None: in all."""
        pooled = np.ones(self.classes, dtype=bool) if strata is None else strata
        ranked = label_ranks(values, self.ids, self.classes)
        return stratified_shift(ranked, self.ids, self.present, pooled, least, self.with_concept, self.sources)


SMOOTHED = 0.05
"""Share of the variance of an area that is taken from a model. Near 0 and 1 a few rows in the wrong place make all of
DeLong's variance, and often there is none: of 30 rows and an area of .98 its interval covers .91, with this share .95.
"""


class Areas(NamedTuple):
    """How often a row with a concept stands above one of the same label without it, each of shape `(t,)`."""

    auc: np.ndarray
    error: np.ndarray
    """Standard error, whatever the effect is."""
    number: np.ndarray
    """The fewer of rows with the concept and without; of sources, where rows share them."""


def areas(
    values: np.ndarray,
    ids: np.ndarray,
    present: sparse.csc_matrix,
    strata: np.ndarray,
    sources: np.ndarray | None = None,
) -> Areas:
    """Return areas under the curve, pooled over labels with van Elteren's weights, and their standard errors.

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988) within each label, from each row's placement among
    the rows on the other side; of rows that share sources it is over sums of sources (Obuchowski 1997).

    Args:
        values: the unit's value on each row, of shape `(n,)`.
        ids: class ids.
        present: which row has which concept, of shape `(n, t)`.
        strata: which labels to pool, boolean of shape `(C,)`.
        sources: the rows' sources, numbered from 0, where rows share them.
    """
    kept = np.flatnonzero(strata[ids])
    kept = kept[np.lexsort((values[kept], ids[kept]))]
    label, value = ids[kept], values[kept]
    owner = None if sources is None else sources[kept]
    found = [_area(label, value, column_of(present, j)[kept], owner) for j in range(present.shape[1])]
    return Areas(*np.array(found, dtype=np.float64).reshape(-1, 3).T)


def column_of(table: sparse.csc_matrix, j: int) -> np.ndarray:
    """Return one column of a boolean matrix, of shape `(n,)`."""
    has = np.zeros(table.shape[0], dtype=bool)
    has[table.indices[table.indptr[j] : table.indptr[j + 1]]] = True
    return has


def _area(
    label: np.ndarray, value: np.ndarray, has: np.ndarray, sources: np.ndarray | None
) -> tuple[float, float, float]:
    """Return area, error and number for one concept; rows are sorted by label and value."""
    n, n1 = np.bincount(label).astype(np.float64), np.bincount(label, weights=has)
    n0 = n - n1
    weight = np.where((n1 > 0) & (n0 > 0), n1 * n0 / (n + 1), 0.0)
    if not weight.any():
        return np.nan, np.nan, 0.0
    placed = _placements(label, value, has, n1, n0)
    size = np.where(has, n1[label], n0[label])
    live = weight[label] > 0
    area = np.bincount(label, weights=np.where(has & live, placed, 0.0)) / np.maximum(n1, 1)
    share = weight / weight.sum()
    parts = np.where(live, share[label] * (placed - area[label]) / np.maximum(size, 1), 0.0)
    if sources is None:
        with_it, without = (float((some * (weight > 0)).sum()) for some in (n1, n0))
        variance = (parts**2 * size / np.maximum(size - 1, 1)).sum()
        variance = (1 - SMOOTHED) * variance + SMOOTHED * _exponential_variance(float(share @ area), with_it, without)
        return float(share @ area), float(np.sqrt(variance)), min(with_it, without)
    number = min(len(np.unique(sources[live & some])) for some in (has, ~has))
    variance = (np.bincount(sources, weights=parts) ** 2).sum() * number / max(number - 1, 1)
    return float(share @ area), float(np.sqrt(variance)), number


def _exponential_variance(area: float, one: float, other: float) -> float:
    """Return the variance of an area where both sides are exponential (Hanley and McNeil 1982)."""
    area = max(area, 1 - area)
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    found = area * (1 - area) + (one - 1) * (first - area**2) + (other - 1) * (second - area**2)
    return found / (one * other)


def _placements(label: np.ndarray, value: np.ndarray, has: np.ndarray, n1: np.ndarray, n0: np.ndarray) -> np.ndarray:
    """Return for rows with the concept the share of their label's rows without it that stand below, equal ones half.

    For rows without it, the share of those with it that stand above. Rows are sorted by label and value.
    """
    first = np.ones(len(label), dtype=bool)
    first[1:] = (label[1:] != label[:-1]) | (value[1:] != value[:-1])
    starts = np.flatnonzero(first)

    def below(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        runs = np.add.reduceat(counts, starts)
        before = (np.cumsum(sizes) - sizes)[label[starts]]
        return (np.cumsum(runs) - runs / 2 - before)[np.cumsum(first) - 1]

    with_it, without = below(has.astype(np.float64), n1), below((~has).astype(np.float64), n0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(has, without / n0[label], 1 - with_it / n1[label])


def generalised_odds(found: Areas, null_error: np.ndarray) -> OddsRatios:
    """Return the odds that a row with the concept stands above one of the same label without it.

    Agresti's (1980) generalised odds ratio `auc / (1 - auc)`; its interval is that of the area on the logit scale,
    with a t distribution for the number of rows (or sources) behind it. Where the area is 0 or 1 the interval is open
    at that end, and the other end is test-based (Miettinen 1976), that of .001 or .999.

    Args:
        found: areas with their errors.
        null_error: their errors where there is no effect.
    """
    edge = (found.auc <= 0) | (found.auc >= 1) | (found.error == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = special.logit(np.clip(found.auc, 0.001, 0.999))
        at_edge = np.where(found.auc == 0.5, 4 * null_error, np.abs(log) * null_error / np.abs(found.auc - 0.5))
        error = np.where(edge, at_edge, found.error / (found.auc * (1 - found.auc)))
        return OddsRatios(found.auc / (1 - found.auc), log, error, np.maximum(found.number - 1, 1))
