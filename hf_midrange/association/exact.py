"""Exact tests of stratified 2x2 tables: the mid-p value of the sum over strata."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from hf_midrange.association.stratified import Tables


def mid_p_values(tables: Tables, tests: np.ndarray) -> np.ndarray:
    """Return two-sided exact mid-p values of some of the tests, of shape `(len(tests),)`.

    The null distribution of `sum(a)` is the convolution of the strata's hypergeometric distributions. Mid-p counts
    half of the observed value's probability (Lancaster 1961), which keeps the test near its level where the plain
    exact test is far below it; two-sided is twice the smaller tail, at most 1.
    """
    return np.array([_mid_p(Tables(*(values[:, test] for values in tables))) for test in tests], dtype=np.float64)


def _mid_p(table: Tables) -> float:
    live = np.flatnonzero(table.informative())
    law, start, observed = np.ones(1), 0, 0
    for stratum in live:
        a, n1, m1, t = (int(values[stratum]) for values in table)
        low, pmf = _hypergeometric(n1, m1, t)
        law, start, observed = np.convolve(law, pmf), start + low, observed + a
    at = observed - start
    half = law[at] / 2
    return float(min(1.0, 2 * min(law[:at].sum() + half, law[at + 1 :].sum() + half)))


def _hypergeometric(n1: int, m1: int, t: int) -> tuple[int, np.ndarray]:
    """Return the least possible `a` and the probabilities from there up."""
    low, high = max(0, n1 + m1 - t), min(n1, m1)
    a = np.arange(low, high + 1)
    logs = -(gammaln(a + 1) + gammaln(n1 - a + 1) + gammaln(m1 - a + 1) + gammaln(t - n1 - m1 + a + 1))
    pmf = np.exp(logs - logs.max())
    return low, pmf / pmf.sum()
