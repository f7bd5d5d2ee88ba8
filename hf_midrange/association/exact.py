"""Exact tests of stratified 2x2 tables: the mid-p value of the sum over strata, many tests at once."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from hf_midrange.association.tables import Tables


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
    logs = -(gammaln(a + 1) + sum(gammaln(values + 1) for values in rest))
    pmf = np.where(possible, np.exp(logs - np.max(logs, axis=-1, keepdims=True)), 0.0)
    return pmf / pmf.sum(axis=-1, keepdims=True)


def _two_sided(law: np.ndarray, observed: np.ndarray) -> np.ndarray:
    at = np.arange(law.shape[1])
    half = np.take_along_axis(law, observed[:, None], axis=1)[:, 0] / 2
    below = np.where(at < observed[:, None], law, 0).sum(axis=1) + half
    above = np.where(at > observed[:, None], law, 0).sum(axis=1) + half
    return np.minimum(1.0, 2 * np.minimum(below, above))
