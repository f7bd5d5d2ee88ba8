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

from hf_midrange.association.exact import mid_p_values
from hf_midrange.association.ranks import RankedRows
from hf_midrange.association.tables import (
    FEW_BAND,
    FEW_CONCEPT,
    MINIMUM_ROWS,
    Occurrences,
    Tables,
    UnitCounts,
    chi_square_p,
    count_unit,
    moments,
    occurrences,
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

    def rows(self, where: np.ndarray) -> Problem:
        """Return some of the rows."""
        return self._replace(at=self.at[where], ids=self.ids[where], present=self.present[where])

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
    exact: bool = True
    """Whether small p-values of few rows are exact."""


EXACT_BELOW = 25.0
"""Under this null variance of the count, p-values at or below alpha are exact mid-p values."""


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
    known = margins(problem.present, problem.ids, problem.classes)
    missed: Counter[str] = Counter()
    for unit in units:
        bands = problem.unit_bands(unit)
        defined = bands >= 0
        some, own = problem, known
        if not defined.all():
            some, bands = problem.rows(defined), bands[defined]
            own = margins(some.present, some.ids, some.classes)
        p[unit], power[unit] = _test_unit(some, unit, bands, own, level)
        missed += _reasons(bands, own, np.isnan(p[unit]))
    return Tested(p, power, dict(missed))


def _test_unit(
    problem: Problem, unit: int, bands: np.ndarray, known: Margins, level: Level
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and power of every band and concept of a unit, each of shape `(B, m)`."""
    top, member = problem.number - 1, problem.members[unit]
    members, strangers = unit_sides(bands, known, problem.number, member)
    members_sign, strangers_sign = signs(np.arange(problem.number)[:, None], top)
    excess = members_sign * members.tested(members.excess) + strangers_sign * strangers.tested(strangers.excess)
    variance = members.tested(members.variance) + strangers.tested(strangers.variance)
    p = chi_square_p(excess, variance)
    small = np.argwhere((p <= level.alpha) & (variance < EXACT_BELOW) & level.exact)
    if small.size:
        tables = tables_of(problem, unit, small)
        kept = tables.kept(testable_sides(tables, member).both())
        p[tuple(small.T)] = mid_p_values(orient(kept, member, small[:, 0], top), np.arange(len(small)))
    return p, np.where(variance > 0, power_at(variance, level.alpha), np.nan)


def tables_of(problem: Problem, unit: int, tests: np.ndarray) -> Tables:
    """Return the tables of some tests of a unit, one stratum a label, of shape `(C, t)`.

    Args:
        problem: the rows; those without a band of the unit are left out.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`.
    """
    wanted, column = np.unique(tests[:, 1], return_inverse=True)
    narrow = problem.of_concepts(wanted)
    counts, found = unit_counts(narrow, unit, occurrences(narrow.present, narrow.ids, narrow.classes))
    per_band = [counts.tables(band, found) for band in range(problem.number)]
    return Tables(*(np.stack(parts)[tests[:, 0], :, column].T for parts in zip(*per_band, strict=True)))


def unit_counts(problem: Problem, unit: int, found: Occurrences) -> tuple[UnitCounts, Occurrences]:
    """Return one unit's counts over the rows where it has a band, and the occurrences in these rows."""
    bands = problem.unit_bands(unit)
    defined = bands >= 0
    if not defined.all():
        found = occurrences(problem.present[defined], problem.ids[defined], problem.classes)
    return count_unit(bands[defined], found, problem.number), found


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
    (at most alpha) is replaced by the exact mid-p value; larger ones cannot be rejected either way.
    """
    excess, variance = moments(tables)
    p = chi_square_p(excess, variance)
    small = np.flatnonzero((p <= level.alpha) & (variance < EXACT_BELOW) & level.exact)
    if small.size:
        p[small] = mid_p_values(tables, small)
    return p


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
    everything = RankedRows.of(problem.ids, problem.classes, problem.present)
    for unit, whole in values:
        defined = problem.unit_bands(unit) >= 0
        some, rows = problem, everything
        if not defined.all():
            some = problem.rows(defined)
            rows = RankedRows.of(some.ids, some.classes, some.present)
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

    def tested(self, values: np.ndarray) -> np.ndarray:
        """Return `values` where the side has rows enough to be tested, and 0 elsewhere."""
        return np.where(self.fewest >= MINIMUM_ROWS, values, 0.0)


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
