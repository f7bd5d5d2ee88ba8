"""Ridge scores of every row, as predicted by a fit that did not see the row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, cho_solve, lapack

from hf_midrange.head.correction import Scaler
from hf_midrange.io.blocks import Matrix


FITTED_ROWS = 2500
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
    """Return the exact leave-one-out scores of weighted ridge on the +-1 membership, with a free intercept.

    Minimises `sum_i w_i (t_i - f_i)^2 + ridge n |beta|^2` for `f = x @ beta + intercept` with standardised rows x of
    mean squared norm 1, the same as kernel ridge on `x @ x.T` with `ridge n / w_i` on the diagonal. Left-out residuals
    follow from the hat matrix (Cawley and Talbot 2003), by blocks where rows share a source. The cheaper of the
    systems in rows and in columns is solved.

    Args:
        values: raw description of the rows, `(n, d)`.
        fits: what to regress on.
        sources: ids of shape `(n,)`; rows that share one are left out together.
        sample: rows to fit to; the others are scored by that fit. None: all rows.

    Returns:
        Scores of shape `(n, number of fits and strengths)`; members lie near 1, strangers near -1.
    """
    chosen = np.arange(len(values)) if sample is None else sample
    kept = values[:] if sample is None else values[sample]
    scaler = Scaler.fit(kept, near_dead=0.0)
    features = scaler.apply(kept)
    norm = float(np.sqrt(np.mean(np.einsum("ij,ij->i", features, features, dtype=np.float64))))
    features /= features.dtype.type(norm if norm > 0 else 1.0)
    blocks = _shared(None if sources is None else sources[chosen])
    wide = len(features) <= ROW_SPACE * features.shape[1]
    solver = partial(_by_rows, features, features @ features.T) if wide else partial(_by_columns, features)
    solved = [part for fit in fits for part in solver(*_restricted(fit, chosen), fit.ridges, blocks)]
    scores = np.empty((len(values), len(solved)))
    scores[chosen] = np.column_stack([left_out for left_out, _ in solved])
    rest = np.setdiff1d(np.arange(len(values)), chosen)
    beta = np.column_stack([coefficients for _, coefficients in solved])
    slopes = (beta[:-1] / (norm or 1.0)).astype(features.dtype)
    for rows in np.split(rest, range(BLOCK, len(rest), BLOCK)):
        scores[rows] = scaler.apply(values[rows], features.dtype) @ slopes + beta[-1]
    return scores


def _restricted(fit: Fit, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return targets of +-1 and weights of mean 1 of some rows."""
    members = fit.members[rows]
    weights = class_weights(members) if fit.weights is None else fit.weights[rows] / fit.weights[rows].mean()
    return np.where(members, 1.0, -1.0), weights


Solved = tuple[np.ndarray, np.ndarray]
"""Left-out scores `(n,)`, and coefficients with the intercept last, `(d + 1,)`."""


def _by_rows(
    features: np.ndarray,
    kernel: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    ridges: tuple[float, ...],
    blocks: list[np.ndarray],
) -> list[Solved]:
    """Solve in the row space, where left-out residuals are the dual weights over the diagonal of the inverse."""
    targets, solved = targets.astype(features.dtype), []
    for ridge in ridges:
        system = kernel.copy()
        system[np.diag_indices(len(system))] += (ridge * len(system) / weights).astype(features.dtype)
        factor = _cholesky(system)
        ones, fitted = cho_solve((factor, True), np.column_stack([np.ones_like(targets), targets])).T
        intercept = float(fitted.sum()) / float(ones.sum())
        dual = fitted - ones * features.dtype.type(intercept)
        # The inverse of the system is the square of the root; the free intercept takes an outer product from it.
        root = _inverted(factor)
        left_out = dual / (np.einsum("ij,ij->j", root, root) - ones**2 / ones.sum())
        for block in blocks:
            bordered = root[:, block].T @ root[:, block] - np.outer(ones[block], ones[block]) / ones.sum()
            left_out[block] = np.linalg.solve(bordered, dual[block])
        solved.append((targets - left_out, np.append(features.T @ dual, intercept)))
    return solved


def _by_columns(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    ridges: tuple[float, ...],
    blocks: list[np.ndarray],
) -> list[Solved]:
    """Solve the normal equations, where left-out residuals are `r_i / (1 - h_ii)`."""
    targets = targets.astype(features.dtype)
    roots = np.sqrt(weights).astype(features.dtype)
    design = np.column_stack([features, np.ones(len(features), dtype=features.dtype)])
    halves = design * roots[:, None]
    gram, moments = halves.T @ halves, halves.T @ (roots * targets)
    solved = []
    for ridge in ridges:
        system = gram.copy()
        system[np.diag_indices(features.shape[1])] += features.dtype.type(ridge * len(features))
        factor = _cholesky(system)
        beta = cho_solve((factor, True), moments, check_finite=False)
        residuals = targets - design @ beta
        whitened = _trsm(factor)(1.0, factor, halves.T, lower=1).T
        left_out = residuals / np.maximum(1.0 - np.einsum("ij,ij->i", whitened, whitened), 1e-9)
        for block in blocks:
            hat = whitened[block] @ whitened[block].T * roots[block] / roots[block][:, None]
            left_out[block] = np.linalg.solve(np.eye(len(block)) - hat, residuals[block])
        solved.append((targets - left_out, beta))
    return solved


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


def _shared(sources: np.ndarray | None) -> list[np.ndarray]:
    if sources is None:
        return []
    order = np.argsort(sources, kind="stable")
    cuts = np.flatnonzero(np.diff(sources[order])) + 1
    return [block for block in np.split(order, cuts) if len(block) > 1]
