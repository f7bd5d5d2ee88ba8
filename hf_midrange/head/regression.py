"""Models of a number: errors by group with intervals, and a repair by weighted least squares where it is shown to pay.

What a model of a number gets wrong for a concept shows in its signed error (`signed_error`). The repair gives rows
with and without the concept the same weight at every height of the target, fits a correction of the head to the error
that is left, and keeps it only if rows that it was not fitted to are predicted better where the model was worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from datasets import Dataset
from scipy import stats

from hf_midrange import columns


if TYPE_CHECKING:
    from torch import nn

    from hf_midrange.head.linear_head import LinearHead

FOLDS = 5
MOST_CONCEPTS = 3
"""Confirmed concepts whose patterns are groups, the most significant first."""

LEAST_ROWS = 20
"""Rows below which a pattern at a height of the target is no group."""

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Factors of the mean variance of an embedding's entries, among which cross-validation chooses."""


class RegressionRepair(NamedTuple):
    """What `repair_regression` found."""

    head: LinearHead
    """The corrected head; the given one where no repair is shown to pay."""
    repaired: bool
    reason: str
    concepts: tuple[str, ...]
    """The confirmed concepts that groups are made of."""
    before: dict[str, Any]
    """`group_errors` of the given head."""
    after: dict[str, Any]
    """`group_errors` of corrections, each on rows that it was not fitted to."""


