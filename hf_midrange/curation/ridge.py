"""Kernel ridge scores of every row, as predicted by a fit that did not see the row."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, qr


CLIP = 4.0
"""Standardised features are clipped here: near-dead channels reach 1e5 on rows that they were not fitted to."""


def standardised(values: np.ndarray) -> np.ndarray:
    """Return `values` of shape `(n, d)` with column means 0 and deviations 1, clipped; constant columns become 0."""
    values = values.astype(np.float64)
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    alive = deviation > 1e-12 * max(float(deviation.max(initial=0.0)), 1e-300)
    return np.clip(centred * np.where(alive, 1.0 / np.where(alive, deviation, 1.0), 0.0), -CLIP, CLIP)


def compact(features: np.ndarray) -> np.ndarray:
    """Return features of shape `(n, min(n, d))`, of mean squared norm 1, with the same kernel up to that factor."""
    rows, width = features.shape
    if width > rows:
        (triangle,) = qr(features.T, mode="r", check_finite=False)
        features = triangle[:rows].T
    norm = np.sqrt(np.mean(np.einsum("ij,ij->i", features, features)))
    return features / norm if norm > 0 else features


def class_weights(members: np.ndarray) -> np.ndarray:
    """Return weights of mean 1 which give members and strangers the same total; `members` is `(n,)` bool."""
    share = members.mean()
    return np.where(members, 0.5 / share, 0.5 / (1.0 - share))


def left_out_scores(
    features: np.ndarray,
    members: np.ndarray,
    ridge: float,
    sources: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the exact leave-one-out scores of class-balanced ridge on the +-1 membership, with a free intercept.

    Minimises `sum_i w_i (t_i - f_i)^2 + ridge n |beta|^2` for `f = features @ beta + intercept`, the same as kernel
    ridge on `features @ features.T` with `ridge n / w_i` on the diagonal. Left-out residuals follow from the hat
    matrix (Cawley and Talbot 2003): `r_i / (1 - h_ii)`, and by blocks where rows share a source.

    Args:
        features: as `compact` gives them, of shape `(n, p)`.
        members: which rows are members of the unit's class, `(n,)` bool.
        ridge: strength of the penalty per row.
        sources: ids of shape `(n,)`; rows that share one are left out together.
        weights: weights of mean 1, `(n,)`; None gives members and strangers the same total.

    Returns:
        Scores of shape `(n,)`; members lie near 1, strangers near -1.
    """
    targets = np.where(members, 1.0, -1.0)
    weights = class_weights(members) if weights is None else weights
    design = np.column_stack([features, np.ones(len(features))])
    system = design.T @ (design * weights[:, None])
    system[np.diag_indices(features.shape[1])] += ridge * len(features)
    factor = cho_factor(system, overwrite_a=True, check_finite=False)
    halves = cho_solve(factor, design.T, check_finite=False).T
    residuals = targets - halves @ (design.T @ (weights * targets))
    leverage = weights * np.einsum("ij,ij->i", halves, design)
    left_out = residuals / np.maximum(1.0 - leverage, 1e-9)
    for block in _shared(sources):
        hat = halves[block] @ design[block].T * weights[block]
        left_out[block] = np.linalg.solve(np.eye(len(block)) - hat, residuals[block])
    return targets - left_out


def _shared(sources: np.ndarray | None) -> list[np.ndarray]:
    if sources is None:
        return []
    order = np.argsort(sources, kind="stable")
    cuts = np.flatnonzero(np.diff(sources[order])) + 1
    return [block for block in np.split(order, cuts) if len(block) > 1]
