"""The convex problem behind every head: weighted softmax loss from an offset, with an L2 or L1 penalty."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import fmin_l_bfgs_b

from hf_midrange.head.streamed import Embeddings
from hf_midrange.processes import ALONE, Share


Penalty = Literal["l2", "l1"]

GRADIENT_TOLERANCE = {"l2": 3e-5, "l1": 1e-6}
"""Largest entry of the (projected) gradient at which the solver stops.

For l2 at the default strength, strong convexity in the weights then bounds the distance to the minimum of the goal,
given the bias, by about 1e-5 up to 10,000 weights; at 800 to 20,000 rows of 1,280 and 2,048 it was 1e-7 or less.
"""

SMALLEST_STEP = {torch.float64: 1e4, torch.float32: 1e7}
"""The solver also stops where a step gains less than this many times the machine's precision, relatively."""


BLOCK = 1024
"""Rows of the features that are multiplied at once on a CPU."""


class Correction(NamedTuple):
    """The minimiser."""

    weight: torch.Tensor
    """`(C, d)`."""
    bias: torch.Tensor
    """`(C,)`."""
    objective: float
    """Value of the objective there."""


class Problem(NamedTuple):
    """Minimise `sum_i w_i CE(offset_i + x_i D' + b, y_i) + penalty(D)` with weights of sum 1; b is not penalised."""

    features: Embeddings
    """`(n, d)` float64; in float32 the products of large matrices take half the time, the loss stays in float64."""
    offset: torch.Tensor
    """Logits to correct, `(n, C)` float64; zeros for a new head."""
    labels: torch.Tensor
    """`(n,)` int64."""
    weights: torch.Tensor
    """`(n,)` float64, positive, sum 1; for `solve_together` `(n, m)`, with 0 for rows that a problem leaves out."""
    strength: float
    """Factor of the penalty: of `|D|_F^2` (l2) or `|D|_1` (l1)."""
    penalty: Penalty = "l2"
    shared: Share = ALONE
    """Which blocks of rows this process reads for the loss; all processes solve the same problem."""


def solve(problem: Problem) -> Correction:
    """Return the minimiser, by L-BFGS to `GRADIENT_TOLERANCE`.

    The loss and its gradient are computed on the device of the tensors. An l1 penalty is handled as the difference of
    two non-negative weights with box constraints. Of two classes only the difference is fitted, as both rows of the
    minimiser mirror each other.
    """
    return solve_together(problem._replace(weights=problem.weights[:, None]))[0]


