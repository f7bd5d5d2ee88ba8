"""Accuracy by group, or else by class, as a trainer logs it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel
from torch import nn

from hf_midrange.classifier import label_names, number_of_labels
from hf_midrange.columns import GROUP, LABEL, PSEUDO_GROUP
from hf_midrange.scoring import group_metrics


CLASS = "class"
"""What rows without groups are scored by."""


def group_figures(
    by: tuple[str, Sequence[str]],
    predicted: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
) -> dict[str, float]:
    """Return accuracy by group with its intervals, under the names by which a trainer logs it.

    Args:
        by: `group`, `pseudo_group` or `class`, and the names of the groups by id.
        predicted: class ids, of shape `(n,)`.
        truth: class ids, of shape `(n,)`; of another shape, for a label a word or several a row, there are no figures.
        groups: group ids, of shape `(n,)`; rows without a group count for none of the figures.
    """
    column, names = by
    known = (groups >= 0) & (groups < len(names))
    if truth.ndim > 1 or not known.any():
        return {}
    found = group_metrics(predicted[known], truth[known], groups[known], group_names=names)
    figures = _with_interval("accuracy", found["mean"], *found["mean_ci"])
    figures |= _with_interval(f"worst_{column}_accuracy", found["worst_group"], *found["worst_group_ci"])
    for key, name in zip(figure_keys(names), names, strict=True):
        if name in found["groups"]:
            row = found["groups"][name]
            figures |= _with_interval(f"{column}_accuracy_{key}", row["accuracy"], row["ci_low"], row["ci_high"])
    return figures


def scored_column(features: Any) -> str | None:  # noqa: ANN401 - Features, or None where they are not known
    """Return the column by which rows are scored, `group` or else `pseudo_group`; None if there is neither."""
    for name in (GROUP, PSEUDO_GROUP):
        if isinstance((features or {}).get(name), ClassLabel):
            return name
    return None


def scored_by(model: nn.Module, dataset: Any) -> tuple[str, list[str]] | None:  # noqa: ANN401 - any dataset
    """Return what to score rows by, `group`, `pseudo_group` or `class`, and its names; None if not by one label."""
    kind = getattr(getattr(model, "config", None), "problem_type", None)
    features, count = getattr(dataset, "features", None) or {}, number_of_labels(model)
    label: Any = features.get(LABEL)
    pair = count == 1 and isinstance(label, ClassLabel) and label.num_classes == 2  # one logit, for and against
    if kind == "regression" or (not pair and (count == 1 or kind == "multi_label_classification")):
        return None
    column = scored_column(features)
    if column is not None:
        return column, list(features[column].names)
    names = list(label.names) if pair else label_names(model) or [str(k) for k in range(count or 0)]
    return (CLASS, names) if names else None


def _with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: float(value), f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}


def figure_keys(names: Sequence[str]) -> list[str]:
    """Return the names as loggers take them in keys, kept apart by their number where they would fall together."""
    plain = [re.sub(r"[^\w.\- ]", "_", name) for name in names]
    return [key if plain.count(key) == 1 else f"{key}_{k}" for k, key in enumerate(plain)]
