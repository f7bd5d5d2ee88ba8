"""The convex problem behind every head: weighted softmax loss from an offset, with an L2 or L1 penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import fmin_l_bfgs_b


Penalty = Literal["l2", "l1"]

GRADIENT_TOLERANCE = {"l2": 1e-5, "l1": 1e-6}
"""Largest entry of the (projected) gradient at which the solver stops.

For l2 at the default strength, strong convexity in the weights then bounds the distance to the minimum of the goal,
given the bias, by about 1e-6 up to 10,000 weights.
"""


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

    features: torch.Tensor
    """`(n, d)` float64."""
    offset: torch.Tensor
    """Logits to correct, `(n, C)` float64; zeros for a new head."""
    labels: torch.Tensor
    """`(n,)` int64."""
    weights: torch.Tensor
    """`(n,)` float64, positive, sum 1."""
    strength: float
    """Factor of the penalty: of `|D|_F^2` (l2) or `|D|_1` (l1)."""
    penalty: Penalty = "l2"


def solve(problem: Problem) -> Correction:
    """Return the minimiser, by L-BFGS in double precision to `GRADIENT_TOLERANCE`.

    The loss and its gradient are computed on the device of the tensors. An l1 penalty is handled as the difference of
    two non-negative weights with box constraints.
    """
    classes, width = problem.offset.shape[1], problem.features.shape[1]
    size = classes * width
    start = np.zeros(size * (1 if problem.penalty == "l2" else 2) + classes)
    bounds = None if problem.penalty == "l2" else [(0.0, None)] * (2 * size) + [(None, None)] * classes
    goal = _ridge_goal(problem) if problem.penalty == "l2" else _lasso_goal(problem)
    point, objective, _ = fmin_l_bfgs_b(
        goal,
        start,
        bounds=bounds,
        m=20,
        factr=1e4,
        pgtol=GRADIENT_TOLERANCE[problem.penalty],
        maxiter=5000,
        maxfun=10000,
    )
    weight = point[:size] if problem.penalty == "l2" else point[:size] - point[size : 2 * size]
    device = problem.features.device
    weights = torch.as_tensor(weight.reshape(classes, width), device=device)
    return Correction(weights, torch.as_tensor(point[-classes:], device=device), float(objective))


def _loss(problem: Problem, weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the weighted loss and its gradients by weight, flat, and by bias."""
    device = problem.features.device
    matrix = torch.as_tensor(weight, device=device).reshape(len(bias), -1)
    logits = problem.offset + problem.features @ matrix.T + torch.as_tensor(bias, device=device)
    logs = torch.log_softmax(logits, dim=1)
    rows = torch.arange(len(logs), device=device)
    loss = -(problem.weights * logs[rows, problem.labels]).sum()
    slope = logs.exp()
    slope[rows, problem.labels] -= 1.0
    slope *= problem.weights[:, None]
    gradient = slope.T @ problem.features
    return float(loss), gradient.reshape(-1).cpu().numpy(), slope.sum(dim=0).cpu().numpy()


def _ridge_goal(problem: Problem) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    classes = problem.offset.shape[1]

    def goal(point: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = point[:-classes], point[-classes:]
        loss, by_weight, by_bias = _loss(problem, weight, bias)
        loss += problem.strength * float(weight @ weight)
        return loss, np.concatenate([by_weight + 2 * problem.strength * weight, by_bias])

    return goal


def _lasso_goal(problem: Problem) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    classes = problem.offset.shape[1]

    def goal(point: np.ndarray) -> tuple[float, np.ndarray]:
        up, down = np.split(point[:-classes], 2)
        loss, by_weight, by_bias = _loss(problem, up - down, point[-classes:])
        loss += problem.strength * float(up.sum() + down.sum())
        return loss, np.concatenate([by_weight + problem.strength, problem.strength - by_weight, by_bias])

    return goal