def group_errors(
    predictions: Sequence[float] | np.ndarray,
    targets: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray,
    *,
    group_names: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Return the mean absolute error over all rows, of the worst group, and of every group, with t-intervals.

    Args:
        predictions: numbers, `(n,)`.
        targets: true numbers, `(n,)`.
        groups: group ids from 0, `(n,)`.
        group_names: names of the groups, by id; ids name themselves without it.
        confidence: nominal coverage of the intervals.

    Returns:
        `{"mean", "mean_ci": (low, high), "worst_group", "worst_group_ci", "worst_group_name", "groups": {name:
        {"mae", "ci_low", "ci_high", "n"}}}`. `worst_group_ci` covers the largest true error, whichever group has it:
        it is made of intervals that hold for all groups together (Bonferroni). A group of one row has no interval.

    Raises:
        ValueError: if shapes differ, there is no row, a value is not finite, or an id has no name.

    Examples:
        >>> found = group_errors([1.0, 2.0, 5.0, 6.0], [1.0, 3.0, 3.0, 3.0], [0, 0, 1, 1])
        >>> found["mean"], found["worst_group"], found["worst_group_name"]
        (1.5, 2.5, '1')
    """
    errors = np.abs(np.asarray(predictions, dtype=float) - np.asarray(targets, dtype=float))
    ids = np.asarray(groups).astype(np.int64)
    if errors.shape != ids.shape or errors.ndim != 1 or not len(ids):
        raise ValueError(f"there must be a prediction, a target and a group each row, but {errors.shape}, {ids.shape}")
    if not np.isfinite(errors).all():
        raise ValueError("predictions and targets must be finite, but hold NaN or infinite values")
    names = list(group_names) if group_names is not None else [str(k) for k in range(int(ids.max()) + 1)]
    if ids.min() < 0 or ids.max() >= len(names):
        raise ValueError(f"group ids run from {ids.min()} to {ids.max()} but there are {len(names)} group names")
    of_group = {names[k]: errors[ids == k] for k in np.unique(ids)}
    together = 1 - (1 - confidence) / len(of_group)
    wide = [_interval(values, together) for values in of_group.values()]
    worst = max(of_group, key=lambda name: of_group[name].mean())
    found = {}
    for name, values in of_group.items():
        low, high = _interval(values, confidence)
        found[name] = {"mae": float(values.mean()), "ci_low": low, "ci_high": high, "n": len(values)}
    return {
        "mean": float(errors.mean()),
        "mean_ci": _interval(errors, confidence),
        "worst_group": found[worst]["mae"],
        "worst_group_ci": (max(low for low, _ in wide), max(high for _, high in wide)),
        "worst_group_name": worst,
        "groups": found,
    }


def repair_regression(
    ds: Dataset, findings: Dataset, model: nn.Module | LinearHead, *, seed: int = 0, head: str | None = None
) -> RegressionRepair:
    """Correct the head of a model of a number, if that is shown to pay.

    Groups are the patterns of confirmed concepts at each third of the targets. A correction minimises
    `sum w (z + D x + b - y)^2 + p |D|^2` with weights w that give every pattern the same sum at each height. It is
    judged by cross-validation, rows of one source in one fold: it is kept if the mean absolute error of the group that
    was worst falls, with a paired 95 % t-interval below 0.

    Args:
        ds: rows that the model was not trained on, as `signed_error` and `annotate` made them.
        findings: what `associate` returned for them.
        model: the model to correct, or its head.
        seed: of the folds.
        head: name of the model's last linear layer, where several could be it.

    Raises:
        KeyError: if a column is missing.
        ValueError: if the embeddings are of another width than the head's.

    Examples:
        ```python
        rows = hm.signed_error(hm.extract(dataset, model))
        rows = hm.LogitBands("quantile").fit(rows).transform(rows)
        rows = hm.annotate(rows, [hm.Annotations(["hat"])])
        found = hm.repair_regression(rows, hm.associate(rows), model)
        model = found.head.merge_into(model)
        ```
    """
    from hf_midrange.head.linear_head import LinearHead

    given = model if isinstance(model, LinearHead) else LinearHead.from_model(model, head)
    x = columns.finite_matrix(ds, columns.EMBEDDING).astype(np.float64)
    if (given.num_classes, given.width) != (2, x.shape[1]):
        raise ValueError(f"the head {given!r} does not give one number from embeddings of width {x.shape[1]}")
    pair = given(columns.matrix(ds, columns.EMBEDDING)).double().cpu().numpy()
    z, error = pair[:, 1] - pair[:, 0], columns.finite_matrix(ds, columns.LOGITS)[:, 0].astype(np.float64)
    concepts = _confirmed(findings)
    groups, names = _groups(ds, concepts, z - error)
    before = group_errors(error, np.zeros(len(ds)), groups, group_names=names)
    if not concepts:
        return RegressionRepair(given, False, "no concept is tied to the error", (), before, before)
    weights = _weights(groups, names)
    folds = _folds(ds, seed)
    scores = {p: _held_out(x, error, weights, folds, p) for p in PENALTIES}
    penalty = min(scores, key=lambda p: float(weights @ scores[p] ** 2))
    after = group_errors(scores[penalty], np.zeros(len(ds)), groups, group_names=names)
    worst = groups == names.index(before["worst_group_name"])
    change = (np.abs(scores[penalty]) - np.abs(error))[worst]
    shown = tuple(concept for _, concept in concepts)
    if not (_interval(change, 0.95)[1] < 0 and after["worst_group"] < before["worst_group"]):
        reason = f"the error of the worst group, {before['worst_group_name']}, is not shown to fall"
        return RegressionRepair(given, False, reason, shown, before, after)
    slope, offset = _fitted(x, error, weights, penalty)
    import torch

    change_of_pair = torch.from_numpy(np.stack([-slope, slope]) / 2).float()
    bias = torch.tensor([-offset / 2, offset / 2]).float() if given.has_bias else torch.zeros(2)
    corrected = LinearHead(given.weight + change_of_pair, given.bias + bias, given.class_names, given.has_bias)
    return RegressionRepair(corrected, True, "the error of the worst group falls", shown, before, after)


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the t-interval of a mean; without end for a single value."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def _confirmed(findings: Dataset) -> list[tuple[str, str]]:
    """Return source and name of the confirmed concepts that are not derived from the model, the most significant."""
    rows = findings.select_columns(["source", "concept", "confirmed", "derived"]).with_format(None)
    found = [(row["source"], row["concept"]) for row in rows if row["confirmed"] and not row["derived"]]
    return list(dict.fromkeys(found))[:MOST_CONCEPTS]


def _groups(ds: Dataset, concepts: list[tuple[str, str]], target: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the group of each row, a pattern of concepts at a third of the targets, and the groups' names."""
    third = np.searchsorted(np.quantile(target, [1 / 3, 2 / 3]), target)
    pattern, words = np.zeros(len(ds), np.int64), [""]
    for source, concept in concepts:
        column = f"{columns.CONCEPTS_PREFIX}{source}"
        number = columns.vocabulary(ds.features, column).index(concept)
        pattern = 2 * pattern + columns.presence(ds, column)[:, [number]].toarray().ravel()
        words = [f"{word}{', ' if word else ''}{no}{concept}" for word in words for no in ("no ", "")]
    names = [f"{height} third{': ' if word else ''}{word}" for height in ("low", "middle", "high") for word in words]
    ids = third * len(words) + pattern
    for few in np.flatnonzero(np.bincount(ids, minlength=len(names)) < LEAST_ROWS):
        ids[ids == few] = few // len(words) * len(words)  # too few to be a group: with the rows that have no concept
    return ids, names


def _weights(groups: np.ndarray, names: list[str]) -> np.ndarray:
    """Return weights of mean 1 with which all groups of a third of the targets have the same sum."""
    counts = np.bincount(groups, minlength=len(names)).astype(float)
    by_third = counts.reshape(3, -1)
    wanted = by_third.sum(axis=1, keepdims=True) / np.maximum((by_third > 0).sum(axis=1, keepdims=True), 1)
    return (wanted / np.maximum(by_third, 1)).ravel()[groups]


def _folds(ds: Dataset, seed: int) -> np.ndarray:
    """Return the fold of each row, that of its source."""
    sources = columns.source_ids(ds)
    numbers = np.arange(len(ds)) if sources is None else np.unique(sources, return_inverse=True)[1]
    return np.random.default_rng(seed).permutation(int(numbers.max()) + 1)[numbers] % FOLDS


def _held_out(x: np.ndarray, error: np.ndarray, weights: np.ndarray, folds: np.ndarray, penalty: float) -> np.ndarray:
    """Return the error of each row after a correction fitted without its fold, `(n,)`."""
    left = error.copy()
    for fold in np.unique(folds):
        out = folds == fold
        slope, offset = _fitted(x[~out], error[~out], weights[~out], penalty)
        left[out] += x[out] @ slope + offset
    return left


def _fitted(x: np.ndarray, error: np.ndarray, weights: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Return the slope `(d,)` and offset of the ridge regression of minus the error on the embedding."""
    share = weights / weights.sum()
    mean, level = share @ x, share @ error
    centred = x - mean
    gram = centred.T @ (share[:, None] * centred)
    ridge = penalty * np.trace(gram) / len(gram) + 1e-12
    slope = -np.linalg.solve(gram + ridge * np.eye(len(gram)), centred.T @ (share * (error - level)))
    return slope, float(-level - slope @ mean)
