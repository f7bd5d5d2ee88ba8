"""Accuracy by group, with intervals: the figures by which a repaired classifier is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import betaincinv, ndtri


def wilson_interval(
    successes: np.ndarray | Sequence[int] | int, totals: np.ndarray | Sequence[int] | int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of Wilson's score interval of a proportion, element by element.

    Source: Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference", JASA 22. No
    trials give the interval (0, 1).

    Args:
        successes: counts, of any shape.
        totals: trials, of the same shape.
        confidence: the interval's nominal coverage, in (0, 1).
    """
    wins, trials = np.asarray(successes, dtype=float), np.asarray(totals, dtype=float)
    if np.any(wins < 0) or np.any(wins > trials):
        raise ValueError("`successes` must lie between 0 and `totals`")
    z = float(ndtri(0.5 + confidence / 2))
    safe = np.maximum(trials, 1)
    share = wins / safe
    centre = (share + z**2 / (2 * safe)) / (1 + z**2 / safe)
    half = z / (1 + z**2 / safe) * np.sqrt(share * (1 - share) / safe + z**2 / (4 * safe**2))
    low = np.where(wins == 0, 0.0, centre - half)
    high = np.where(wins == trials, 1.0, centre + half)
    return np.where(trials == 0, 0.0, low), np.where(trials == 0, 1.0, high)


def worst_interval(successes: np.ndarray, totals: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval for the lowest of several proportions, which holds although nobody knows which is the lowest.

    The lowest observed proportion is on average below the lowest true one, the more so the more groups are alike, and
    its own interval covers that too seldom (.64 for 16 alike groups of 30 rows). The lowest of all lower limits is at
    most that of the right group; the lowest of all upper limits needs each to hold at once: these are exact (Clopper
    and Pearson 1934), at a level divided by the number of groups.

    Args:
        successes: counts, of shape `(G,)`.
        totals: trials, at least one in each group.
        confidence: nominal coverage; the real one is at least that.
    """
    low, _ = wilson_interval(successes, totals, confidence)
    failures = np.asarray(totals) - successes
    level = 1 - (1 - confidence) / 2 / len(failures)
    high = np.where(failures == 0, 1.0, betaincinv(successes + 1.0, np.maximum(failures, 1.0), level))
    return float(low.min()), float(high.min())


def group_metrics(
    predictions: np.ndarray | Sequence[int],
    labels: np.ndarray | Sequence[int],
    groups: np.ndarray | Sequence[int],
    *,
    group_names: Sequence[str] | None = None,
    train_group_shares: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Return the mean accuracy, the worst group's, and every group's, with Wilson intervals.

    Args:
        predictions: class ids, of shape `(n,)`.
        labels: true class ids, of shape `(n,)`.
        groups: group ids from 0, of shape `(n,)`.
        group_names: names of the groups, by id; ids name themselves without it.
        train_group_shares: each group's share of the training set. With it, `mean_reweighted` is the mean that much
            of the literature reports for Waterbirds: group accuracies weighted by these shares. Groups without a row
            here are left out of it and the rest rescaled.
        confidence: nominal coverage of the intervals.

    Returns:
        `{"mean": .., "mean_ci": (low, high), "worst_group": .., "worst_group_ci": .., "worst_group_name": ..,
        "groups": {name: {"accuracy", "ci_low", "ci_high", "n"}}}` and, when asked for, `"mean_reweighted"`.
        Groups without a row have no accuracy and are not listed. `worst_group` is the lowest observed accuracy, on
        average below the lowest true one; `worst_group_ci` is about the latter (`worst_interval`).

    Raises:
        ValueError: if shapes differ, there is no row, or an id has no name.

    Examples:
        >>> metrics = group_metrics([0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1])
        >>> metrics["mean"], metrics["worst_group"], metrics["worst_group_name"]
        (0.75, 0.5, '1')
    """
    predicted, truth, ids = (np.asarray(values).astype(np.int64) for values in (predictions, labels, groups))
    _check(predicted, truth, ids)
    names = list(group_names) if group_names is not None else [str(k) for k in range(int(ids.max()) + 1)]
    if ids.min() < 0 or ids.max() >= len(names):
        raise ValueError(f"group ids run from {ids.min()} to {ids.max()} but there are {len(names)} group names")
    hits = predicted == truth
    totals = np.bincount(ids, minlength=len(names))
    right = np.bincount(ids, weights=hits, minlength=len(names)).astype(np.int64)
    low, high = wilson_interval(right, totals, confidence)
    seen = np.flatnonzero(totals)
    accuracy = right / np.maximum(totals, 1)
    worst = int(seen[np.argmin(accuracy[seen])])
    mean_low, mean_high = wilson_interval(int(hits.sum()), len(hits), confidence)
    metrics: dict[str, Any] = {
        "mean": float(hits.mean()),
        "mean_ci": (float(mean_low), float(mean_high)),
        "worst_group": float(accuracy[worst]),
        "worst_group_ci": worst_interval(right[seen], totals[seen], confidence),
        "worst_group_name": names[worst],
        "groups": {
            names[k]: {
                "accuracy": float(accuracy[k]),
                "ci_low": float(low[k]),
                "ci_high": float(high[k]),
                "n": int(totals[k]),
            }
            for k in seen
        },
    }
    if train_group_shares is not None:
        if len(train_group_shares) != len(names):
            raise ValueError(f"`train_group_shares` has {len(train_group_shares)} shares for {len(names)} groups")
        shares = np.asarray(train_group_shares, dtype=float)[seen]
        metrics["mean_reweighted"] = float((accuracy[seen] * shares).sum() / shares.sum())
    return metrics


def _check(predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> None:
    if not predictions.shape == labels.shape == groups.shape or predictions.ndim != 1:
        raise ValueError(
            f"`predictions`, `labels` and `groups` must be class ids of one shape (n,), but have shapes "
            f"{predictions.shape}, {labels.shape}, {groups.shape}"
        )
    if not len(labels):
        raise ValueError("there is no row to score")
