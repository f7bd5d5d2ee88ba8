"""Fitting a head on raw embeddings: standardise, correct, fold the scaler back in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from hf_midrange.head.convex import Correction, Penalty, Problem, solve, solve_together
from hf_midrange.head.linear_head import LinearHead
from hf_midrange.head.streamed import Embeddings, Streamed
from hf_midrange.processes import ALONE, Share


CLIP = 4.0
NEAR_DEAD = 0.01
"""Channels whose deviation is below this share of the median one are left alone: new rows overshoot there."""

SATURATION = 4.0
"""Logits are scaled down to this median gap of best to second: a saturated network has no gradient to correct."""


SINGLE = 500_000
"""Embeddings of more values than this are standardised and multiplied in float32, as they came."""

BLOCK = 256

FOLD_TOLERANCE = 1e-3
"""Largest entry of the gradient where only the predictions of a fold are wanted; at most one in 800 differed by it."""


class Scaler(NamedTuple):
    """Standardisation of embeddings, clipped; near-dead channels become 0."""

    mean: torch.Tensor
    inverse: torch.Tensor
    """One over the deviation, 0 for near-dead channels; `(d,)`."""

    def apply(self, embedding: Embeddings, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Return standardised features of the shape of `embedding`."""
        mean, inverse = self.mean.to(dtype), self.inverse.to(dtype)
        features = _empty(embedding.shape, dtype, embedding.device)
        for rows, block in zip(embedding.split(BLOCK), features.split(BLOCK), strict=True):
            torch.sub(rows.to(dtype), mean, out=block)
            block.mul_(inverse).clamp_(-CLIP, CLIP)
        return features


def _empty(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return `torch.empty`, in main memory from numpy: it asks for huge pages, which makes passes a tenth faster."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, dtype=np.float32 if dtype == torch.float32 else np.float64))


@dataclass(frozen=True)
class StreamedFeatures(Streamed):
    """Embeddings that are standardised each time they are read."""

    scaler: Scaler | None = None

    def __getitem__(self, some: slice) -> torch.Tensor:
        """Return consecutive ones of the rows, standardised."""
        raw = super().__getitem__(some)
        return raw if self.scaler is None else self.scaler.apply(raw, self.dtype)


def fit_scaler(embedding: Embeddings) -> Scaler:
    """Return the scaler of embeddings of shape `(n, d)`: sums of blocks of rows, added up in float64.

    Within a block large float32 embeddings are summed in float32, moved by the mean of the first block.
    """
    dtype = torch.float64 if embedding.numel() <= SINGLE else torch.float32
    shift = embedding[:BLOCK].double().mean(dim=0).to(dtype)
    first, second = torch.zeros_like(shift, dtype=torch.float64), torch.zeros_like(shift, dtype=torch.float64)
    for rows in embedding.split(BLOCK):
        moved = rows.to(dtype) - shift
        first += moved.sum(dim=0)
        second += moved.square_().sum(dim=0)
    first, second = first / len(embedding), second / len(embedding)
    deviation = (second - first.square()).clamp_(min=0.0).sqrt()
    alive = deviation > max(NEAR_DEAD * float(deviation.median()), 1e-12)
    return Scaler(shift.double() + first, torch.where(alive, 1.0 / torch.where(alive, deviation, 1.0), 0.0))


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
    embedding: Embeddings,
    labels: torch.Tensor,
    weights: torch.Tensor,
    given: LinearHead | None,
    classes: int,
    penalty: Penalty = "l2",
    strength: float | None = None,
    in_memory: bool = True,
    shared: Share = ALONE,
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
        in_memory: whether streamed embeddings are standardised into memory, or read again for each step.
        shared: this process's share of the loss; the processes have the same arguments.
    """
    scaler = fit_scaler(embedding)
    offset, factor = torch.zeros(len(labels), classes, dtype=torch.float64, device=embedding.device), 1.0
    if given is not None:
        offset, factor = desaturated(_logits(given, embedding).double())
    strength = default_strength(classes, penalty, given is not None) if strength is None else strength
    total = weights.double() / weights.double().sum()
    dtype = torch.float64 if embedding.numel() <= SINGLE else torch.float32
    if in_memory or isinstance(embedding, torch.Tensor):
        features: Embeddings = scaler.apply(embedding, dtype)
    else:
        features = StreamedFeatures(embedding.values, embedding.rows, embedding.device, dtype, scaler)
    found = solve(Problem(features, offset, labels, total, strength, penalty, shared))
    weight, bias = _unscaled(found, scaler)
    if given is not None:
        weight = weight + factor * given.weight.to(weight)
        bias = bias + factor * given.bias.to(bias)
    return LinearHead(weight.float(), bias.float(), given.class_names if given else None)


def _logits(head: LinearHead, embedding: Embeddings) -> torch.Tensor:
    if isinstance(embedding, torch.Tensor):
        return head(embedding)
    return torch.cat([head(block) for block in embedding.split()])


def fold_corrections(
    embedding: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, folds: torch.Tensor
) -> list[LinearHead]:
    """Return, for each fold, an L2 correction fitted to the other rows: a head whose logits are added to the given.

    The scaler is fitted once, on all rows: it reads no label.

    Args:
        embedding: `(n, d)`, raw.
        logits: to be corrected, `(n, C)`, not saturated.
        labels: `(n,)` int64.
        weights: `(n,)`, positive.
        folds: fold of each row, `(n,)`, in 0..m-1.
    """
    scaler = fit_scaler(embedding)
    others = folds[:, None] != torch.arange(int(folds.max()) + 1, device=folds.device)
    kept = weights.double()[:, None] * others
    features, strength = scaler.apply(embedding, torch.float32), default_strength(logits.shape[1], "l2", True)
    problem = Problem(features, logits.double(), labels, kept / kept.sum(dim=0), strength)
    parts = [_unscaled(found, scaler) for found in solve_together(problem, FOLD_TOLERANCE)]
    return [LinearHead(weight.float(), bias.float()) for weight, bias in parts]


def _unscaled(found: Correction, scaler: Scaler) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias for raw embeddings."""
    weight = found.weight * scaler.inverse
    return weight, found.bias - weight @ scaler.mean
