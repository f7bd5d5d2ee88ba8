"""The whole range in one test: does the concept raise the unit, within labels?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special


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
    z: np.ndarray
    """Standard normal where there is no effect, positive where the concept raises the unit."""

    @property
    def p(self) -> np.ndarray:
        """Two-sided p-values."""
        return special.erfc(np.abs(self.z) / np.sqrt(2))


def label_ranks(values: np.ndarray, ids: np.ndarray, classes: int) -> LabelRanks:
    """Return the ranks of `values`, of shape `(n,)`, within the labels `ids`."""
    order = np.lexsort((values, ids))
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


def stratified_shift(
    ranked: LabelRanks, ids: np.ndarray, present: sparse.csc_matrix, strata: np.ndarray, least: int = 1
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
    """
    classes, tests = len(ranked.sizes), present.shape[1]
    concepts = np.repeat(np.arange(tests), np.diff(present.indptr))
    cell = ids[present.indices] * tests + concepts
    shape = (classes, tests)
    n1 = np.bincount(cell, minlength=classes * tests).reshape(shape).astype(np.float64)
    sums = np.bincount(cell, weights=ranked.ranks[present.indices], minlength=classes * tests).reshape(shape)
    n = ranked.sizes[:, None]
    pairs = n1 * (n - n1) * strata[:, None]
    weight = np.where(pairs > 0, 1 / (n + 1), 0.0)
    tied = ranked.ties[:, None] / np.maximum(n * (n - 1), 1)
    variance = (weight**2 * pairs / 12 * (n + 1 - tied)).sum(0)
    excess = (weight * np.where(pairs > 0, sums - n1 * (n + 1) / 2, 0.0)).sum(0)
    live = pairs > 0
    few = np.minimum((n1 * live).sum(0), ((n - n1) * live).sum(0)) < least
    with np.errstate(divide="ignore", invalid="ignore"):
        auc, z = 0.5 + excess / (weight * pairs).sum(0), excess / np.sqrt(variance)
    return Shift(np.where(few, np.nan, auc), np.where(few, np.nan, z))
