"""Every band and concept of one unit at once, without a table per label.

The Cochran-Mantel-Haenszel sums over labels are bilinear in what a band gives (rows of each label in it) and what a
concept gives (rows of each label with it): two small matrix products make them for all tests of a unit, so that the
cost of a unit is one pass over the concepts' rows, however many labels there are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse


class Margins(NamedTuple):
    """What no band changes: rows of each label, and those with each concept."""

    total: np.ndarray
    """Rows of each label, of shape `(C,)`."""
    with_concept: np.ndarray
    """Of shape `(C, m)`."""
    share: np.ndarray
    """`with_concept / total`."""
    spread: np.ndarray
    """`with_concept (total - with_concept) / (total^2 (total - 1))`: what a concept adds to the variance."""
    varies: np.ndarray
    """1 where some rows of the label have the concept and some lack it, else 0."""
    present: sparse.csr_matrix
    """Which row has which concept, of shape `(n, m)`, float32."""
    ids: np.ndarray
    """The label of each row, of shape `(n,)`."""
    by_label: list[tuple[np.ndarray, sparse.csr_matrix]]
    """Per label its rows, and their part of the presence matrix, of shape `(rows, m)`."""


def margins(present: sparse.csr_matrix, ids: np.ndarray, classes: int) -> Margins:
    """Return the margins of a boolean matrix of shape `(n, m)` under labels `ids` of shape `(n,)`."""
    counted = present.astype(np.float32)
    rows = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids, minlength=classes))[:-1])
    by_label = [(some, counted[some]) for some in rows]
    hits = np.stack([np.asarray(part.sum(axis=0), dtype=np.float64).ravel() for _, part in by_label])
    total = np.array([len(some) for some in rows], dtype=np.float64)
    n = np.maximum(total, 2)[:, None]
    spread = hits * (total[:, None] - hits) / (n**2 * (n - 1))
    varies = ((hits > 0) & (hits < total[:, None])).astype(np.float64)
    return Margins(total, hits, hits / n, spread, varies, counted, ids, by_label)


class Side(NamedTuple):
    """Members or strangers of one unit: sums over their labels, each of shape `(B, m)`."""

    excess: np.ndarray
    """Rows in the band with the concept, less those expected without association."""
    variance: np.ndarray
    fewest: np.ndarray
    """The smallest margin of the labels that carry information: in the band, outside, with and without the concept."""

    def where(self, least: int, values: np.ndarray) -> np.ndarray:
        """Return `values` where the side has rows enough to be tested, and 0 elsewhere."""
        return np.where(self.fewest >= least, values, 0.0)


def unit_sides(bands: np.ndarray, known: Margins, number: int, member: int | None) -> tuple[Side, Side]:
    """Return the two sides of one unit whose rows all have a band.

    Args:
        bands: the unit's band on each row, of shape `(n,)`, in `0..number - 1`.
        known: the margins of the same rows.
        number: how many bands there are.
        member: the unit's class; None for a unit that stands for none, whose members are an empty side.
    """
    where = (bands[:, None] == np.arange(number)).astype(np.float32)
    both = np.asarray(known.present.T @ where, dtype=np.float64).T
    labels = len(known.total)
    cell = bands.astype(np.int64) * labels + known.ids
    in_band = np.bincount(cell, minlength=number * labels).reshape(number, labels).astype(np.float64)
    everyone, own = np.ones(labels), np.zeros(labels)
    if member is None:
        return _side(np.zeros_like(both), in_band, known, own), _side(both, in_band, known, everyone)
    own[member] = 1
    rows, part = known.by_label[member]
    members = np.asarray(part.T @ where[rows], dtype=np.float64).T
    return _side(members, in_band, known, own), _side(both - members, in_band, known, everyone - own)


def _side(a: np.ndarray, in_band: np.ndarray, known: Margins, labels: np.ndarray) -> Side:
    """Sum over some labels; those with a zero margin or a single row have `a` as expected and no variance."""
    total = known.total * labels
    inside = in_band * labels
    cut = ((inside > 0) & (inside < total)).astype(np.float64)
    n1, m1, t = (inside * cut) @ known.varies, cut @ (known.with_concept * known.varies), (total * cut) @ known.varies
    single = inside * (total < 2)  # the share is taken of two rows at least, so that one row is not what it expects
    expected = (inside - single) @ known.share + single @ known.with_concept
    variance = (inside * (total - inside)) @ known.spread
    return Side(a - expected, variance, np.min([n1, t - n1, m1, t - m1], axis=0))
