"""The first pass: a p-value for every unit, band and concept of the discovery half."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse, special, stats

from hf_midrange.association.counting import Occurrences, UnitCounts, count_unit, occurrences
from hf_midrange.association.exact import mid_p_values
from hf_midrange.association.screening import Margins, margins, unit_sides
from hf_midrange.association.sides import FEW_BAND, FEW_CONCEPT, orient, testable_sides
from hf_midrange.association.stratified import Tables, chi_square_p, moments
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

    def unit_bands(self, unit: int) -> np.ndarray:
        """Return the band of one unit on each row, of shape `(n,)`."""
        return self.bands[:, unit][self.at]


class Options(NamedTuple):
    """What `associate` was asked for."""

    alpha: float
    method: Literal["bh", "by"]
    """Benjamini-Hochberg or Benjamini-Yekutieli."""
    least: int
    exact_below: float


class Tested(NamedTuple):
    """P-values of the first pass."""

    p: np.ndarray
    """Of shape `(U, B, m)`; NaN where not tested."""
    power: np.ndarray
    """Of the same shape: the chance to see a true odds ratio of 3 at level alpha, before adjustment."""
    not_tested: dict[str, int]


def test_all(problem: Problem, units: list[int], options: Options) -> Tested:
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
        p[unit], power[unit] = _test_unit(some, unit, bands, own, options)
        missed += _reasons(bands, own, np.isnan(p[unit]), options.least)
    return Tested(p, power, dict(missed))


def _test_unit(
    problem: Problem, unit: int, bands: np.ndarray, known: Margins, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and power of every band and concept of a unit, each of shape `(B, m)`."""
    top, member = problem.number - 1, problem.members[unit]
    members, strangers = unit_sides(bands, known, problem.number, member)
    turned = np.ones((problem.number, 1))
    turned[1:top] = -1  # in the middle members are turned against strangers; see `sides.orient`
    excess = turned * members.where(options.least, members.excess) + strangers.where(options.least, strangers.excess)
    variance = members.where(options.least, members.variance) + strangers.where(options.least, strangers.variance)
    p = chi_square_p(excess, variance)
    small = np.argwhere((p <= options.alpha) & (variance < options.exact_below))
    if small.size:
        tables = tables_of(problem, unit, small)
        kept = tables.kept(testable_sides(tables, member, options.least).both())
        p[tuple(small.T)] = mid_p_values(orient(kept, member, small[:, 0], top), np.arange(len(small)))
    return p, np.where(variance > 0, power_at(variance, options.alpha), np.nan)


def tables_of(problem: Problem, unit: int, tests: np.ndarray) -> Tables:
    """Return the tables of some tests of a unit, one stratum a label, of shape `(C, t)`.

    Args:
        problem: the rows; those without a band of the unit are left out.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`.
    """
    wanted, column = np.unique(tests[:, 1], return_inverse=True)
    narrow = problem._replace(present=problem.present[:, wanted])
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


def adjusted(p: np.ndarray, method: Literal["bh", "by"]) -> np.ndarray:
    """Return false-discovery-adjusted p-values of the same shape; NaN stays NaN and is not counted as a test."""
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested], method=method)
    return q


def power_at(variance: np.ndarray, alpha: float, odds_ratio: float = 3.0) -> np.ndarray:
    """Return the chance that rows with this null variance of the count show an odds ratio of 3 at level alpha.

    In the normal approximation, in which the log odds ratio has variance `1 / variance`.
    """
    return special.ndtr(np.log(odds_ratio) * np.sqrt(variance) - special.ndtri(1 - alpha / 2))


def p_values(tables: Tables, options: Options) -> np.ndarray:
    """Return p-values of oriented tables: Cochran-Mantel-Haenszel, exact mid-p where it matters and rows are few.

    Where the null variance of the count is below `options.exact_below`, each p-value that could be called significant
    (at most alpha) is replaced by the exact mid-p value; larger ones cannot be rejected either way.
    """
    excess, variance = moments(tables)
    p = chi_square_p(excess, variance)
    small = np.flatnonzero((p <= options.alpha) & (variance < options.exact_below))
    if small.size:
        p[small] = mid_p_values(tables, small)
    return p


def _reasons(bands: np.ndarray, known: Margins, untested: np.ndarray, least: int) -> Counter[str]:
    """Count why tests of a unit were not made: the band or the concept leaves too few rows."""
    total, hits = known.total.sum(), known.with_concept.sum(axis=0)
    in_band = np.bincount(bands, minlength=len(untested))[:, None]
    few = untested & (np.minimum(in_band, total - in_band) < least)
    rare = untested & ~few & (np.minimum(hits, total - hits) < least)
    counts = {FEW_BAND: few, FEW_CONCEPT: rare, "no label has rows enough for both": untested & ~few & ~rare}
    return Counter({reason: int(where.sum()) for reason, where in counts.items() if where.any()})
