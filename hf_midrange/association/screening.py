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

from hf_midrange.association.ranks import RankedRows, column_of
from hf_midrange.association.sources import Likeness, Picked, Sources, as_normal
from hf_midrange.association.tables import (
    FEW_BAND,
    FEW_CONCEPT,
    MINIMUM_ROWS,
    Tables,
    cell_tables,
    chi_square_p,
    mid_p_values,
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
    sources: Sources | None = None
    """The sources of the rows; None where each row is one of its own."""

    def rows(self, where: np.ndarray) -> Problem:
        """Return some of the rows."""
        sources = None if self.sources is None else self.sources.rows(where)
        return self._replace(at=self.at[where], ids=self.ids[where], present=self.present[where], sources=sources)

    def of_concepts(self, concepts: np.ndarray) -> Problem:
        """Return the rows with some of their concepts alone."""
        return self._replace(present=self.present[:, concepts])

    def ranked(self) -> RankedRows:
        """Return the rows for tests over the whole range."""
        return RankedRows.of(self.ids, self.classes, self.present, self.sources)

    def margins(self) -> Margins:
        """Return what no band changes."""
        return margins(self.present, self.ids, self.classes, self.sources)

    def unit_bands(self, unit: int) -> np.ndarray:
        """Return the band of one unit on each row, of shape `(n,)`."""
        return self.bands[:, unit][self.at]


class Level(NamedTuple):
    """How sure a finding must be."""

    alpha: float = 0.05
    """Of the false-discovery rate and of every side test."""
    smallest: float = 1.25
    """The smallest odds ratio of interest: confirmed is what is surely above it, or below one over it."""
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
    """Test every concept in every band of `units`, rows taken for independent.

    Where rows share sources, p-values by source are never smaller: only what is discovered needs them (`p_by_source`).
    """
    p = np.full((len(problem.members), problem.number, problem.present.shape[1]), np.nan)
    power = p.astype(np.float32)
    known = problem.margins()
    missed: Counter[str] = Counter()
    for unit in units:
        bands = problem.unit_bands(unit)
        defined = bands >= 0
        some, own = problem, known
        if not defined.all():
            some, bands = problem.rows(defined), bands[defined]
            own = some.margins()
        p[unit], power[unit] = _test_unit(some, unit, bands, own, level)
        missed += _reasons(bands, own, np.isnan(p[unit]))
    return Tested(p, power, dict(missed))


def _test_unit(
    problem: Problem, unit: int, bands: np.ndarray, known: Margins, level: Level
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and power of every band and concept of a unit, each of shape `(B, m)`."""
    top, member = problem.number - 1, problem.members[unit]
    sides = unit_sides(bands, known, problem.number, member)
    turned = signs(np.arange(top + 1)[:, None], top)
    excess = sum(sign * side.tested * side.excess for sign, side in zip(turned, sides, strict=True))
    variance = sum(side.tested * side.variance for side in sides)
    p = chi_square_p(excess, variance)
    small = np.argwhere(_inexact(p, variance, level))
    if small.size and problem.sources is None:
        tables = cell_tables(bands, problem.ids, problem.classes, known.columns, small)
        kept = tables.kept(testable_sides(tables, member).both())
        p[tuple(small.T)] = mid_p_values(orient(kept, member, small[:, 0], top), np.arange(len(small)))
    information = variance
    if known.likeness is not None:
        share = share_in_band(bands, problem.ids, problem.number, problem.classes)
        information = variance / known.likeness.design_effects(bands, share)
    return p, np.where(variance > 0, power_at(information, level.alpha), np.nan)


def p_by_source(problem: Problem, unit: int, tests: np.ndarray, whole: np.ndarray, level: Level) -> np.ndarray:
    """Return p-values by source of some tests of a unit, of shape `(t,)`; NaN where too few sources carry them.

    Args:
        problem: the rows to test on.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`; the band after the highest is the whole range.
        whole: the unit's values over all rows of the data.
        level: how sure a finding must be.
    """
    p, ranged = np.empty(len(tests)), tests[:, 0] == problem.number
    for some in np.flatnonzero(~ranged), np.flatnonzero(ranged):
        if not some.size:
            continue
        kept, concept = np.unique(tests[some, 1], return_inverse=True)
        rows = UnitRows.of(problem, unit, kept)
        if ranged[some[0]]:
            p[some] = rows.part.ranked().shift(whole[rows.part.at]).p[concept.reshape(-1)]
            continue
        narrow = np.column_stack([tests[some, 0], concept.reshape(-1)])
        tables = rows.tables(narrow)
        tested = rows.tested_sides(tables, narrow)
        turned = orient(tables.kept(rows.strata(*tested)), rows.member, narrow[:, 0], problem.number - 1)
        p[some] = rows.score_test(turned, narrow, tested).p(level)
    return p


class Pooled(NamedTuple):
    """Sums over the sides that are tested, each of shape `(t,)`."""

    tables: Tables
    excess: np.ndarray
    variance: np.ndarray
    """Of the excess where rows are independent."""
    robust: np.ndarray
    """Of the excess by source, where rows share sources; else `variance`."""
    sources: np.ndarray | None
    """How many sources carry the test: the fewest of those in the band, outside, with and without the concept."""

    def p(self, level: Level) -> np.ndarray:
        """Return two-sided p-values; NaN where the variance is 0."""
        if self.sources is None:
            return p_values(self.tables, level)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(self.robust > 0, self.excess / np.sqrt(self.robust), np.nan)
        return special.erfc(np.abs(as_normal(z, self.sources)) / np.sqrt(2))

    @property
    def share(self) -> np.ndarray:
        """How many independent rows say as much as one of these does; NaN where nothing is tested."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.robust > 0, self.variance / self.robust, np.nan)

    def power(self, level: Level) -> np.ndarray:
        """Return the chance to confirm an odds ratio of 3; NaN where nothing is tested."""
        return power_at(self.variance * self.share, level.alpha, level.smallest)


class UnitRows(NamedTuple):
    """Rows in which a unit has a band."""

    part: Problem
    bands: np.ndarray
    present: sparse.csc_matrix
    """Which row has which concept, of shape `(n, m)`."""
    member: int | None

    @classmethod
    def of(cls, part: Problem, unit: int, concepts: np.ndarray) -> UnitRows:
        """Return the rows of a part of the data with some of their concepts."""
        bands = part.unit_bands(unit)
        rows = part.of_concepts(concepts).rows(bands >= 0)
        return cls(rows, bands[bands >= 0], rows.present.tocsc(), part.members[unit])

    @property
    def ids(self) -> np.ndarray:
        """The label of each row, of shape `(n,)`."""
        return self.part.ids

    def tables(self, tests: np.ndarray) -> Tables:
        """Return the tables of some tests, pairs (band, concept), of shape `(C, t)`."""
        return cell_tables(self.bands, self.ids, self.part.classes, self.present, tests)

    def strata(self, members: np.ndarray, strangers: np.ndarray) -> np.ndarray:
        """Return what labels have in each test, `(C, t)`, given what members and strangers have, `(t,)` each."""
        chosen = np.repeat(strangers[None], self.part.classes, axis=0)
        if self.member is not None:
            chosen[self.member] = members
        return chosen

    def tested_sides(self, tables: Tables, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where members and strangers have rows, and sources, enough to be tested, boolean `(t,)` each."""
        sides = testable_sides(tables, self.member)
        found = [np.any(side, axis=0) for side in sides]
        if self.part.sources is not None:
            grouped = self._grouped(tests)
            for side, labels in zip(found, self.labels_of_sides(), strict=True):
                np.logical_and(side, self._carried_by(grouped, tests, labels) >= MINIMUM_ROWS, out=side)
        return found[0], found[1]

    def score_test(self, tables: Tables, tests: np.ndarray, tested: tuple[np.ndarray, np.ndarray]) -> Pooled:
        """Return the test of each table.

        Args:
            tables: of `tests`, turned, strata that take no part emptied.
            tests: pairs (band, concept).
            tested: whether members and strangers take part.
        """
        excess, variance = moments(tables)
        if self.part.sources is None:
            return Pooled(tables, excess, variance, variance, None)
        grouped, (own, others) = self._grouped(tests), self.labels_of_sides()
        number = np.zeros(len(tests))
        for sides, labels in (((True, True), own | others), ((True, False), own), ((False, True), others)):
            mine = (tested[0] == sides[0]) & (tested[1] == sides[1])
            number[mine] = self._carried_by(grouped, tests, labels)[mine] if mine.any() else 0
        members, strangers = signs(tests[:, 0], self.part.number - 1)
        squares = self._squares(grouped, tests, self.strata(members * tested[0], strangers * tested[1]))
        return Pooled(tables, excess, variance, np.maximum(variance, squares), number)

    def residuals(self, band: int, strata: np.ndarray) -> np.ndarray:
        """Return each row's part in one band, less its label's, turned, over some labels, `(C,)` bool; `(n,)`."""
        own, _ = self.labels_of_sides()
        turned = np.where(own, *signs(np.array(band), self.part.number - 1)) * strata
        return turned[self.ids] * centred(self.bands == band, self.ids)

    def row_scores(self, residuals: np.ndarray, concept: int) -> np.ndarray:
        """Return what each row adds to a sum of residuals times concept, in its deviations among independent rows."""
        has = centred(column_of(self.present, concept), self.ids)
        variance = np.bincount(self.ids, has**2) / np.maximum(np.bincount(self.ids), 1)
        deviation = np.sqrt((residuals**2 * variance[self.ids]).sum())
        return residuals * has / max(deviation, 1e-12)

    def labels_of_sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which labels are the members', and which the strangers', boolean of shape `(C,)` each."""
        own = np.arange(self.part.classes) == (-1 if self.member is None else self.member)
        return own, ~own

    def _grouped(self, tests: np.ndarray) -> tuple[Sources, Picked, np.ndarray]:
        """Return the sources, the rows that have the concepts of some tests, and how many each pair has in a band."""
        shared = self.part.sources
        assert shared is not None
        size, cell = len(shared.size), shared.pair * self.part.number + self.bands
        inside = np.bincount(cell, minlength=size * self.part.number).reshape(size, self.part.number)
        return shared, shared.picked(self.present, tests[:, 1]), inside

    def _squares(self, grouped: tuple[Sources, Picked, np.ndarray], tests: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Return the variances by source of tests whose labels take part with a sign, or not, `(C, t)`."""
        (shared, picked, inside), band = grouped, tests[:, 0]
        share = share_in_band(self.bands, self.ids, self.part.number, self.part.classes)
        row, test = self.ids[picked.rows], picked.test
        values = ((self.bands[picked.rows] == band[test]) - share[band[test], row]) * turn[row, test]
        total = np.bincount(self.ids, minlength=self.part.classes)[:, None]
        having = np.bincount(row * len(band) + test, minlength=turn.size).reshape(turn.shape)
        sums = inside - shared.size[:, None] * share[:, shared.label].T
        return shared.squares(picked, values, sums, band, turn * having / np.maximum(total, 1))

    def _carried_by(
        self, grouped: tuple[Sources, Picked, np.ndarray], tests: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Return how many sources carry each test over some labels, boolean of shape `(C,)`."""
        (shared, picked, inside), share = (
            grouped,
            share_in_band(self.bands, self.ids, self.part.number, self.part.classes),
        )
        in_band = shared.in_band(inside, labels & (share > 0) & (share < 1))[tests[:, 0]]
        return np.min([in_band, *shared.having(picked, labels, len(tests))], axis=0)


def share_in_band(bands: np.ndarray, ids: np.ndarray, number: int, classes: int) -> np.ndarray:
    """Return the share of each label's rows that each band has, of shape `(B, C)`."""
    in_band = np.bincount(bands.astype(np.int64) * classes + ids, minlength=number * classes).reshape(number, classes)
    return in_band / np.maximum(in_band.sum(axis=0), 1)


def centred(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return values less their mean within each label."""
    exact = values.astype(np.float64)
    return exact - (np.bincount(ids, weights=exact) / np.maximum(np.bincount(ids), 1))[ids]


def adjusted(p: np.ndarray) -> np.ndarray:
    """Return Benjamini-Hochberg q-values of the same shape; NaN stays NaN and is not counted as a test."""
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return q


def power_at(information: np.ndarray, alpha: float, smallest: float = 1.0) -> np.ndarray:
    """Return the chance that an odds ratio of 3 is seen at level alpha to be above the smallest of interest.

    In the normal approximation, in which the log odds ratio has variance `1 / information`.
    """
    return special.ndtr(np.log(3.0 / smallest) * np.sqrt(information) - special.ndtri(1 - alpha / 2))


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
    """Return two-sided p-values of no shift within any label, of independent rows, of shape `(U, m)`; NaN where none.

    Args:
        problem: the rows to test on.
        values: units, each with its values over all rows of the data.
    """
    p = np.full((len(problem.members), problem.present.shape[1]), np.nan)
    problem = problem._replace(sources=None)
    everything = problem.ranked()
    for unit, whole in values:
        defined = problem.unit_bands(unit) >= 0
        some, rows = problem, everything
        if not defined.all():
            some = problem.rows(defined)
            rows = some.ranked()
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
    likeness: Likeness | None
    """How much rows of one source are alike, where rows share any."""


def margins(present: sparse.csr_matrix, ids: np.ndarray, classes: int, sources: Sources | None = None) -> Margins:
    """Return the margins of a boolean matrix of shape `(n, m)` under labels `ids`, of shape `(n,)`, and sources."""
    counted = present.astype(np.float32)
    rows = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids, minlength=classes))[:-1])
    by_label = [(some, counted[some]) for some in rows]
    hits = np.stack([np.asarray(part.sum(axis=0), dtype=np.float64).ravel() for _, part in by_label])
    total = np.array([len(some) for some in rows], dtype=np.float64)
    n = np.maximum(total, 2)[:, None]
    spread = hits * (total[:, None] - hits) / (n**2 * (n - 1))
    varies = ((hits > 0) & (hits < total[:, None])).astype(np.float64)
    likeness = None if sources is None else Likeness.of(sources, ids, counted, hits / n)
    return Margins(total, hits, hits / n, spread, varies, counted, ids, by_label, counted.tocsc(), likeness)


class Side(NamedTuple):
    """Members or strangers of one unit: sums over their labels, each of shape `(B, m)`."""

    excess: np.ndarray
    """Rows in the band with the concept, less those expected without association."""
    variance: np.ndarray
    fewest: np.ndarray
    """The smallest margin of the labels that carry information: in the band, outside, with and without the concept."""

    @property
    def tested(self) -> np.ndarray:
        """Where the side has rows enough to be tested, boolean."""
        return self.fewest >= MINIMUM_ROWS


def unit_sides(bands: np.ndarray, known: Margins, number: int, member: int | None) -> tuple[Side, Side]:
    """Return the sums over members and over strangers of one unit whose rows all have a band.

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
    own, of_members = np.zeros(labels), np.zeros_like(both)
    if member is not None:
        own[member] = 1
        rows, part = known.by_label[member]
        of_members = np.asarray(part.T @ where[rows], dtype=np.float64).T
    return _side(of_members, in_band, known, own), _side(both - of_members, in_band, known, 1 - own)


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
