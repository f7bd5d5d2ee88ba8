"""Ridge scores of every row, as predicted by a fit that did not see the row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, cho_solve, lapack

from hf_midrange.head.correction import Scaler
from hf_midrange.io.blocks import Matrix


FITTED_ROWS = 1500
"""Scores are fitted to at most about this many rows, drawn at random; all other rows are scored by that fit."""

FEWEST_OF_CLASS = 100
"""All rows of a class up to this many are fitted to, beyond the draw."""

ROW_SPACE = 1.25
"""Up to this many rows a column the system in rows costs less: left-out scores need its inverse root alone."""

BLOCK = 256


class Fit(NamedTuple):
    """A ridge regression on +-1 membership, at one or more strengths."""

    members: np.ndarray
    """Rows that are members of the unit's class, `(n,)` bool."""
    ridges: tuple[float, ...]
    """Strengths of the penalty per row."""
    weights: np.ndarray | None = None
    """Positive weights of rows, `(n,)`; None gives members and strangers the same total."""


def sampled(labels: np.ndarray, sources: np.ndarray | None, seed: int) -> np.ndarray | None:
    """Return the rows to fit to, in order; None where all are few enough.

    Rows that share a source are drawn together, so that no score is fitted to a row's own source.
    """
    if len(labels) <= FITTED_ROWS:
        return None
    sources = np.arange(len(labels)) if sources is None else sources
    rank = np.random.default_rng(seed).permutation(int(sources.max()) + 1)[sources]
    order = np.argsort(rank, kind="stable")
    first = order[:FITTED_ROWS]
    few = [order[labels[order] == k][:FEWEST_OF_CLASS] for k in np.unique(labels)]
    return np.flatnonzero(np.isin(sources, sources[np.concatenate([first, *few])]))


def class_weights(members: np.ndarray) -> np.ndarray:
    """Return weights of mean 1 which give members and strangers the same total; `members` is `(n,)` bool."""
    share = members.mean()
    return np.where(members, 0.5 / share, 0.5 / (1.0 - share))


def left_out_scores(
    values: Matrix, fits: Sequence[Fit], sources: np.ndarray | None = None, sample: np.ndarray | None = None
) -> np.ndarray:
    """Return the left-out scores of `Space.of(values, sources, sample)`, for rows that are fitted to once."""
    return Space.of(values, sources, sample).left_out(fits)


Solved = tuple[np.ndarray, np.ndarray]
"""Left-out scores `(n, t)` of t targets, and coefficients with the intercept last, `(d + 1, t)`."""


