"""The first pass: a p-value for every unit, band and concept of the discovery half."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse, stats

from hf_midrange.association.counting import Occurrences, UnitCounts, count_unit, occurrences
from hf_midrange.association.exact import mid_p_values
from hf_midrange.association.sides import FEW_BAND, FEW_CONCEPT, enough_rows, orient, testable_sides
from hf_midrange.association.stratified import Tables, chi_square_p, moments


class Problem(NamedTuple):
    """The rows to test, as arrays."""

    bands: np.ndarray
    """Of shape `(n, U)`, int8; -1 where undefined."""
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
        return self._replace(bands=self.bands[where], ids=self.ids[where], present=self.present[where])


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
    not_tested: dict[str, int]


def test_all(problem: Problem, units: list[int], options: Options) -> Tested:
    """Test every concept in every band of `units`."""
    p = np.full((len(problem.members), problem.number, problem.present.shape[1]), np.nan)
    found = occurrences(problem.present, problem.ids, problem.classes)
    missed: Counter[str] = Counter()
    for unit in units:
        counts, own = unit_counts(problem, unit, found)
        for band in range(problem.number):
            tables = counts.tables(band, own)
            p[unit, band] = _test_band(tables, problem, unit, band, options)
            missed += _reasons(tables, np.isnan(p[unit, band]), options.least)
    return Tested(p, dict(missed))


def unit_counts(problem: Problem, unit: int, found: Occurrences) -> tuple[UnitCounts, Occurrences]:
    """Return one unit's counts over the rows where it has a band, and the occurrences in these rows."""
    bands = problem.bands[:, unit]
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


def _test_band(tables: Tables, problem: Problem, unit: int, band: int, options: Options) -> np.ndarray:
    member = problem.members[unit]
    sides = testable_sides(tables, member, options.least)
    return p_values(orient(tables.kept(sides.both()), member, band, problem.number - 1), options)


def _reasons(tables: Tables, untested: np.ndarray, least: int) -> Counter[str]:
    """Count why tests were not made: the band or the concept leaves too few rows."""
    if not untested.any():
        return Counter()
    missed = tables.pick(untested)
    in_band, total = missed.in_band.sum(0), missed.total.sum(0)
    few = np.minimum(in_band, total - in_band) < least
    rare = ~few & ~enough_rows(missed, least)
    other = int((~few & ~rare).sum())
    counts = {FEW_BAND: int(few.sum()), FEW_CONCEPT: int(rare.sum()), "no label has rows enough for both": other}
    return Counter({reason: count for reason, count in counts.items() if count})
