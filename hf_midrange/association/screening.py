"""The first pass: a p-value for every unit, band and concept of the discovery half, and for the whole range.

The Cochran-Mantel-Haenszel sums over labels are bilinear in what a band gives (rows of each label in it) and what a
concept gives (rows of each label with it): two small matrix products make them for all tests of a unit, so that the
cost of a unit is one pass over the concepts' rows, however many labels there are.

A concept too rare to show in any one band is sought over the whole range: a band holds a part of the rows, and a rare
phrase a few of these; the rank of every row that has the phrase says more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import sparse, special, stats

from hf_midrange.association.clusters import Clusters, as_normal, clusters
from hf_midrange.association.exact import mid_p_values
from hf_midrange.association.ranks import RankedRows
from hf_midrange.association.tables import (
    FEW_BAND,
    FEW_CONCEPT,
    MINIMUM_ROWS,
    Tables,
    cell_tables,
    chi_square_p,
    moments,
    orient,
    signs,
    testable_sides,
)
from hf_midrange.io.blocks import Entries


class Problem(NamedTuple):
    """The rows to test, as arrays."""

    bands: np.ndarray | Entries
    """Of shape `(N, U)`, int8; -1 where undefined. Shared by all parts of the data; some units are read at a time."""
    at: np.ndarray
    """Which rows of `bands` are meant, of shape `(n,)`."""
    ids: np.ndarray
    present: sparse.csr_matrix
    """Which row has which concept, of shape `(n, m)`."""
    classes: int
    number: int
    """How many bands there are."""
    members: tuple[int | None, ...]
    """The class of each unit; None where it has none."""
    sources: np.ndarray | None = None
    """The source of each row, of shape `(n,)`; None where each row is one of its own."""

    def rows(self, where: np.ndarray) -> Problem:
        """Return some of the rows."""
        sources = None if self.sources is None else self.sources[where]
        return self._replace(at=self.at[where], ids=self.ids[where], present=self.present[where], sources=sources)

    def of_concepts(self, concepts: np.ndarray) -> Problem:
        """Return the rows with some of their concepts alone."""
        return self._replace(present=self.present[:, concepts])

    def unit_bands(self, unit: int) -> np.ndarray:
        """Return the band of one unit on each row, of shape `(n,)`."""
        return self.bands[:, unit][self.at]


class Level(NamedTuple):
    """How sure a finding must be."""

    alpha: float = 0.05
    """Of the false-discovery rate and of every side test."""
    smallest: float = 1.25
    """The smallest odds ratio of interest, or one over it: what is smaller is not confirmed, however sure it is."""
    exact: bool = True
    """Whether small p-values of few rows are exact."""


EXACT_BELOW = 25.0
"""Under this null variance of the count, p-values at or below alpha are exact mid-p values."""

FAR, EXACT_FAR_BELOW = 1e-4, 100.0
"""P-values as small as this are exact up to a larger variance: far out the normal tail is wrong by factors."""


class Tested(NamedTuple):
    """P-values of the first pass."""

    p: np.ndarray
    """Of shape `(U, B, m)`; NaN where not tested."""
    power: np.ndarray
    """Of the same shape: the chance to see a true odds ratio of 3 at level alpha, before adjustment."""
    not_tested: dict[str, int]


def test_all(problem: Problem, units: list[int], level: Level) -> Tested:
    """Test every concept in every band of `units`."""
    p = np.full((len(problem.members), problem.number, problem.present.shape[1]), np.nan)
    power = p.astype(np.float32)
    known = margins_of(problem)
    missed: Counter[str] = Counter()
    for unit in units:
        bands = problem.unit_bands(unit)
        defined = bands >= 0
        some, own = problem, known
        if not defined.all():
            some, bands = problem.rows(defined), bands[defined]
            own = margins_of(some)
        p[unit], power[unit] = _test_unit(some, unit, bands, own, level)
        missed += _reasons(bands, own, np.isnan(p[unit]))
    return Tested(p, power, dict(missed))


def _test_unit(
    problem: Problem, unit: int, bands: np.ndarray, known: Margins, level: Level
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and power of every band and concept of a unit, each of shape `(B, m)`."""
    top, member = problem.number - 1, problem.members[unit]
    scores = unit_scores(bands, known, problem.number, member)
    pooled = scores.pooled(scores.members.tested, scores.strangers.tested)
    p = pooled.p
    if known.clusters is None:
        small = np.argwhere(_inexact(p, pooled.variance, level))
        if small.size:
            tables = cell_tables(bands, problem.ids, problem.classes, known.columns, small)
            kept = tables.kept(testable_sides(tables, member).both())
            p[tuple(small.T)] = mid_p_values(orient(kept, member, small[:, 0], top), np.arange(len(small)))
    return p, pooled.power(level.alpha)