def solve_together(problem: Problem, tolerance: float | None = None) -> list[Correction]:
    """Return the minimisers of m problems that differ in their weights `(n, m)` alone, such as the folds of a test.

    Each pass reads the features once for all of them, which is what a pass costs.

    Args:
        problem: all problems.
        tolerance: largest entry of the gradient at which to stop; None: `GRADIENT_TOLERANCE`.
    """
    fitted = _Fitted(problem)
    goal = fitted.ridge_goal if problem.penalty == "l2" else fitted.lasso_goal
    bounds = None if problem.penalty == "l2" else [(0.0, None)] * (2 * fitted.size) + [(None, None)] * fitted.biases
    point, _, _ = fmin_l_bfgs_b(
        goal,
        np.zeros(fitted.size * (1 if problem.penalty == "l2" else 2) + fitted.biases),
        bounds=bounds,
        m=10,
        factr=SMALLEST_STEP[problem.features.dtype],
        pgtol=GRADIENT_TOLERANCE[problem.penalty] if tolerance is None else tolerance,
        maxiter=5000,
        maxfun=10000,
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
        offset = problem.offset[:, 1:] - problem.offset[:, :1] if self.binary else problem.offset
        self.offset = offset.double()[:, None, :]
        self.targets = torch.nn.functional.one_hot(problem.labels, classes).double()[:, None, :]
        if self.binary:
            self.targets = self.targets[..., 1:]
        self.weights = problem.weights.double()
        # |D|_F^2 of two mirrored rows is half that of their difference; |D|_1 is the same.
        self.ridge = problem.strength / 2 if self.binary else problem.strength

    def loss(self, weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the sum of the weighted losses and its gradients by weight, flat, and by bias."""
        features = self.problem.features
        matrix = torch.as_tensor(weight, device=features.device).reshape(-1, self.width).to(features.dtype)
        shift = torch.as_tensor(bias, device=features.device)
        total, gradient, by_bias = 0.0, torch.zeros_like(matrix), torch.zeros_like(shift)
        # Both products of a block are taken while it is in the cache.
        for first in self.problem.shared.part(range(0, len(features), BLOCK)):
            rows = slice(first, first + BLOCK)
            block = features[rows]
            moved = (matrix @ block.T).T.double() + shift  # few rows times many: twice as fast as the other way round
            loss, slope = self._slope(rows, moved.reshape(-1, self.problems, self.units) + self.offset[rows])
            total += loss
            gradient += slope.T.to(features.dtype) @ block
            by_bias += slope.sum(dim=0)
        parts = [np.array([total]), gradient.double().reshape(-1).cpu().numpy(), by_bias.cpu().numpy()]
        whole = self.problem.shared.summed(np.concatenate(parts))
        return float(whole[0]), whole[1 : -len(bias)], whole[-len(bias) :]

    def _slope(self, rows: slice, logits: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return the weighted loss of some rows, and its derivative by their logits, `(rows, m U)`."""
        targets, weights = self.targets[rows], self.weights[rows]
        if self.binary:
            losses = torch.nn.functional.softplus(logits[..., 0]) - targets[..., 0] * logits[..., 0]
            slope = torch.sigmoid(logits)
        else:
            logs = torch.log_softmax(logits, dim=2)
            losses, slope = -(logs * targets).sum(dim=2), logs.exp()
        slope = ((slope - targets) * weights[:, :, None]).reshape(len(logits), -1)
        return float((losses * weights).sum()), slope

    def ridge_goal(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = point[: self.size], point[self.size :]
        loss, by_weight, by_bias = self.loss(weight, bias)
        loss += self.ridge * float(weight @ weight)
        return loss, np.concatenate([by_weight + 2 * self.ridge * weight, by_bias])

    def lasso_goal(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        up, down = np.split(point[: 2 * self.size], 2)
        strength = self.problem.strength
        loss, by_weight, by_bias = self.loss(up - down, point[2 * self.size :])
        loss += strength * float(up.sum() + down.sum())
        return loss, np.concatenate([by_weight + strength, strength - by_weight, by_bias])

    def corrections(self, point: np.ndarray) -> list[Correction]:
        ridge = self.problem.penalty == "l2"
        weight = point[: self.size] if ridge else point[: self.size] - point[self.size : 2 * self.size]
        bias, device = point[-self.biases :], self.problem.features.device
        weights = torch.as_tensor(weight, device=device).reshape(self.problems, self.units, self.width)
        biases = torch.as_tensor(bias, device=device).reshape(self.problems, self.units)
        if self.binary:
            weights = torch.cat([-weights / 2, weights / 2], dim=1)
            biases = torch.cat([-biases / 2, biases / 2], dim=1)
        pairs = list(zip(weights, biases, strict=True))
        return [Correction(*pair, self._objective(j, *pair)) for j, pair in enumerate(pairs)]

    def _objective(self, j: int, weight: torch.Tensor, bias: torch.Tensor) -> float:
        problem = self.problem
        logits = problem.offset.double() + (problem.features @ weight.T.to(problem.features.dtype)).double() + bias
        losses = torch.nn.functional.cross_entropy(logits, problem.labels, reduction="none")
        size = weight.square().sum() if problem.penalty == "l2" else weight.abs().sum()
        return float((losses * self.weights[:, j]).sum() + problem.strength * size)
