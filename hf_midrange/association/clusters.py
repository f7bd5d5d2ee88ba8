"""Rows that come from one source, such as the frames of a video: variances by source instead of by row.

Every statistic here is a sum over rows of a unit's residual times a concept's. Rows of one source are not independent,
so the variance of the sum is taken over the sums of sources: that of a score test under clustering (Liang 1985; for
2x2 tables Begg 1999, Zhang and Boos 1997). Few sources make it unsure, so it is compared with a t distribution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from hf_midrange.association.tables import Tables


class Clusters(NamedTuple):
    """Rows of sources, prepared for sums of any unit's residuals; a source may have rows of several labels."""

    present: sparse.csr_matrix
    """Which row has which concept, of shape `(n, m)`, float32."""
    expected: sparse.csr_matrix
    """The same with the concept's share of the row's label for 1."""
    parts: list[tuple[np.ndarray, sparse.csr_matrix, sparse.csr_matrix]]
    """Per label its rows, and their part of `present` and `expected`."""
    by_pair: sparse.csr_matrix
    """Which rows are of each pair of a source and a label, of shape `(P, n)`, float32."""
    pair: np.ndarray
    """The pair of each row, of shape `(n,)`."""
    by_source: sparse.csr_matrix
    """Which pairs are of each source, of shape `(S, P)`."""
    by_label: sparse.csr_matrix
    """Which pairs are of each label, of shape `(C, P)`."""
    share: np.ndarray
    """Share of each label's rows that have each concept, of shape `(C, m)`."""
    having: np.ndarray
    """How many sources of each label have a row with each concept, of shape `(C, m)`."""
    lacking: np.ndarray
    """How many have a row without."""
    rows: np.ndarray
    """Rows of pairs of which several have the same concept, sorted by pair and concept, once for each such concept."""
    starts: np.ndarray
    """Where the next (pair, concept) begins among these."""
    concept: np.ndarray
    """The concept of each such (pair, concept)."""
    label: np.ndarray
    """Its label."""

    def squares(self, residuals: np.ndarray) -> np.ndarray:
        """Return the sum over sources of the squared sum of residual times concept less its share, `(K, m)`.

        Args:
            residuals: of shape `(n, K)`, of mean 0 within each label; of rows that take no part they are 0.
        """
        if not self.one_label:
            return self._mixed(residuals)
        sums = self.by_pair @ residuals
        alone, drawn = self._of_rows(residuals, sums)
        found = _products(self.present, alone) - 2 * _products(self.expected, drawn)
        found += self._crossed(residuals, np.zeros_like(self.concept)) + (self.by_label @ sums**2).T @ self.share**2
        return np.maximum(found, 0.0)

    def side_squares(
        self, residuals: np.ndarray, member: int | None, signs: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `squares` of members, of strangers, and of both together, each of shape `(K, m)`.

        Args:
            residuals: of shape `(n, K)`.
            member: the label of the members; None if there are none.
            signs: by which members' and strangers' residuals are multiplied in the sum of both, `(K,)` each.
        """
        if member is None:
            everyone = self.squares(residuals)
            return np.zeros_like(everyone), everyone, everyone
        rows, present, expected = self.parts[member]
        if not self.one_label:
            mine = np.zeros((len(residuals), 1), dtype=bool)
            mine[rows] = True
            turned = residuals * np.where(mine, *signs)
            return self._mixed(residuals * mine), self._mixed(residuals * ~mine), self._mixed(turned)
        sums = self.by_pair @ residuals
        alone, drawn = self._of_rows(residuals, sums)
        constant, tests = self.by_label @ sums**2, self.share.shape[1]
        crossed = self._crossed(residuals, self.label == member)
        own = np.outer(constant[member], self.share[member] ** 2)
        members = _products(present, alone[rows]) - 2 * _products(expected, drawn[rows]) + crossed[:, tests:] + own
        everyone = _products(self.present, alone) - 2 * _products(self.expected, drawn) + constant.T @ self.share**2
        everyone += crossed[:, :tests] + crossed[:, tests:]
        both, members = np.maximum(everyone, 0.0), np.maximum(members, 0.0)
        return members, np.maximum(everyone - members, 0.0), both

    def in_band(self, bands: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how many sources of each label have rows in, and outside of, each band, of shape `(B, C)` each."""
        table = self.by_pair @ (bands[:, None] == np.arange(number)).astype(np.float32)
        size = table.sum(axis=1, keepdims=True)
        return tuple((self.by_label @ some.astype(np.float64)).T for some in (table > 0, table < size))

    @property
    def one_label(self) -> bool:
        """Whether no source has rows of two labels."""
        return self.by_source.shape[0] == self.by_source.shape[1]

    def _of_rows(self, residuals: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what a row that has a concept adds to the squares: by itself, and times the concept's share.

        The sum of a source is `A - w q`: the residuals of its rows that have the concept, less those of all its rows
        times the concept's share. Its square is `A^2 - 2 A w q + w^2 q^2`, where `A^2` is the sum of squares, and the
        cross products of rows that have the same concept (`_crossed`).
        """
        return residuals**2, residuals * sums[self.pair]

    def _crossed(self, residuals: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return the cross products of rows of one source that have the same concept, of shape `(K, m)` a group."""
        tests = self.share.shape[1]
        length = tests * (int(group.max(initial=0)) + 1 if group.dtype != bool else 2)
        if not len(self.rows):
            return np.zeros((residuals.shape[1], length))
        some = residuals[self.rows]
        cells = np.add.reduceat(some, self.starts, axis=0) ** 2 - np.add.reduceat(some**2, self.starts, axis=0)
        key = self.concept + tests * group
        return np.stack([np.bincount(key, column, minlength=length) for column in cells.T])

    def _mixed(self, residuals: np.ndarray) -> np.ndarray:
        """Return `squares` where sources have rows of several labels."""
        found = np.empty((residuals.shape[1], self.share.shape[1]))
        rows_of_source = self.by_source @ self.by_pair
        for k, values in enumerate(residuals.T.astype(np.float64)):
            having = rows_of_source @ sparse.diags_array(values) @ self.present
            everyone = self.by_source @ sparse.diags_array(self.by_pair @ values) @ self.by_label.T
            drawn = ((having.T @ everyone).toarray() * self.share.T).sum(axis=1)
            constant = (self.share * ((everyone.T @ everyone) @ self.share)).sum(axis=0)
            found[k] = np.asarray(having.power(2).sum(axis=0)).ravel() - 2 * drawn + constant
        return np.maximum(found, 0.0)


def clusters(present: sparse.csr_matrix, ids: np.ndarray, classes: int, sources: np.ndarray) -> Clusters:
    """Return the clusters of a boolean matrix `(n, m)`; labels `ids` and `sources`, numbers, have shape `(n,)`."""
    tests = present.shape[1]
    pairs, pair = np.unique(sources * classes + ids, return_inverse=True)
    pair_source, label = np.divmod(pairs, classes)
    pair_source = np.unique(pair_source, return_inverse=True)[1]
    by_pair, by_label, by_source = (
        sparse.csr_matrix((np.ones(len(group), dtype=np.float32), (group, np.arange(len(group)))))
        for group in (pair, label, pair_source)
    )
    by_label.resize(classes, len(pairs))
    table = sparse.csr_matrix(present, dtype=np.float32)
    hits, size = sparse.csr_matrix(by_pair @ table), np.bincount(pair)
    full = hits.copy()
    full.data = (hits.data == np.repeat(size, np.diff(hits.indptr))).astype(np.float32)
    number = np.bincount(label, minlength=classes)[:, None]
    share = (by_label @ hits).toarray().astype(np.float64) / np.maximum(np.bincount(ids, minlength=classes), 1)[
        :, None
    ]
    row = np.repeat(np.arange(len(ids)), np.diff(table.indptr))
    expected = table.copy()
    expected.data = share[ids[row], table.indices].astype(np.float32)
    several = table.multiply(by_pair.T @ (hits > 1)).tocoo()
    cell = pair[several.row] * tests + several.col
    order = np.argsort(cell, kind="stable")
    rows, starts = several.row[order], np.flatnonzero(np.diff(cell[order], prepend=-1))
    of_label = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids, minlength=classes))[:-1])
    return Clusters(
        present=table,
        expected=expected,
        parts=[(some, table[some], expected[some]) for some in of_label],
        by_pair=by_pair,
        pair=pair,
        by_source=by_source,
        by_label=by_label,
        share=share,
        having=(by_label @ (hits > 0)).toarray(),
        lacking=number - (by_label @ full).toarray(),
        rows=rows,
        starts=starts,
        concept=several.col[order][starts].astype(np.int64),
        label=ids[rows[starts]],
    )