def adjusted(p: np.ndarray) -> np.ndarray:
    """Return Benjamini-Hochberg q-values of the same shape; NaN stays NaN and is not counted as a test."""
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return q


def power_at(variance: np.ndarray, alpha: float, odds_ratio: float = 3.0) -> np.ndarray:
    """Return the chance that rows with this null variance of the count show an odds ratio of 3 at level alpha.

    In the normal approximation, in which the log odds ratio has variance `1 / variance`.
    """
    return special.ndtr(np.log(odds_ratio) * np.sqrt(variance) - special.ndtri(1 - alpha / 2))


def p_values(tables: Tables, level: Level) -> np.ndarray:
    """Return p-values of oriented tables: Cochran-Mantel-Haenszel, exact mid-p where it matters and rows are few.

    Where the null variance of the count is below `EXACT_BELOW`, each p-value that could be called significant
    (at most alpha) is replaced by the exact mid-p value; larger ones cannot be rejected either way. Those far out in
    the tail are replaced up to `EXACT_FAR_BELOW`.
    """
    excess, variance = moments(tables)
    p = chi_square_p(excess, variance)
    small = np.flatnonzero(_inexact(p, variance, level))
    if small.size:
        p[small] = mid_p_values(tables, small)
    return p


def _inexact(p: np.ndarray, variance: np.ndarray, level: Level) -> np.ndarray:
    """Return which p-values of the normal approximation are to be replaced by exact ones, boolean."""
    near = (p <= level.alpha) & (variance < EXACT_BELOW)
    return (near | ((p <= FAR) & (variance < EXACT_FAR_BELOW))) & level.exact


def _reasons(bands: np.ndarray, known: Margins, untested: np.ndarray) -> Counter[str]:
    """Count why tests of a unit were not made: the band or the concept leaves too few rows."""
    total, hits = known.total.sum(), known.with_concept.sum(axis=0)
    in_band = np.bincount(bands, minlength=len(untested))[:, None]
    few = untested & (np.minimum(in_band, total - in_band) < MINIMUM_ROWS)
    rare = untested & ~few & (np.minimum(hits, total - hits) < MINIMUM_ROWS)
    counts = {FEW_BAND: few, FEW_CONCEPT: rare, "no label has rows enough for both": untested & ~few & ~rare}
    return Counter({reason: int(where.sum()) for reason, where in counts.items() if where.any()})


