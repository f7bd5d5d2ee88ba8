"""Stratified 2x2 tables, many tests at once: how they are counted, which are tested, and their statistics, exact too.

A table counts rows of one stratum: `a` in the band with the concept, `in_band` in the band, `with_concept` with the
concept, `total` in all. Arrays have shape `(S, m)`: strata by tests. Everything is pooled over the first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse, special


class Tables(NamedTuple):
    """2x2 tables, arrays of shape `(S, m)`, float64."""

    a: np.ndarray
    """Rows in the band that have the concept."""
    in_band: np.ndarray
    """Rows in the band."""
    with_concept: np.ndarray
    """Rows that have the concept."""
    total: np.ndarray
    """Rows of the stratum."""

    def informative(self) -> np.ndarray:
        """Return where all four margins are positive; other tables say nothing about association."""
        return (
            (self.in_band > 0)
            & (self.in_band < self.total)
            & (self.with_concept > 0)
            & (self.with_concept < self.total)
        )

    def kept(self, where: np.ndarray) -> Tables:
        """Return the tables with those outside `where` emptied, so that they add nothing to any sum."""
        return Tables(*(np.where(where, values, 0.0) for values in self))

    def flipped(self, where: np.ndarray) -> Tables:
        """Return the tables with the concept negated (absence counted instead of presence) where `where` says so."""
        return Tables(
            np.where(where, self.in_band - self.a, self.a),
            self.in_band,
            np.where(where, self.total - self.with_concept, self.with_concept),
            self.total,
        )

    def pick(self, tests: np.ndarray) -> Tables:
        """Return the tables of some tests."""
        return Tables(*(values[:, tests] for values in self))


def moments(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Return `sum(a) - E` and its variance under independence with all margins given, each of shape `(m,)`.

    Mantel and Haenszel 1959; tables with a zero margin or fewer than two rows contribute nothing.
    """
    _, n1, m1, t = tables
    safe = np.maximum(t, 2.0)
    expected = n1 * m1 / safe
    # With a zero margin `a` equals its expectation and the variance is 0, so that no table need be left out.
    variance = expected * (t - n1) * (t - m1) / (safe * (safe - 1))
    live_excess = np.where(t > 1, tables.a - expected, 0)
    return live_excess.sum(0), variance.sum(0)