def _products(table: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Return the sums of `values`, `(n, K)`, over the rows that have each concept, weighted by the table; `(K, m)`."""
    return np.asarray(table.T @ values.astype(np.float32), dtype=np.float64).T


def as_normal(z: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return statistics whose variance comes from few sources as standard normal ones of the same significance.

    They are compared with t with one degree of freedom less than there are sources. Since the variance is taken about
    0, not about the mean, a statistic can never exceed the root of their number, and the test errs on the safe side.
    """
    below = special.stdtr(np.maximum(sources - 1.0, 1.0), -np.abs(z))
    return -np.sign(z) * special.ndtri(below)


def clustered_log_error(
    tables: Tables, ratio: float, inside: np.ndarray, has: np.ndarray, ids: np.ndarray, sources: np.ndarray
) -> tuple[float, int]:
    """Return the standard error of the logarithm of a pooled odds ratio by source, and how many sources carry it.

    The Mantel-Haenszel ratio solves `sum((a d - ratio b c) / n) = 0` over labels; what a source adds to this sum, to
    first order, is the sum of the derivatives at the cells of its rows, less their mean over the label. The error is
    infinite where the ratio is 0 or infinite. With one label it is the sandwich of a logistic regression.

    Args:
        tables: the oriented tables, of shape `(C, 1)`; labels that take no part are empty.
        ratio: their pooled odds ratio.
        inside: which rows are in the band, boolean of shape `(n,)`.
        has: which have the concept, or lack it in labels that are turned.
        ids: their labels.
        sources: their sources.
    """
    a, n1, m1, t = (values[:, 0] for values in tables)
    b, c, n = n1 - a, m1 - a, np.maximum(t, 1)
    d = t - n1 - m1 + a
    scale = float((b * c / n).sum()) * ratio if np.isfinite(ratio) else np.inf
    number = min((len(np.unique(sources[(t[ids] > 0) & some])) for some in (has, ~has, inside, ~inside)), default=0)
    if not (np.isfinite(scale) and scale > 0):
        return np.inf, number
    rest = (a * d - ratio * b * c) / n
    slopes = np.array([[d, -ratio * c], [-ratio * b, a]])  # by being inside, and by having the concept, from 1 to 0
    slopes = (slopes - rest) / n
    centre = (slopes[0, 0] * a + slopes[0, 1] * b + slopes[1, 0] * c + slopes[1, 1] * d) / n
    parts = (slopes - centre)[(~inside).astype(int), (~has).astype(int), ids] * (t[ids] > 0)
    sums = np.bincount(np.unique(sources, return_inverse=True)[1], weights=parts)
    return float(np.sqrt((sums**2).sum()) / scale), number
