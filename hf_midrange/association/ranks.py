"""The whole range in one test: does the concept raise the unit, within labels?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special

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

    @property
    def z(self) -> np.ndarray:
        """Standard normal where there is no effect, positive where the concept raises the unit."""
        return (self.auc - 0.5) / self.error

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
) -> Shift:
    """Return the Wilcoxon rank sum test of each concept, pooled over labels as van Elteren (1960) does.

    Each label's rank sum is weighted by `1 / (N + 1)`; variances are corrected for ties; normal approximation without
    continuity correction, two-sided. With one label it is the Mann-Whitney test.

    Args:
        ranked: the unit's ranks within labels.
        ids: class ids, of shape `(n,)`.
        present: which row has which concept, of shape `(n, t)`.
        strata: which labels to pool, boolean of shape `(C,)`.
        least: fewest rows with the concept, and without it, in labels that have both.
        with_concept: `rows_with` of the same rows, if it is known.
    """
    n = ranked.sizes
    n1 = rows_with(present, ids, len(n)) if with_concept is None else with_concept
    pairs = n1 * (n[:, None] - n1) * strata[:, None]
    weight = strata / (n + 1)
    # Ranks less their label's mean: labels where all rows or none have the concept add nothing to the sum.
    excess = present.T @ (weight[ids] * (ranked.ranks - (n[ids] + 1) / 2))
    tied = ranked.ties / np.maximum(n * (n - 1), 1)
    variance = (weight**2 / 12 * (n + 1 - tied)) @ pairs
    live = pairs > 0
    few = np.minimum((n1 * live).sum(0), ((n[:, None] - n1) * live).sum(0)) < least
    untestable = few | (variance <= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        auc, error = (np.where(untestable, np.nan, v / (weight @ pairs)) for v in (excess, np.sqrt(variance)))
    return Shift(0.5 + auc, error)


class RankedRows(NamedTuple):
    """Rows whose units are ranked in turn: what is the same for all units is made once."""

    ids: np.ndarray
    classes: int
    present: sparse.csc_matrix
    """Which row has which concept, of shape `(n, m)`."""
    with_concept: np.ndarray
    """Rows of each label with each concept, of shape `(C, m)`."""

    @classmethod
    def of(cls, ids: np.ndarray, classes: int, present: sparse.spmatrix) -> RankedRows:
        """Return the rows with labels `ids` and concepts `present`."""
        table = sparse.csc_matrix(present, dtype=np.float64)
        return cls(ids, classes, table, rows_with(table, ids, classes))

    def shift(self, values: np.ndarray, strata: np.ndarray | None = None, least: int = MINIMUM_ROWS) -> Shift:
        """Return how far each concept raises the unit of these values in some labels; None: in all."""
        pooled = np.ones(self.classes, dtype=bool) if strata is None else strata
        ranked = label_ranks(values, self.ids, self.classes)
        return stratified_shift(ranked, self.ids, self.present, pooled, least, self.with_concept)


def generalised_odds(shift: Shift, confidence: float = 0.95) -> OddsRatios:
    """Return the odds that a row with the concept stands above one of the same label without it.

    Agresti's (1980) generalised odds ratio `auc / (1 - auc)`, with the test-based interval of Miettinen (1976): its
    logarithm is divided by as many standard errors as the rank test saw. Where `auc` is 0 or 1 the interval is open
    at that end, and its other end is that of .001 or .999.
    """
    z = special.ndtri(0.5 + confidence / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shift.auc / (1 - shift.auc)
        log = special.logit(np.clip(shift.auc, 0.001, 0.999))
        error = np.where(shift.auc == 0.5, 4 * shift.error, np.abs(log / shift.z))
        low, high = np.exp(log - z * error), np.exp(log + z * error)
    return OddsRatios(ratio, np.where(ratio == 0, 0.0, low), np.where(np.isinf(ratio), np.inf, high))