def chi_square_p(excess: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of sums of counts in the normal approximation; NaN where the variance is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return special.erfc(np.where(variance > 0, np.abs(excess) / np.sqrt(2 * variance), np.nan))


class OddsRatios(NamedTuple):
    """Pooled odds ratios, each of shape `(m,)`; NaN where no table is informative."""

    ratio: np.ndarray
    log: np.ndarray
    """Its logarithm; of a ratio of 0 or infinity a finite one (see `pooled_odds_ratio`)."""
    error: np.ndarray
    """Standard error of the logarithm."""
    freedom: np.ndarray | float = np.inf
    """Degrees of freedom of the t distribution that it is compared with."""

    @property
    def low(self) -> np.ndarray:
        """The lower 95 % limit."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(self.ratio == 0, 0.0, np.exp(self.log - self._quantile * self.error))

    @property
    def high(self) -> np.ndarray:
        """The upper 95 % limit."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(np.isinf(self.ratio), np.inf, np.exp(self.log + self._quantile * self.error))

    @property
    def _quantile(self) -> np.ndarray:
        return special.stdtrit(self.freedom, 0.975)

    def p_beyond(self, smallest: float) -> np.ndarray:
        """Return p-values of the true ratio lying between `smallest` and one over it (Hodges and Lehmann 1954)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond, other = ((sign * np.log(smallest) - np.abs(self.log)) / self.error for sign in (1, -1))
        return special.stdtr(self.freedom, beyond) + special.stdtr(self.freedom, other)


def pooled_odds_ratio(tables: Tables) -> OddsRatios:
    """Return Mantel-Haenszel odds ratios with the errors of Robins, Breslow and Greenland (1986).

    An odds ratio of 0 or infinity has no such error: its logarithm is then that of the same tables with 0.5 added to
    each cell (Haldane), which gives the finite end of the interval; the other is 0 or infinity.
    """
    live = tables.kept(tables.informative())
    ratio, error = _ratio_and_error(live, 0.0)
    shifted, shifted_error = _ratio_and_error(live, 0.5)
    edge = (ratio == 0) | np.isinf(ratio)
    with np.errstate(divide="ignore"):
        log = np.log(np.where(edge, shifted, ratio))
    return OddsRatios(ratio, log, np.where(edge, shifted_error, error))


def _ratio_and_error(tables: Tables, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the Mantel-Haenszel ratio and the standard error of its logarithm."""
    filled = tables.total > 0
    a = np.where(filled, tables.a + shift, 0)
    b = np.where(filled, tables.in_band - tables.a + shift, 0)
    c = np.where(filled, tables.with_concept - tables.a + shift, 0)
    d = np.where(filled, tables.total - tables.in_band - tables.with_concept + tables.a + shift, 0)
    n = np.where(filled, tables.total + 4 * shift, 1)
    r, s, p, q = a * d / n, b * c / n, (a + d) / n, (b + c) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        r_sum, s_sum = r.sum(0), s.sum(0)
        variance = (
            (p * r).sum(0) / (2 * r_sum**2)
            + (p * s + q * r).sum(0) / (2 * r_sum * s_sum)
            + (q * s).sum(0) / (2 * s_sum**2)
        )
        return r_sum / s_sum, np.sqrt(variance)


MINIMUM_ROWS = 5
"""A side is tested with this many rows in and out of the band, with and without the concept."""

FEW_BAND, FEW_CONCEPT = "fewer rows in or out of the band than the minimum", "concept in too few or too many rows"
FEW_SOURCES = "fewer sources than the minimum"


class Sides(NamedTuple):
    """Which strata of which tests are tested, boolean of shape `(C, m)` each."""

    members: np.ndarray
    strangers: np.ndarray

    def both(self) -> np.ndarray:
        """Return the strata of either side."""
        return self.members | self.strangers


def testable_sides(tables: Tables, member: int | None) -> Sides:
    """Return the informative strata of each side, a side only where it can say something.

    A side is tested if its informative strata together have at least `MINIMUM_ROWS` rows in and out of the band, and
    with and without the concept. In the low band there are few members and in the top band few strangers: such a side
    is left out rather than tested.

    Args:
        tables: strata are labels.
        member: the unit's class; None for a unit that stands for none, whose strata are all strangers'.
    """
    live = tables.informative()
    everyone = [np.sum(values, axis=0, where=live) for values in tables]
    members, strangers = np.zeros_like(live), live.copy()
    if member is not None:
        own = [np.where(live[member], values[member], 0.0) for values in tables]
        members[member] = live[member] & _enough(own)
        strangers[member] = False
        everyone = [both - part for both, part in zip(everyone, own, strict=True)]
    return Sides(members, strangers & _enough(everyone))


def _enough(sums: Sequence[np.ndarray]) -> np.ndarray:
    _, in_band, with_concept, total = sums
    margins = (in_band, total - in_band, with_concept, total - with_concept)
    return np.min(margins, axis=0) >= MINIMUM_ROWS


def signs(bands: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what counts as confounded with the class, in members and in strangers: 1 presence, -1 absence.

    In the top band that is presence of the concept on both sides, in the bottom band absence; in the middle absence in
    members and presence in strangers, which plain pooling would cancel.

    Args:
        bands: the band of each test, of any shape.
        top: the highest band.
    """
    return np.where(bands < top, -1, 1), np.where(bands == 0, -1, 1)


def orient(tables: Tables, member: int | None, bands: np.ndarray, top: int) -> Tables:
    """Return the tables turned so that an odds ratio above 1 says "confounded with the class" in every band.

    Args:
        tables: strata are labels.
        member: the unit's class; None if it has none.
        bands: the band of each test, of shape `(m,)`.
        top: the highest band.
    """
    members, strangers = signs(bands, top)
    absence = np.broadcast_to(strangers < 0, tables.a.shape).copy()
    if member is not None:
        absence[member] = members < 0
    return tables.flipped(absence)


def entries(present: sparse.csc_matrix, concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that have each of some concepts, one after the other, and to which of these each belongs."""
    length = np.diff(present.indptr)[concepts]
    before = np.cumsum(length) - length
    test = np.repeat(np.arange(len(concepts)), length)
    return present.indices[np.arange(len(test)) + (present.indptr[concepts] - before)[test]], test


def cell_tables(
    bands: np.ndarray, ids: np.ndarray, classes: int, present: sparse.csc_matrix, tests: np.ndarray
) -> Tables:
    """Return the tables of some tests of a unit whose rows all have a band, one stratum a label: `(C, t)`.

    Args:
        bands: the unit's band on each row, of shape `(n,)`.
        ids: class ids, of shape `(n,)`.
        classes: how many there are.
        present: which row has which concept, of shape `(n, m)`.
        tests: pairs (band, concept), of shape `(t, 2)`.
    """
    band, concept = tests.T
    number = max(int(bands.max(initial=0)), int(band.max(initial=0))) + 1
    in_band = np.bincount(ids * number + bands, minlength=classes * number).reshape(classes, number)
    rows, test = entries(present, concept)
    shape, cell = (classes, len(tests)), ids[rows] * len(tests) + test
    with_concept, a = (
        np.bincount(some, minlength=classes * len(tests)).reshape(shape)
        for some in (cell, cell[bands[rows] == band[test]])
    )
    total = np.repeat(in_band.sum(axis=1)[:, None], len(tests), axis=1)
    return Tables(*(part.astype(np.float64) for part in (a, in_band[:, band], with_concept, total)))


AT_ONCE = 4_000_000
"""Probabilities held at a time."""


def mid_p_values(tables: Tables, tests: np.ndarray) -> np.ndarray:
    """Return two-sided exact mid-p values of some of the tests, of shape `(len(tests),)`.

    The null distribution of `sum(a)` is the convolution of the strata's hypergeometric distributions. Mid-p counts
    half of the observed value's probability (Lancaster 1961), which keeps the test near its level where the plain
    exact test is far below it; two-sided is twice the smaller tail, at most 1.
    """
    chosen = tables.pick(tests)
    chosen = chosen.kept(chosen.informative())
    low = np.maximum(0, chosen.in_band + chosen.with_concept - chosen.total)
    width = (np.minimum(chosen.in_band, chosen.with_concept) - low + 1).astype(np.int64)
    observed = (chosen.a - low).sum(axis=0).astype(np.int64)
    p = np.empty(len(tests))
    order = np.argsort(width.max(axis=0, initial=1), kind="stable")  # tests of like width share an array
    for some in np.array_split(order, _parts(width)):
        if some.size:
            p[some] = _two_sided(_law_of_sum(chosen.pick(some), low[:, some], width[:, some]), observed[some])
    return p


def _parts(width: np.ndarray) -> int:
    strata, tests = width.shape
    return max(1, min(tests, int(strata * tests * width.max(initial=1)) // AT_ONCE + 1))


def _law_of_sum(tables: Tables, low: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the null probabilities of `sum(a)` from its least value up, of shape `(t, values)`.

    Laws are convolved two by two. Only non-negative numbers are added, so that small tails keep their digits, which
    a Fourier transform would lose.
    """
    # Strata with one possible value sort to the end; what no test of these needs is left out.
    order = np.argsort(-width, axis=0, kind="stable")[: max(1, int((width > 1).sum(axis=0).max(initial=0)))]
    low, width = (np.take_along_axis(values, order, axis=0).T for values in (low, width))
    n1, m1, t = (np.take_along_axis(values, order, axis=0).T for values in tables[1:])
    laws = _hypergeometric(low, width, n1, m1, t)
    while laws.shape[1] > 1:
        if laws.shape[1] % 2:
            certain = np.zeros_like(laws[:, :1])
            certain[..., 0] = 1
            laws, width = np.concatenate([laws, certain], axis=1), np.pad(width, ((0, 0), (0, 1)), constant_values=1)
        width = width[:, ::2] + width[:, 1::2] - 1
        laws = _convolved(laws[:, ::2], laws[:, 1::2], int(width.max()))
    return laws[:, 0]


def _convolved(left: np.ndarray, right: np.ndarray, values: int) -> np.ndarray:
    """Convolve along the last axis, keeping the first `values` entries: those beyond are zero."""
    out = np.zeros((*left.shape[:2], values))
    for shift in range(min(left.shape[2], values)):
        part = right[..., : values - shift]
        out[..., shift : shift + part.shape[2]] += left[..., shift : shift + 1] * part
    return out


def _hypergeometric(low: np.ndarray, width: np.ndarray, n1: np.ndarray, m1: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the probabilities of each stratum's `a` from its least value up, of shape `(t, S, values)`."""
    steps = np.arange(int(width.max(initial=1)))
    possible = steps < width[..., None]
    a = low[..., None] + np.where(possible, steps, 0)
    rest = (n1[..., None] - a, m1[..., None] - a, (t - n1 - m1)[..., None] + a)
    logs = -(special.gammaln(a + 1) + sum(special.gammaln(values + 1) for values in rest))
    pmf = np.where(possible, np.exp(logs - np.max(logs, axis=-1, keepdims=True)), 0.0)
    return pmf / pmf.sum(axis=-1, keepdims=True)


def _two_sided(law: np.ndarray, observed: np.ndarray) -> np.ndarray:
    at = np.arange(law.shape[1])
    half = np.take_along_axis(law, observed[:, None], axis=1)[:, 0] / 2
    below = np.where(at < observed[:, None], law, 0).sum(axis=1) + half
    above = np.where(at > observed[:, None], law, 0).sum(axis=1) + half
    return np.minimum(1.0, 2 * np.minimum(below, above))