@dataclass(frozen=True)
class Space:
    """Standardised rows of a description, made once for all fits to them."""

    values: Matrix
    """Raw description of all rows, `(n, d)`."""
    chosen: np.ndarray
    """Rows that are fitted to, `(m,)`."""
    scaler: Scaler
    features: np.ndarray
    """Those rows standardised, `(m, d)`, and divided by `norm`."""
    norm: float
    """Root mean square of their norms."""
    shared: list[np.ndarray]
    """Which of them share a source, where several do."""

    @classmethod
    def of(cls, values: Matrix, sources: np.ndarray | None = None, sample: np.ndarray | None = None) -> Space:
        """Return the space of some rows.

        Args:
            values: raw description of the rows, `(n, d)`.
            sources: ids of shape `(n,)`; rows that share one are left out together.
            sample: rows to fit to; the others are scored by that fit. None: all rows.
        """
        chosen = np.arange(len(values)) if sample is None else sample
        kept = values[:] if sample is None else values[sample]
        scaler = Scaler.fit(kept, near_dead=0.0)
        features = scaler.apply(kept)
        norm = float(np.sqrt(np.mean(np.einsum("ij,ij->i", features, features, dtype=np.float64)))) or 1.0
        features /= features.dtype.type(norm)
        return cls(values, chosen, scaler, features, norm, [] if sources is None else _shared(sources[chosen]))

    @cached_property
    def kernel(self) -> np.ndarray:
        """Products of all pairs of rows, `(m, m)`."""
        return self.features @ self.features.T

    def left_out(self, fits: Sequence[Fit]) -> np.ndarray:
        """Return the exact leave-one-out scores of weighted ridge on the +-1 membership, with a free intercept.

        Minimises `sum_i w_i (t_i - f_i)^2 + ridge n |beta|^2` for `f = x @ beta + intercept` with standardised rows x
        of mean squared norm 1, the same as kernel ridge on `x @ x.T` with `ridge n / w_i` on the diagonal. Left-out
        residuals follow from the hat matrix (Cawley and Talbot 2003), by blocks where rows share a source. The cheaper
        of the systems in rows and in columns is solved, once for all fits with the same weights and strengths.

        Returns:
            Scores of shape `(n, number of fits and strengths)`; members lie near 1, strangers near -1.
        """
        solve = self._by_rows if len(self.features) <= ROW_SPACE * self.features.shape[1] else self._by_columns
        first = np.cumsum([0, *(len(fit.ridges) for fit in fits)])
        scores, beta = np.empty((len(self.values), first[-1])), np.empty((self.features.shape[1] + 1, first[-1]))
        for weights, ridges, alike in self._alike(fits):
            targets = np.column_stack([np.where(fits[j].members[self.chosen], 1.0, -1.0) for j in alike])
            solved = solve(targets.astype(self.features.dtype), weights, ridges)
            for number, (left_out, coefficients) in enumerate(solved):
                places = first[alike] + number
                scores[np.ix_(self.chosen, places)], beta[:, places] = left_out, coefficients
        slopes = (beta[:-1] / self.norm).astype(self.features.dtype)
        rest = np.setdiff1d(np.arange(len(self.values)), self.chosen)
        for rows in np.split(rest, range(BLOCK, len(rest), BLOCK)):
            scores[rows] = self.scaler.apply(self.values[rows], self.features.dtype) @ slopes + beta[-1]
        return scores

    def _alike(self, fits: Sequence[Fit]) -> Iterator[tuple[np.ndarray, tuple[float, ...], list[int]]]:
        """Yield weights of mean 1, strengths, and the numbers of the fits that have them."""
        found: dict[tuple[bytes, tuple[float, ...]], tuple[np.ndarray, list[int]]] = {}
        for j, fit in enumerate(fits):
            members = fit.members[self.chosen]
            weights = class_weights(members) if fit.weights is None else fit.weights[self.chosen]
            weights = weights / weights.mean()
            found.setdefault((weights.tobytes(), fit.ridges), (weights, []))[1].append(j)
        for (_, ridges), (weights, numbers) in found.items():
            yield weights, ridges, numbers

    def _by_rows(self, targets: np.ndarray, weights: np.ndarray, ridges: tuple[float, ...]) -> Iterator[Solved]:
        """Solve in the row space, where left-out residuals are the dual weights over the diagonal of the inverse."""
        for ridge in ridges:
            system = self.kernel.copy()
            system[np.diag_indices(len(system))] += (ridge * len(system) / weights).astype(system.dtype)
            factor = _cholesky(system)
            solved = cho_solve((factor, True), np.column_stack([np.ones_like(targets[:, 0]), targets]))
            ones, fitted = solved[:, :1], solved[:, 1:]
            total = ones.sum(dtype=np.float64).astype(system.dtype)
            intercept = fitted.sum(axis=0) / total
            dual = fitted - ones * intercept
            # The inverse of the system is the square of the root; the free intercept takes an outer product from it.
            root = _inverted(factor)
            left_out = dual / (np.einsum("ij,ij->j", root, root)[:, None] - ones**2 / total)
            for block in self.shared:
                bordered = root[:, block].T @ root[:, block] - ones[block] @ ones[block].T / total
                left_out[block] = np.linalg.solve(bordered, dual[block])
            yield targets - left_out, np.vstack([self.features.T @ dual, intercept])

    def _by_columns(self, targets: np.ndarray, weights: np.ndarray, ridges: tuple[float, ...]) -> Iterator[Solved]:
        """Solve the normal equations, where left-out residuals are `r_i / (1 - h_ii)`."""
        features = self.features
        roots = np.sqrt(weights).astype(features.dtype)
        design = np.column_stack([features, np.ones(len(features), dtype=features.dtype)])
        halves = design * roots[:, None]
        gram, moments = halves.T @ halves, halves.T @ (roots[:, None] * targets)
        for ridge in ridges:
            system = gram.copy()
            system[np.diag_indices(features.shape[1])] += features.dtype.type(ridge * len(features))
            factor = _cholesky(system)
            beta = cho_solve((factor, True), moments, check_finite=False)
            residuals = targets - design @ beta
            whitened = _trsm(factor)(1.0, factor, halves.T, lower=1).T
            left_out = residuals / np.maximum(1.0 - np.einsum("ij,ij->i", whitened, whitened), 1e-9)[:, None]
            for block in self.shared:
                hat = whitened[block] @ whitened[block].T * roots[block] / roots[block][:, None]
                left_out[block] = np.linalg.solve(np.eye(len(block)) - hat, residuals[block])
            yield targets - left_out, beta


def _cholesky(system: np.ndarray) -> np.ndarray:
    """Return the lower factor of a symmetric matrix in C order, which is destroyed; zero above the diagonal."""
    factorise = lapack.dpotrf if system.dtype == np.float64 else lapack.spotrf
    factor, fault = factorise(system.T, lower=1, clean=1, overwrite_a=1)
    if fault:
        raise np.linalg.LinAlgError("the ridge system is not positive definite; its weights must be positive")
    return factor


def _inverted(factor: np.ndarray) -> np.ndarray:
    """Return the inverse of a lower factor, which is destroyed; zero above the diagonal, as the factor is."""
    invert = lapack.dtrtri if factor.dtype == np.float64 else lapack.strtri
    return invert(factor, lower=1, overwrite_c=1)[0]


def _trsm(factor: np.ndarray) -> Callable[..., np.ndarray]:
    return blas.dtrsm if factor.dtype == np.float64 else blas.strsm


def _shared(sources: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(sources, kind="stable")
    cuts = np.flatnonzero(np.diff(sources[order])) + 1
    return [block for block in np.split(order, cuts) if len(block) > 1]
