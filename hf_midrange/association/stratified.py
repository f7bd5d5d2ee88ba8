"""Statistics of many stratified 2x2 tables at once.

A table counts rows of one stratum: `a` in the band with the concept, `in_band` in the band, `with_concept` with the
concept, `total` in all. Arrays have shape `(S, m)`: strata by tests. Everything is pooled over the first axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special


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
        """Return the tables with the concept negated (absence counted instead of presence) where told."""
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


def cochran_mantel_haenszel(tables: Tables) -> np.ndarray:
    """Return two-sided p-values of no association, without continuity correction; NaN where untestable."""
    return chi_square_p(*moments(tables))


def chi_square_p(excess: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of sums of counts in the normal approximation; NaN where the variance is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return special.erfc(np.where(variance > 0, np.abs(excess) / np.sqrt(2 * variance), np.nan))


class OddsRatios(NamedTuple):
    """Pooled odds ratios with intervals, each of shape `(m,)`; NaN where no table is informative."""

    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray


def pooled_odds_ratio(tables: Tables, confidence: float = 0.95) -> OddsRatios:
    """Return Mantel-Haenszel odds ratios with the interval of Robins, Breslow and Greenland (1986).

    An odds ratio of 0 or infinity has no such interval: its finite end is then that of the same tables with 0.5 added
    to each cell (Haldane), its other end 0 or infinity.
    """
    live = tables.kept(tables.informative())
    ratio, error = _ratio_and_error(live, 0.0)
    shifted, shifted_error = _ratio_and_error(live, 0.5)
    z = special.ndtri(0.5 + confidence / 2)
    edge = (ratio == 0) | np.isinf(ratio)
    with np.errstate(over="ignore", invalid="ignore"):
        low = np.where(edge, shifted * np.exp(-z * shifted_error), ratio * np.exp(-z * error))
        high = np.where(edge, shifted * np.exp(z * shifted_error), ratio * np.exp(z * error))
    return OddsRatios(ratio, np.where(ratio == 0, 0.0, low), np.where(np.isinf(ratio), np.inf, high))


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


def equal_odds(tables: Tables) -> np.ndarray:
    """Return p-values of one odds ratio in all strata: Breslow and Day (1980) with Tarone's correction.

    NaN with fewer than two informative strata, or where the pooled odds ratio is 0 or infinite.
    """
    live = tables.informative()
    a, n1, m1, t = tables.kept(live)
    ratio = pooled_odds_ratio(tables).ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = _expected_under(ratio, n1, m1, t)
        variance = 1 / (1 / expected + 1 / (n1 - expected) + 1 / (m1 - expected) + 1 / (t - n1 - m1 + expected))
        deviation, variance = np.where(live, a - expected, 0), np.where(live, variance, 0)
        breslow_day = np.where(live, deviation**2 / np.where(live, variance, 1), 0).sum(0)
        statistic = breslow_day - deviation.sum(0) ** 2 / variance.sum(0)
    strata = live.sum(0)
    valid = (strata > 1) & np.isfinite(ratio) & (ratio > 0)
    return np.where(valid, special.chdtrc(np.maximum(strata - 1, 1), np.maximum(statistic, 0)), np.nan)


def _expected_under(ratio: np.ndarray, n1: np.ndarray, m1: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the expected `a` of each table, given its margins, if its odds ratio were `ratio`."""
    lead = 1 - ratio
    middle = t - n1 - m1 + ratio * (n1 + m1)
    last = -ratio * n1 * m1
    root = np.sqrt(np.maximum(middle**2 - 4 * lead * last, 0))
    # The same root of `lead x^2 + middle x + last` in a form that does not cancel when the ratio is near 1.
    return -2 * last / (middle + root)
