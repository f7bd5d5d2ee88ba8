"""A training set that `curate` made: which of its rows are trained on, and how much each counts in the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset, Value
from torch.nn import functional

from hf_midrange.columns import KEEP, WEIGHT, numbers
from hf_midrange.training.row_inputs import is_weight


@dataclass(frozen=True)
class RowsUsed:
    """What became of the rows of a curated training set."""

    by: str
    """`weight` or `keep`."""
    rows: int | None
    """Rows of the set; None for a stream."""
    used: int | None
    """Rows trained on."""
    scale: float
    """Factor that brings the mean weight of the rows used to 1."""
    ignored: str | None = None
    """The other column, where the set has both: each is a choice of its own, and not a part of one."""

    def __str__(self) -> str:
        why = "whose `keep` is false" if self.by == KEEP else "of weight 0"
        how = "weighted by column `weight`" if self.by == WEIGHT else "unweighted"
        said = f"the training stream leaves out rows {why}; the others are {how}"
        if self.rows is not None and self.used is not None:
            left = self.rows - self.used
            said = f"training on {self.used} of {self.rows} rows, {how}; {left} rows {why} are left out"
        other = f"; column `{self.ignored}` is another choice and not used (see `curated_rows`)"
        return said + (other if self.ignored else "")


def used_rows(dataset: Any, by: str) -> tuple[Any, RowsUsed | None]:  # noqa: ANN401 - any dataset
    """Return the rows to train on and an account of them; a set that was not curated comes back as it is.

    Args:
        dataset: the training set.
        by: `"weight"` or `"keep"`; where the set has only one of the columns, that one counts.

    Raises:
        ValueError: if a weight is negative, NaN or infinite, or no row is left.
    """
    features = getattr(dataset, "features", None) or {}
    fits = {WEIGHT: is_weight(features.get(WEIGHT)), KEEP: features.get(KEEP) == Value("bool")}
    found = [name for name in fits if fits[name]]
    if not isinstance(dataset, Dataset | IterableDataset) or not found:
        return dataset, None
    chosen = by if by in found else found[0]
    ignored = next((name for name in found if name != chosen), None)
    if isinstance(dataset, IterableDataset):
        return dataset.filter(_is_positive, input_columns=[chosen]), RowsUsed(chosen, None, None, 1.0, ignored)
    values = numbers(dataset, chosen)
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if bad.size:
        raise ValueError(f"column {chosen!r} must be finite and not negative, but row {bad[0]} has {values[bad[0]]}")
    rows = np.flatnonzero(values > 0)
    if not rows.size:
        raise ValueError(f"column {chosen!r} leaves no row to train on")
    used = dataset if len(rows) == len(values) else dataset.select(rows)
    return used, RowsUsed(chosen, len(values), len(rows), float(1 / values[rows].mean()), ignored)


def _is_positive(value: float) -> bool:
    return value > 0


@dataclass
class WeightedLoss:
    """The `compute_loss_func` of weighted rows: the sum of weight times cross-entropy, over the number of rows.

    The divisor is the number of rows of the whole step, over accumulated batches and processes, and not the sum of
    their weights: so the gradient is on average that of the weighted loss of the whole set, however rows fall into
    batches.

    Attributes:
        scale: factor on every weight.
        smoothing: label smoothing, as `label_smoothing_factor`.
        weights: of the batch at hand, of shape `(n,)`; None: all 1.
    """

    scale: float
    smoothing: float = 0.0
    weights: torch.Tensor | None = None

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None  # noqa: ANN401
    ) -> torch.Tensor:
        """Return the loss of a batch."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        each = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self.smoothing)
        if self.weights is not None:
            each = each * (self.weights * self.scale)
        total = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return each.sum() / total


def weighted_loss(rows: RowsUsed | None, given: Callable | None, smoothing: float) -> Callable | None:
    """Return the loss function of the trainer: the user's own, or for weighted rows `WeightedLoss`.

    Raises:
        ValueError: if there are both: a user's function gives one figure a batch, in which rows cannot be weighed.
    """
    if rows is None or rows.by != WEIGHT:
        return given
    if given is not None:
        raise ValueError(
            "the training set has a `weight` column and the trainer a `compute_loss_func`, which cannot weigh rows; "
            "leave one out (`remove_columns('weight')`), or train by `curated_rows='keep'`"
        )
    return WeightedLoss(rows.scale, smoothing)
