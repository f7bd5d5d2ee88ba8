"""Fitting a correction on raw embeddings: standardise, solve, fold the scaler back in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from hf_midrange.head.solver import Correction, Problem, solve


CLIP = 4.0
"""Standardised embeddings are clipped here: near-dead channels reach 1e5 on rows that they were not fitted to."""

NEAR_DEAD = 0.01
"""Channels whose deviation is below this share of the median one are left alone: new rows overshoot there."""

SATURATION = 4.0
"""Logits are scaled down to this median gap of best to second: a saturated network has no gradient to correct."""

SINGLE = 500_000
"""Embeddings of more values than this are standardised and multiplied in float32, as they came."""

BLOCK = 256
"""Rows that are standardised at once."""

PENALTIES, KEPT = (0.3, 0.1, 0.03, 0.01), (0.5, 0.0)
"""Factors of the default strength, and shares of the given head that are kept, among which held-out rows choose."""

FOLD_TOLERANCE = 1e-3
"""Largest entry of the gradient where only the predictions of a fold are wanted; at most one in 800 differed by it."""


class Scaler(NamedTuple):
    """Standardisation of embeddings, clipped; near-dead channels become 0."""

    mean: np.ndarray
    """`(d,)` float64."""
    inverse: np.ndarray
    """One over the deviation, 0 for near-dead channels; `(d,)` float64."""

    @classmethod
    def fit(cls, embedding: np.ndarray, near_dead: float = NEAR_DEAD) -> Scaler:
        """Return the scaler of embeddings of shape `(n, d)`: sums of blocks of rows, added up in float64.

        Within a block large float32 embeddings are summed in float32, moved by the mean of the first block.

        Args:
            embedding: raw.
            near_dead: share of the median deviation below which a channel is left alone.
        """
        dtype = _precision(embedding)
        shift = embedding[:BLOCK].mean(axis=0, dtype=np.float64).astype(dtype)
        first, second = np.zeros(len(shift)), np.zeros(len(shift))
        for rows in _blocks(embedding):
            moved = rows.astype(dtype) - shift
            first += moved.sum(axis=0)
            second += np.square(moved, out=moved).sum(axis=0)
        first, second = first / len(embedding), second / len(embedding)
        deviation = np.sqrt(np.maximum(second - np.square(first), 0.0))
        least = max(near_dead * _median(deviation), 1e-12 * float(deviation.max(initial=0.0)), 1e-300)
        alive = deviation > least
        return cls(shift + first, np.where(alive, 1.0 / np.where(alive, deviation, 1.0), 0.0))

    def apply(self, embedding: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        """Return standardised features of the shape of `embedding`; None: in float32 where these are large."""
        dtype = _precision(embedding) if dtype is None else dtype
        mean, inverse = self.mean.astype(dtype), self.inverse.astype(dtype)
        features = np.empty(embedding.shape, dtype=dtype)
        for rows, block in zip(_blocks(embedding), _blocks(features), strict=True):
            np.subtract(rows, mean, out=block, dtype=dtype)
            block *= inverse
            np.clip(block, -CLIP, CLIP, out=block)
        return features

    def unscaled(self, found: Correction) -> Correction:
        """Return a correction of standardised embeddings as one of raw embeddings."""
        weight = found.weight * self.inverse
        return Correction(weight, found.bias - weight @ self.mean)


def default_strength(classes: int, corrects: bool) -> float:
    """Return the factor of the penalty: `.84 / C` for a correction, `.04 / C` for a new head.

    The first is `.21 |d|^2` of the logit difference d at two classes.
    """
    return 0.84 / classes if corrects else 0.04 / classes


def desaturated(logits: np.ndarray) -> tuple[np.ndarray, float]:
    """Return logits `(n, C)` scaled to a median gap of best to second of at most 4, and the factor."""
    ordered = np.partition(logits, -2, axis=1)
    factor = min(1.0, SATURATION / max(_median(ordered[:, -1] - ordered[:, -2]), 1e-12))
    return logits * factor, factor


def fit_correction(
    embedding: np.ndarray,
    offset: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    strength: float,
    intercept: bool = True,
) -> Correction:
    """Return the linear term on raw embeddings that corrects logits best.

    Minimises `sum_i w_i CE(offset_i + x_i D + b, y_i) + strength |D|_F^2` on standardised embeddings x. Without an
    intercept these are not centred, and b is 0.

    Args:
        embedding: `(n, d)`, raw.
        offset: logits to correct, `(n, C)`; zeros for a new head.
        labels: `(n,)`.
        weights: `(n,)`, positive.
        strength: factor of the penalty.
        intercept: whether the correction may have a bias.
    """
    scaler = Scaler.fit(embedding)
    features = scaler.apply(embedding)
    if not intercept:
        features += (scaler.mean * scaler.inverse).astype(features.dtype)
    problem = _problem(features, offset, labels, weights[:, None], strength)
    (found,) = solve(problem._replace(intercept=intercept))
    return scaler.unscaled(found) if intercept else Correction(found.weight * scaler.inverse, found.bias)


class Folds(NamedTuple):
    """Corrections fitted without a fold each, in the form that serves held-out rows best."""

    corrections: list[Correction]
    penalty: float
    """Factor of the default strength."""
    kept: float
    """Share of the given logits that is kept beside the correction."""


def fold_corrections(
    embedding: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    folds: np.ndarray,
    choose: bool = True,
) -> Folds:
    """Return, for each fold, a correction fitted to the other rows; held-out rows choose how far it may go.

    The choice starts with the default penalty, which suits few rows in many dimensions, and goes down `PENALTIES` for
    as long as the weighted loss of held-out rows falls by more than its standard error. If that paid, rows suffice,
    and less of the given head may be better: `KEPT` is gone down in the same way. The scaler is fitted once, on all
    rows: it reads no label.

    Args:
        embedding: `(n, d)`, raw.
        logits: to be corrected, `(n, C)`, not saturated.
        labels: `(n,)`.
        weights: `(n,)`, positive.
        folds: fold of each row, `(n,)`, in 0..m-1.
        choose: whether there is a choice, or the default penalty is taken.
    """
    scaler, every = Scaler.fit(embedding), np.arange(len(labels))
    excluded = weights[:, None] * (folds[:, None] != np.arange(int(folds.max()) + 1))
    features = scaler.apply(embedding, np.dtype(np.float32))
    problem = _problem(features, logits, labels, excluded, default_strength(logits.shape[1], corrects=True))

    def fitted(penalty: float, kept: float, start: list[Correction] | None = None) -> tuple[Folds, np.ndarray]:
        changed = problem._replace(strength=penalty * problem.strength, offset=kept * problem.offset)
        found = solve(changed, FOLD_TOLERANCE, start=start)
        terms = np.stack([features @ each.weight.T + each.bias for each in found])[folds, every]
        losses = -weights * log_softmax(kept * logits + terms, axis=1)[every, labels]
        return Folds(found, penalty, kept), losses

    best, losses = fitted(1.0, 1.0)
    for along in ([(penalty, 1.0) for penalty in PENALTIES], [(None, kept) for kept in KEPT]):
        for penalty, kept in along if choose and (along[0][0] or best.penalty < 1) else []:
            other, after = fitted(penalty or best.penalty, kept, best.corrections)
            gains = losses - after
            if gains.mean() <= gains.std() / np.sqrt(len(gains)):
                break
            best, losses = other, after
    return best._replace(corrections=[scaler.unscaled(each) for each in best.corrections])


def _problem(
    features: np.ndarray,
    offset: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    strength: float,
) -> Problem:
    offset, weights = offset.astype(np.float64), weights.astype(np.float64)
    targets = (labels[:, None] == np.arange(offset.shape[1])).astype(np.float64)
    return Problem(features, offset, targets, weights / weights.sum(axis=0), strength)


def _precision(embedding: np.ndarray) -> np.dtype:
    return np.dtype(np.float64 if embedding.size <= SINGLE else np.float32)


def _blocks(array: np.ndarray) -> list[np.ndarray]:
    return [array[first : first + BLOCK] for first in range(0, len(array), BLOCK)]


def _median(values: np.ndarray) -> float:
    """Return the lower median: of two kinds of values that of one, nothing in between."""
    return float(np.quantile(values, 0.5, method="lower"))
