"""Accuracy by group, or else by class, from inside a Trainer's evaluation, beside the user's own metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset
from torch import nn
from transformers import EvalPrediction

from hf_midrange.classifier import label_names, number_of_labels
from hf_midrange.columns import GROUP, PSEUDO_GROUP, class_label
from hf_midrange.scoring import group_metrics


CLASS = "class"
"""What rows without groups are scored by."""


@dataclass
class GroupScores:
    """A `compute_metrics` for evaluations whose label ids are `(labels, group)`; scored by class, they are the labels.

    Attributes:
        column: `group`, `pseudo_group` or `class`.
        names: names of the groups, by id.
        train_shares: each group's share of the training set, or None.
        compute: the user's own `compute_metrics`, which sees what it would see without this one.
        preprocess: the user's own `preprocess_logits_for_metrics`.
        keeps_logits: whether somebody wants the logits of all rows; they take memory.
    """

    column: str
    names: Sequence[str]
    train_shares: Sequence[float] | None = None
    compute: Callable[..., dict] | None = None
    preprocess: Callable[..., Any] | None = None
    keeps_logits: bool = True
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def label_names(self) -> list[str]:
        """What a batch has as labels beside those of the model."""
        return [] if self.column == CLASS else [self.column]

    def predictions(self, logits: Any, labels: Any) -> tuple[Any, Any]:  # noqa: ANN401 - tensors, nested
        """Return predicted class ids beside what the user makes of the logits: a `preprocess_logits_for_metrics`."""
        first = logits[0] if isinstance(logits, tuple | list) else logits
        predicted = first.argmax(-1)
        if not self.keeps_logits:
            return predicted, predicted
        return predicted, logits if self.preprocess is None else self.preprocess(logits, self.own_labels(labels))

    def own_labels(self, label_ids: Any) -> Any:  # noqa: ANN401 - arrays, nested
        """Return label ids as they would be without the group beside them."""
        if self.column == CLASS:
            return label_ids
        if isinstance(label_ids, list):  # one entry a batch: `eval_do_concat_batches=False`
            return [self.own_labels(batch) for batch in label_ids]
        labels = tuple(label_ids[:-1])
        return labels[0] if len(labels) == 1 else labels

    def __call__(self, prediction: EvalPrediction, **batched: bool) -> dict[str, Any]:
        """Return all metrics; with `batch_eval_metrics`, only of the last batch, for all of them."""
        labels = self.own_labels(prediction.label_ids)
        first = _array(labels[0] if isinstance(labels, tuple) else labels)
        groups = first if self.column == CLASS else _array(part_of(prediction.label_ids, -1))
        self.seen.append((_array(part_of(prediction.predictions, 0)), first, groups))
        theirs = {}
        if self.compute is not None:
            own = EvalPrediction(
                part_of(prediction.predictions, 1), labels, inputs=prediction.inputs, losses=prediction.losses
            )
            theirs = self.compute(own, **batched) or {}
        if not batched.get("compute_result", True):
            return theirs
        predicted, truth, groups = (np.concatenate(parts) for parts in zip(*self.seen, strict=True))
        self.seen.clear()
        return {**self.metrics(predicted, truth, groups), **theirs}

    def metrics(self, predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> dict[str, float]:
        """Return the figures by name; rows without a group count for none of them."""
        if truth.ndim > 1:  # a label for each word, or several a row
            return {}
        known = (groups >= 0) & (groups < len(self.names))
        if not known.any():
            return {}
        shares = self.train_shares
        found = group_metrics(
            predicted[known], truth[known], groups[known], group_names=self.names, train_group_shares=shares
        )
        metrics = _with_interval("accuracy", found["mean"], *found["mean_ci"])
        metrics |= _with_interval(f"worst_{self.column}_accuracy", found["worst_group"], *found["worst_group_ci"])
        if "mean_reweighted" in found:
            metrics["accuracy_train_shares"] = found["mean_reweighted"]
        for key, name in zip(_keys(self.names), self.names, strict=True):
            if name in found["groups"]:
                row = found["groups"][name]
                metrics |= _with_interval(
                    f"{self.column}_accuracy_{key}", row["accuracy"], row["ci_low"], row["ci_high"]
                )
        return metrics


def scored_column(features: Any) -> str | None:  # noqa: ANN401 - Features, or None where they are not known
    """Return the column by which rows are scored, `group` or else `pseudo_group`; None if there is neither."""
    for name in (GROUP, PSEUDO_GROUP):
        if isinstance((features or {}).get(name), ClassLabel):
            return name
    return None


def scored_by(model: nn.Module, dataset: Any) -> tuple[str, list[str]] | None:  # noqa: ANN401 - any dataset
    """Return what to score rows by, `group`, `pseudo_group` or `class`, and its names; None if not by one label."""
    kind = getattr(getattr(model, "config", None), "problem_type", None)
    count = number_of_labels(model)
    if count == 1 or kind not in (None, "single_label_classification"):
        return None
    column = scored_column(getattr(dataset, "features", None))
    if column is not None:
        return column, list(dataset.features[column].names)
    names = label_names(model) or [str(k) for k in range(count or 0)]
    return (CLASS, names) if names else None


def shares_by_id(shares: Mapping[str, float] | None, names: Sequence[str]) -> list[float] | None:
    """Return shares in the order of the groups scored; None where those trained on have other names."""
    return list(shares.values()) if shares is not None and list(shares) == list(names) else None


def group_shares(dataset: Any) -> dict[str, dict[str, float]]:  # noqa: ANN401 - any dataset
    """Return column -> group name -> share of the rows, for the column by which a set would be scored."""
    column = scored_column(getattr(dataset, "features", None))
    if column is None or not isinstance(dataset, Dataset):
        return {}
    names = class_label(dataset.features, column).names
    ids = dataset.with_format(None).select_columns([column])[:][column]
    counts = np.bincount([k for k in ids if k is not None and k >= 0], minlength=len(names))
    return {column: dict(zip(names, (counts / max(1, counts.sum())).tolist(), strict=True))}


def part_of(values: Any, which: int) -> Any:  # noqa: ANN401 - arrays, nested
    """Return one part of a tuple of arrays, or of each batch's where they are not concatenated."""
    return [batch[which] for batch in values] if isinstance(values, list) else values[which]


def _array(values: Any) -> np.ndarray:  # noqa: ANN401 - an array, a tensor, or one a batch
    if isinstance(values, list):
        return np.concatenate([_array(batch) for batch in values])
    return values.cpu().numpy() if hasattr(values, "cpu") else np.asarray(values)


def _with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: float(value), f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}


def _keys(names: Sequence[str]) -> list[str]:
    """Return the names as loggers take them in keys, kept apart by their number where they would fall together."""
    plain = [re.sub(r"[^\w.\- ]", "_", name) for name in names]
    return [key if plain.count(key) == 1 else f"{key}_{k}" for k, key in enumerate(plain)]
