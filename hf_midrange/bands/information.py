"""Held-out information between a unit's bands and what is in the rows, for every candidate middle at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


PRIOR_ROWS = 50.0
"""Each band's mean is shrunk towards the label's as if so many further rows stood there. Most targets say nothing, and
with a small prior the noise of their means hides the few that do."""

CHUNK = 64
"""Targets summed at once, which bounds memory."""


class Sample(NamedTuple):
    """The rows searched."""

    residuals: np.ndarray
    """What is in the rows less its mean over the label, divided by its deviation; of shape `(n, m)`."""
    folds: np.ndarray
    """Which part of the cross-fit each row is in, of shape `(n,)`; rows of one source are in one part."""
    weights: np.ndarray
    """How often each row is counted, of shape `(1 + resamples, n)`; the first row is all ones."""


def information(sample: Sample, side: np.ndarray, cell: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the score of every pair of edges on every resample, of shape `(1 + resamples, len(pairs))`.

    The mean of each target in each band (members and others apart) is taken from the other folds and predicts the
    residuals of the fold at hand. The score is half the share of variance so explained, summed over targets: to first
    order the information, in nats per row, that the band has about Gaussian targets given the label. It is held out,
    so what does not differ between bands scores about 0, or a little less.

    Args:
        sample: the rows.
        side: 1 for members and 0 for others, of shape `(n,)`.
        cell: number of grid edges at or below each row's value, of shape `(n,)`.
        pairs: `(i, j)`: the middle begins at grid edge i and ends at grid edge j.
    """
    shape = (int(sample.folds.max()) + 1, 2, max(int(cell.max()), max(j for _, j in pairs)) + 1)
    key = np.ravel_multi_index((sample.folds, side, cell), shape)
    order = np.argsort(key, kind="stable")
    bounds = np.searchsorted(key[order], np.arange(np.prod(shape) + 1))
    weights = np.ascontiguousarray(sample.weights[:, order])
    rows = _sums(weights, np.ones((len(order), 1)), bounds, shape)
    total = np.zeros((len(weights), len(pairs)))
    for first in range(0, sample.residuals.shape[1], CHUNK):
        sums = _sums(weights, sample.residuals[order, first : first + CHUNK], bounds, shape)
        total += _explained(sums, rows, pairs)
    return total / (2 * weights.sum(axis=1, keepdims=True))


def _sums(weights: np.ndarray, values: np.ndarray, bounds: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return weighted sums over each fold, side and cell, of shape `(resamples, folds, 2, cells, m)`."""
    sums = np.zeros((len(bounds) - 1, len(weights), values.shape[1]))
    for group, (first, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if stop > first:
            sums[group] = weights[:, first:stop] @ values[first:stop]
    return np.moveaxis(sums, 1, 0).reshape(len(weights), *shape, values.shape[1])


def _explained(sums: np.ndarray, rows: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the squares explained by low, middle and high of each pair, of shape `(resamples, pairs)`."""
    upto, rows_upto = np.cumsum(sums, axis=3), np.cumsum(rows, axis=3)
    lower, upper = sorted({i for i, _ in pairs}), sorted({j for _, j in pairs})
    low = _held_out(upto[:, :, :, lower], rows_upto[:, :, :, lower])
    high = _held_out(upto[:, :, :, -1:] - upto[:, :, :, upper], rows_upto[:, :, :, -1:] - rows_upto[:, :, :, upper])
    i, j = np.array(pairs).T
    middle = _held_out(upto[:, :, :, j] - upto[:, :, :, i], rows_upto[:, :, :, j] - rows_upto[:, :, :, i])
    return low[:, np.searchsorted(lower, i)] + middle + high[:, np.searchsorted(upper, j)]


def _held_out(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how much the squares fall when means of the other folds predict each, of shape `(resamples, K)`."""
    other = sums.sum(axis=1, keepdims=True) - sums
    shrunk = (rows.sum(axis=1, keepdims=True) - rows)[..., 0] + PRIOR_ROWS
    product = np.einsum("...m,...m->...", other, sums)
    square = np.einsum("...m,...m->...", other, other)
    return np.asarray((2 * product / shrunk - rows[..., 0] * square / np.square(shrunk)).sum(axis=(1, 2)))
