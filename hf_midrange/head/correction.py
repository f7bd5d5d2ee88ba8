"""Fitting a head on raw embeddings: standardise, correct, fold the scaler back in."""

from __future__ import annotations

from typing import NamedTuple

import torch

from hf_midrange.head.convex import Penalty, Problem, solve
from hf_midrange.head.linear_head import LinearHead


CLIP = 4.0
NEAR_DEAD = 0.01
"""Channels whose deviation is below this share of the median one are left alone: new rows overshoot there."""

SATURATION = 4.0
"""Logits are scaled down to this median gap of best to second: a saturated network has no gradient to correct."""


class Scaler(NamedTuple):
    """Standardisation of embeddings, clipped; near-dead channels become 0."""

    mean: torch.Tensor
    inverse: torch.Tensor
    """One over the deviation, 0 for near-dead channels; `(d,)`."""

    def apply(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return standardised float64 features of the shape of `embedding`."""
        return ((embedding.double() - self.mean) * self.inverse).clamp_(-CLIP, CLIP)


def fit_scaler(embedding: torch.Tensor) -> Scaler:
    """Return the scaler of embeddings of shape `(n, d)`."""
    deviation, mean = torch.std_mean(embedding.double(), dim=0, correction=0)
    alive = deviation > max(NEAR_DEAD * float(deviation.median()), 1e-12)
    return Scaler(mean, torch.where(alive, 1.0 / torch.where(alive, deviation, 1.0), 0.0))


def default_strength(classes: int, penalty: Penalty, corrects: bool) -> float:
    """Return the factor of the penalty.

    `.84 / C` for an L2 correction, which is `.21 |d|^2` of the logit difference d at two classes; `.04 / C` for a new
    L2 head; `.01` for l1.
    """
    if penalty == "l1":
        return 0.01
    return 0.84 / classes if corrects else 0.04 / classes


def desaturated(logits: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return logits scaled to a median gap of best to second of at most 4, and the factor."""
    best = logits.topk(2, dim=1).values
    factor = min(1.0, SATURATION / max(float((best[:, 0] - best[:, 1]).median()), 1e-12))
    return logits * factor, factor


def fit_head(
    embedding: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    given: LinearHead | None,
    classes: int,
    penalty: Penalty = "l2",
    strength: float | None = None,
) -> LinearHead:
    """Return the corrected head `W = s W_given + D`, or a new one where none is `given`.

    D minimises `sum_i w_i CE(s z_i + x_i D + b, y_i) + strength |D|_F^2` (l2) or `strength |D|_1` (l1) on standardised
    embeddings x; s is 1 unless the given head is saturated.

    Args:
        embedding: `(n, d)`, raw.
        labels: `(n,)` int64.
        weights: `(n,)`, positive.
        given: head to correct.
        classes: number of classes C.
        penalty: `"l2"` or `"l1"`.
        strength: factor of the penalty; None: `default_strength`.
    """
    scaler = fit_scaler(embedding)
    offset, factor = torch.zeros(len(labels), classes, dtype=torch.float64, device=embedding.device), 1.0
    if given is not None:
        offset, factor = desaturated(given(embedding).double())
    strength = default_strength(classes, penalty, given is not None) if strength is None else strength
    total = weights.double() / weights.double().sum()
    found = solve(Problem(scaler.apply(embedding), offset, labels, total, strength, penalty))
    weight = found.weight * scaler.inverse
    bias = found.bias - weight @ scaler.mean
    if given is not None:
        weight = weight + factor * given.weight.to(weight)
        bias = bias + factor * given.bias.to(bias)
    return LinearHead(weight.float(), bias.float(), given.class_names if given else None)


def correct_logits(
    embedding: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    new_embedding: torch.Tensor,
    new_logits: torch.Tensor,
) -> torch.Tensor:
    """Return corrected logits of new rows, `(m, C)`, by an L2 correction fitted on weighted rows."""
    scaler = fit_scaler(embedding)
    strength = default_strength(logits.shape[1], "l2", True)
    problem = Problem(scaler.apply(embedding), logits.double(), labels, weights / weights.sum(), strength)
    found = solve(problem)
    return new_logits.double() + scaler.apply(new_embedding) @ found.weight.T + found.bias
