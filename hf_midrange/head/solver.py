"""The convex problem behind every head: the weighted softmax loss of given logits plus a linear term, penalised."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import fmin_l_bfgs_b
from scipy.special import log_softmax


GRADIENT_TOLERANCE = 3e-5
"""Largest entry of the gradient at which the solver stops.

At the default strength, strong convexity in the weights then bounds the distance to the minimum of the goal, given the
bias, by about 1e-5 up to 10,000 weights; at 800 to 20,000 rows of 1,280 and 2,048 it was 1e-7 or less.
"""

SMALLEST_STEP = {8: 1e4, 4: 1e7}
"""The solver also stops where a step gains less than this many times the precision of doubles, relatively; by the
bytes that a feature takes."""

MOST_STEPS = 5000

BLOCK = 1024
"""Rows of the features that are multiplied at once."""


class Correction(NamedTuple):
    """The minimiser, as numpy arrays in double precision."""

    weight: np.ndarray
    """`(C, d)`."""
    bias: np.ndarray
    """`(C,)`."""


class Problem(NamedTuple):
    """Minimise `sum_i w_i CE(offset_i + x_i D' + b, y_i) + strength |D|_F^2` with weights of sum 1; b is free."""

    features: np.ndarray
    """`(n, d)`; in float32 the products of large matrices take half the time, the loss stays in float64."""
    offset: np.ndarray
    """Logits to correct, `(n, C)` float64; zeros for a new head."""
    targets: np.ndarray
    """`(n, C)` float64, 1 in the column of the row's class and else 0."""
    weights: np.ndarray
    """`(n, m)` float64, each column of sum 1: m problems that differ in their weights alone are solved together, as
    each pass reads the features once for all of them. 0 for rows that a problem leaves out."""
    strength: float
    intercept: bool = True
    """Whether b is fitted, or stays 0."""


def solve(
    problem: Problem,
    tolerance: float = GRADIENT_TOLERANCE,
    steps: int = MOST_STEPS,
    start: Sequence[Correction] | None = None,
) -> list[Correction]:
    """Return the minimiser for each column of the weights, by L-BFGS.

    Of two classes only the difference is fitted, as both rows of the minimiser mirror each other.

    Args:
        problem: what to minimise.
        tolerance: largest entry of the gradient at which to stop.
        steps: after so many, the solver gives up.
        start: minimisers of a similar problem; None: zeros.

    Warns:
        RuntimeWarning: if the solver gave up before the gradient was that small.
    """
    fitted = _Fitted(problem)
    point, _, ended = fmin_l_bfgs_b(
        fitted.goal,
        np.zeros(fitted.size + fitted.biases) if start is None else fitted.point(start),
        m=10,
        factr=SMALLEST_STEP[problem.features.dtype.itemsize],
        pgtol=tolerance,
        maxiter=steps,
        maxfun=2 * steps,
    )
    steepest = float(np.abs(ended["grad"]).max())
    if ended["warnflag"] and not steepest <= tolerance:
        warnings.warn(
            f"the head is not at the minimum: after {ended['nit']} steps the gradient is {steepest:.1e}, and "
            f"{tolerance:.0e} was wanted ({ended['task']}); look for embeddings of very different sizes",
            RuntimeWarning,
            stacklevel=2,
        )
    return fitted.corrections(point)


class _Fitted:
    """What is fitted, as one flat vector: m times U rows of weights, then as many biases; U is 1 for two classes."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        classes, self.width = problem.offset.shape[1], problem.features.shape[1]
        self.binary, self.problems = classes == 2, problem.weights.shape[1]
        self.units = 1 if self.binary else classes
        self.biases = self.problems * self.units
        self.size = self.biases * self.width
        offset, targets = problem.offset, problem.targets
        if self.binary:
            offset, targets = offset[:, 1:] - offset[:, :1], targets[:, 1:]
        self.offset, self.targets = offset[:, None, :], targets[:, None, :]
        # |D|_F^2 of two mirrored rows is half that of their difference.
        self.ridge = problem.strength / 2 if self.binary else problem.strength

    def goal(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum of losses and penalty, and its gradient."""
        weight = point[: self.size]
        loss, gradient = self._loss(weight, point[self.size :])
        gradient[: self.size] += 2 * self.ridge * weight
        return loss + self.ridge * float(weight @ weight), gradient

    def _loss(self, weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum of the weighted losses, and its gradient by weights and bias."""
        features = self.problem.features
        matrix = weight.reshape(-1, self.width).astype(features.dtype)
        total, by_weight, by_bias = 0.0, np.zeros_like(matrix), np.zeros_like(bias)
        # Both products of a block are taken while it is in the cache.
        for first in range(0, len(features), BLOCK):
            rows = slice(first, first + BLOCK)
            block = features[rows]
            moved = (matrix @ block.T).T + bias  # few rows times many: twice as fast as the other way round
            loss, slope = self._slope(rows, moved.reshape(-1, self.problems, self.units) + self.offset[rows])
            total += loss
            by_weight += slope.T.astype(features.dtype) @ block
            if self.problem.intercept:
                by_bias += slope.sum(axis=0)
        return total, np.concatenate([by_weight.ravel(), by_bias])

    def _slope(self, rows: slice, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the weighted loss of some rows, and its derivative by their logits, `(rows, m U)`."""
        targets, weights = self.targets[rows], self.problem.weights[rows]
        if self.binary:
            soft = np.logaddexp(0.0, logits)
            losses, slope = (soft - targets * logits)[..., 0], np.exp(logits - soft)
        else:
            logs = log_softmax(logits, axis=2)
            losses, slope = -(logs * targets).sum(axis=2), np.exp(logs)
        slope = ((slope - targets) * weights[:, :, None]).reshape(len(logits), -1)
        return float((losses * weights).sum()), slope

    def point(self, corrections: Sequence[Correction]) -> np.ndarray:
        """Return the vector of some corrections."""
        parts = [[part[1:] - part[:1] if self.binary else part for part in each] for each in corrections]
        return np.concatenate([np.concatenate([part.ravel() for part in kind]) for kind in zip(*parts, strict=True)])

    def corrections(self, point: np.ndarray) -> list[Correction]:
        """Return weight and bias of all classes, for each problem."""
        weights = point[: self.size].reshape(self.problems, self.units, self.width)
        biases = point[self.size :].reshape(self.problems, self.units)
        if self.binary:
            weights = np.concatenate([-weights, weights], axis=1) / 2
            biases = np.concatenate([-biases, biases], axis=1) / 2
        return [Correction(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
