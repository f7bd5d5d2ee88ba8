"""Rows that come from one source, such as the frames of a video: variances by source instead of by row.

Every statistic here is a sum over rows of a unit's residual times a concept's. Rows of one source are not independent,
so the variance of the sum is taken over the sums of sources: that of a score test under clustering (Liang 1985; for
2x2 tables Begg 1999, Zhang and Boos 1997). Where it is below that of independent rows, the latter stands: from few
sources it is too small by chance (Angrist and Pischke 2009, section 8.1, advise the larger of the two). So what rows
taken for independent do not show, sources do not show either, and only the others need the variance by source. Few
sources make it unsure, so it is compared with a t distribution.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from scipy import sparse, special

from hf_midrange import columns
from hf_midrange.association.tables import Tables, entries


MOST_ROWS = 2000
"""Rows looked at, and as many that follow them, since frames of a video often stand one after the other."""

ALIKE = 0.1
"""Distance from which two rows look alike, in median distances between rows of the same label."""

FEWEST_ROWS = 200
"""Of fewer rows a few that look alike are nothing to tell."""

WORTH_TELLING = 0.05
"""Share of the rows looked at that must have one that looks alike."""

NARROW = 16
"""Embeddings of fewer values have close neighbours by chance."""


class Picked(NamedTuple):
    """The rows that have the concepts of some tests, in order of test and source."""

    rows: np.ndarray
    test: np.ndarray
    """The test of each such row."""
    starts: np.ndarray
    """Where the next (test, source) begins among these."""


class Sources(NamedTuple):
    """The sources of rows; a source may have rows of several labels, and is divided into pairs of source and label."""

    pair: np.ndarray
    """The pair of each row, of shape `(n,)`."""
    source: np.ndarray
    """The source of each pair, numbered from 0, ascending, of shape `(P,)`."""
    label: np.ndarray
    """The label of each pair."""
    size: np.ndarray
    """Rows of each pair."""

    @classmethod
    def of(cls, sources: np.ndarray, ids: np.ndarray) -> Sources:
        """Return the sources of rows, given as any numbers `(n,)`, and their labels `(n,)`."""
        number = int(ids.max(initial=0)) + 1
        pairs, pair, size = np.unique(sources * number + ids, return_inverse=True, return_counts=True)
        source, label = np.divmod(pairs, number)
        return cls(pair, np.unique(source, return_inverse=True)[1], label, size)

    @property
    def of_rows(self) -> np.ndarray:
        """The source of each row, of shape `(n,)`."""
        return self.source[self.pair]

    def rows(self, where: np.ndarray) -> Sources:
        """Return the sources of some of the rows, numbered as before."""
        pair = self.pair[where]
        return self._replace(pair=pair, size=np.bincount(pair, minlength=len(self.size)))

    def picked(self, present: sparse.csc_matrix, concepts: np.ndarray) -> Picked:
        """Return the rows that have the concepts of some tests, of shape `(t,)`."""
        rows, test = entries(present, concepts)
        cell = test * (int(self.source[-1]) + 1) + self.of_rows[rows]
        order = np.argsort(cell, kind="stable")
        return Picked(rows[order], test[order], np.flatnonzero(np.diff(cell[order], prepend=-1)))

    def squares(
        self, picked: Picked, values: np.ndarray, sums: np.ndarray, column: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        """Return the sum over sources of the squared sum of residual times concept less its share, of shape `(t,)`.

        The sum of a source is `A - q`: the residuals of its rows that have the concept, less those of all its rows
        times the concept's share. Its square is `A^2 - 2 A q + q^2`; the first two need only the rows that have the
        concept, and the sum of the last is a quadratic form of the shares.

        Args:
            picked: the rows that have each test's concept.
            values: the residual of each of these in its test, times the sign of its label.
            sums: sums of residuals over pairs, without signs, of shape `(P, K)`.
            column: which of them each test has.
            share: share of each label's rows that have the concept, times the sign of the label, of shape `(C, t)`.
        """
        test, source = picked.test[picked.starts], self.of_rows[picked.rows[picked.starts]]
        having = np.add.reduceat(values, picked.starts) if len(values) else values
        labels = np.bincount(self.source)
        first, drawn = np.cumsum(labels) - labels, np.zeros(len(having))
        for step in range(int(labels.max())):
            some = np.flatnonzero(step < labels[source])
            pair = first[source[some]] + step
            drawn[some] += sums[pair, column[test[some]]] * share[self.label[pair], test[some]]
        found = np.bincount(test, having * (having - 2 * drawn), minlength=len(column))
        shape = len(labels), len(share)
        for k in np.unique(column):
            table = sparse.csr_matrix((sums[:, k], (self.source, self.label)), shape=shape)
            mine = np.flatnonzero(column == k)
            found[mine] += (((table.T @ table) @ share[:, mine]) * share[:, mine]).sum(axis=0)
        return np.maximum(found, 0.0)

    def having(self, picked: Picked, labels: np.ndarray, tests: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how many sources have rows with, and without, each test's concept among some labels, `(C,)` bool."""
        source, kept = self.of_rows[picked.rows], labels[self.label[self.pair[picked.rows]]]
        hits = np.add.reduceat(kept.astype(np.int64), picked.starts) if len(kept) else kept
        size = np.bincount(self.source, self.size * labels[self.label])
        test, full = picked.test[picked.starts], hits == size[source[picked.starts]]
        with_it, all_of_them = (np.bincount(test[some], minlength=tests) for some in (hits > 0, (hits > 0) & full))
        return with_it, np.count_nonzero(size) - all_of_them

    def in_band(self, inside: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the fewer of sources with rows in and out of each band, of shape `(B,)`.

        Args:
            inside: rows of each pair in each band, of shape `(P, B)`.
            labels: which labels count for each band, boolean of shape `(B, C)`.
        """
        found = []
        for rows, counted in zip(inside.T, labels, strict=True):
            kept = counted[self.label]
            number = [np.count_nonzero(np.bincount(self.source[kept & some])) for some in (rows > 0, rows < self.size)]
            found.append(min(number))
        return np.array(found)


DRAWN_ROWS, FEWEST_DRAWN = 8000, 200
"""How much rows of one source are alike is taken from sources of about so many rows, and so many sources at least."""


class Likeness(NamedTuple):
    """How much rows of one source are alike, from which the power of the first pass follows."""

    concepts: np.ndarray
    """Correlation within sources of each concept less its label's share, of shape `(m,)`."""
    rows: np.ndarray
    """Rows of some sources, drawn at random."""
    sources: Sources
    """Those sources."""

    @classmethod
    def of(cls, shared: Sources, ids: np.ndarray, present: sparse.csr_matrix, share: np.ndarray) -> Likeness:
        """Return the likeness of rows with these labels, concepts and each label's shares of concepts, `(C, m)`."""
        source = shared.of_rows
        drawn = np.zeros(int(shared.source[-1]) + 1, dtype=bool)
        enough = max(FEWEST_DRAWN, DRAWN_ROWS * len(drawn) // len(ids))
        drawn[np.random.default_rng(0).permutation(len(drawn))[:enough]] = True
        some = np.flatnonzero(drawn[source])
        few = Sources.of(np.unique(source[some], return_inverse=True)[1], ids[some])
        shape = int(few.source[-1]) + 1, len(some)
        hits = sparse.csr_matrix((np.ones(len(some)), (few.of_rows, np.arange(len(some)))), shape) @ present[some]
        rows = sparse.csr_matrix((few.size.astype(np.float64), (few.source, few.label)), (shape[0], len(share)))
        squares = np.asarray(hits.power(2).sum(axis=0)).ravel() - 2 * ((rows.T @ hits).toarray() * share).sum(axis=0)
        squares += (((rows.T @ rows) @ share) * share).sum(axis=0)
        alone = np.bincount(ids[some], minlength=len(share)) @ (share * (1 - share))
        size = np.bincount(few.of_rows)
        pairs = max(float((size * (size - 1)).sum()), 1.0)
        alike = np.divide(squares - alone, alone * pairs / len(some), out=np.zeros(len(alone)), where=alone > 0)
        return cls(np.clip(alike, 0, 1), some, few)

    def design_effects(self, bands: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return how many times the variance of independent rows a test's is on average, at least 1, `(B, m)`.

        By Kish's (1965) formula for two variables: both must be alike within sources.

        Args:
            bands: the band of every row, of shape `(n,)`.
            share: share of each label's rows that each band has, of shape `(B, C)`.
        """
        shared = self.sources
        cell = bands[self.rows].astype(np.int64) * len(shared.size) + shared.pair
        inside = np.bincount(cell, minlength=len(share) * len(shared.size)).reshape(len(share), -1)
        starts = np.flatnonzero(np.diff(shared.source, prepend=-1))
        together = np.add.reduceat(inside - shared.size * share[:, shared.label], starts, axis=1)
        alone = (share * (1 - share))[:, shared.label] @ shared.size
        ratio = np.divide((together**2).sum(axis=1), alone, out=np.ones(len(share)), where=alone > 0)
        return np.maximum(1 + np.outer(ratio - 1, self.concepts), 1)


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
        sources: their sources, numbered.
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
    return float(np.sqrt((np.bincount(sources, weights=parts) ** 2).sum()) / scale), number


def warn_of_lookalikes(ds: Dataset, ids: np.ndarray, seed: int) -> None:
    """Warn if many rows have a near-duplicate in the embedding and the data do not say where rows come from.

    Args:
        ds: the rows; without `embedding` there is nothing to look at.
        ids: class ids, of shape `(n,)`.
        seed: of the rows looked at.
    """
    if columns.EMBEDDING not in ds.column_names or columns.SOURCE_ID in ds.column_names or len(ds) < FEWEST_ROWS:
        return
    rng = np.random.default_rng(seed)
    some = rng.choice(len(ds), size=min(MOST_ROWS, len(ds)), replace=False)
    rows = np.unique(np.minimum(np.concatenate([some, some + 1]), len(ds) - 1))
    values = columns.matrix(ds.select(rows), columns.EMBEDDING).astype(np.float64)
    if values.shape[1] < NARROW or not np.isfinite(values).all():
        return
    spread = values.std(axis=0)
    values = values / np.where(spread > 0, spread, np.inf)
    squared = (values**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squared[:, None] + squared - 2 * values @ values.T, 0))
    np.fill_diagonal(distance, np.inf)
    typical = np.median(distance[(ids[rows][:, None] == ids[rows]) & np.isfinite(distance)])
    alike = (distance.min(axis=1) < ALIKE * typical).mean()
    if alike >= WORTH_TELLING:
        warnings.warn(
            f"{100 * alike:.0f} % of {len(rows)} rows looked at have another that they look alike: frames of one "
            "video, or copies, are not independent, and tests that take them for independent confirm too much. Say "
            "which rows belong together in a column `source_id`",
            UserWarning,
            stacklevel=3,
        )