def range_p_values(problem: Problem, values: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return two-sided p-values of no shift within any label, of shape `(U, m)`; NaN where not tested.

    Args:
        problem: the rows to test on.
        values: units, each with its values over all rows of the data.
    """
    p = np.full((len(problem.members), problem.present.shape[1]), np.nan)
    everything = RankedRows.of(problem.ids, problem.classes, problem.present, problem.sources)
    for unit, whole in values:
        defined = problem.unit_bands(unit) >= 0
        some, rows = problem, everything
        if not defined.all():
            some = problem.rows(defined)
            rows = RankedRows.of(some.ids, some.classes, some.present, some.sources)
        p[unit] = rows.shift(whole[some.at]).p
    return p


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
    columns: sparse.csc_matrix
    """The same by concept."""
    clusters: Clusters | None
    """The sources of the rows, where they share any."""


def margins_of(problem: Problem) -> Margins:
    """Return the margins of the rows of a problem."""
    return margins(problem.present, problem.ids, problem.classes, problem.sources)


def margins(present: sparse.csr_matrix, ids: np.ndarray, classes: int, sources: np.ndarray | None = None) -> Margins:
    """Return the margins of a boolean matrix of shape `(n, m)` under labels `ids` of shape `(n,)`."""
    counted = present.astype(np.float32)
    rows = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids, minlength=classes))[:-1])
    by_label = [(some, counted[some]) for some in rows]
    hits = np.stack([np.asarray(part.sum(axis=0), dtype=np.float64).ravel() for _, part in by_label])
    total = np.array([len(some) for some in rows], dtype=np.float64)
    n = np.maximum(total, 2)[:, None]
    spread = hits * (total[:, None] - hits) / (n**2 * (n - 1))
    varies = ((hits > 0) & (hits < total[:, None])).astype(np.float64)
    shared = None if sources is None else clusters(present, ids, classes, sources)
    return Margins(total, hits, hits / n, spread, varies, counted, ids, by_label, counted.tocsc(), shared)


class Pooled(NamedTuple):
    """Oriented sums over the sides that are tested, each of shape `(B, m)` or of that of some tests."""

    excess: np.ndarray
    variance: np.ndarray
    """Of the excess where rows are independent."""
    robust: np.ndarray
    """Of the excess by source, where rows share sources; else `variance`."""
    sources: np.ndarray | None
    """How many sources carry the test: the fewest of those in the band, outside, with and without the concept."""

    @property
    def p(self) -> np.ndarray:
        """Two-sided p-values; NaN where the variance is 0."""
        if self.sources is None:
            return chi_square_p(self.excess, self.variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(self.robust > 0, self.excess / np.sqrt(self.robust), np.nan)
        return special.erfc(np.abs(as_normal(z, self.sources)) / np.sqrt(2))

    @property
    def information(self) -> np.ndarray:
        """One over the variance of the log odds ratio where there is no association; 0 where nothing is tested."""
        return np.divide(self.variance**2, self.robust, out=np.zeros_like(self.variance), where=self.robust > 0)

    def power(self, alpha: float) -> np.ndarray:
        """Return the chance to see an odds ratio of 3; NaN where nothing is tested."""
        return np.where(self.variance > 0, power_at(self.information, alpha), np.nan)


class Side(NamedTuple):
    """Members or strangers of one unit: sums over their labels, each of shape `(B, m)`."""

    excess: np.ndarray
    """Rows in the band with the concept, less those expected without association."""
    variance: np.ndarray
    fewest: np.ndarray
    """The smallest margin of the labels that carry information: in the band, outside, with and without the concept. Of
    rows, or where rows share them, of sources."""
    robust: np.ndarray | None = None
    """The variance by source, where rows share sources."""

    @property
    def tested(self) -> np.ndarray:
        """Where the side has rows enough to be tested, boolean."""
        return self.fewest >= MINIMUM_ROWS


class Scores(NamedTuple):
    """Both sides of one unit."""

    members: Side
    strangers: Side
    both: np.ndarray | None
    """The variance of both sides together by source, where rows share sources."""

    def pooled(self, members: np.ndarray, strangers: np.ndarray) -> Pooled:
        """Return the oriented sums over the sides that are to be tested, boolean of shape `(B, m)` each."""
        one, other = self.members, self.strangers
        number = len(one.excess)
        turned = signs(np.arange(number)[:, None], number - 1)
        excess = turned[0] * members * one.excess + turned[1] * strangers * other.excess
        variance = members * one.variance + strangers * other.variance
        if one.robust is None or other.robust is None or self.both is None:
            return Pooled(excess, variance, variance, None)
        alone = members * one.robust + strangers * other.robust
        robust = np.where(members & strangers, self.both, alone)
        return Pooled(excess, variance, robust, members * one.fewest + strangers * other.fewest)


def unit_scores(bands: np.ndarray, known: Margins, number: int, member: int | None) -> Scores:
    """Return the sums of one unit whose rows all have a band.

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
    own, of_members = np.zeros(labels, dtype=bool), np.zeros_like(both)
    if member is not None:
        own[member] = True
        rows, part = known.by_label[member]
        of_members = np.asarray(part.T @ where[rows], dtype=np.float64).T
    members = _side(of_members, in_band, known, own.astype(np.float64))
    strangers = _side(both - of_members, in_band, known, (~own).astype(np.float64))
    if known.clusters is None:
        return Scores(members, strangers, None)
    share = (in_band / np.maximum(known.total, 1)).T.astype(np.float32)
    residuals = where - share.take(known.ids, axis=0)
    squares = known.clusters.side_squares(residuals, member, signs(np.arange(number), number - 1))
    counted = known.clusters.in_band(bands, number)
    members, strangers = (
        side._replace(robust=robust, fewest=_fewest_sources(counted, known, labels_of))
        for side, robust, labels_of in ((members, squares[0], own), (strangers, squares[1], ~own))
    )
    return Scores(members, strangers, squares[2])


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


def _fewest_sources(counted: tuple[np.ndarray, np.ndarray], known: Margins, labels: np.ndarray) -> np.ndarray:
    """Return the smallest margin in sources over some labels that carry information, of shape `(B, m)`."""
    inside, outside = (number * labels for number in counted)
    cut = ((inside > 0) & (outside > 0)).astype(np.float64)
    shared = known.clusters
    assert shared is not None
    of_concept = [cut @ (number * known.varies) for number in (shared.having, shared.lacking)]
    return np.min([(inside * cut) @ known.varies, (outside * cut) @ known.varies, *of_concept], axis=0)
