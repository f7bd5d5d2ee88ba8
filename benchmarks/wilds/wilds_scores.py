"""Scores by groups that overlap: a comment may mention several identities, and counts in the groups of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.scoring import wilson_interval, worst_interval


IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
"""The identities of CivilComments in WILDS (arXiv 2012.07421)."""


def overlapping_group_metrics(predictions: np.ndarray, ds: Dataset) -> dict[str, Any]:
    """Return the mean accuracy and that of each identity x label, in the form of `group_metrics`.

    Args:
        predictions: class ids, of shape `(n,)`.
        ds: has `label` and a column of bools for each of `IDENTITIES`.

    Raises:
        KeyError: if a column is missing.
        ValueError: if there are not as many predictions as rows, or no row with an identity.
    """
    columns.require(ds, *IDENTITIES)
    labels, names = columns.labels(ds), columns.class_label(ds.features).names
    right = np.asarray(predictions) == labels if len(predictions) == len(ds) else None
    if right is None:
        raise ValueError(f"there are {len(predictions)} predictions for {len(ds)} rows")
    groups = {}
    for identity in IDENTITIES:
        present = columns.numbers(ds, identity) > 0
        for k, name in enumerate(names):
            rows = present & (labels == k)
            if rows.any():
                groups[f"{name}, {identity}"] = _share(right[rows])
    if not groups:
        raise ValueError("no row mentions an identity")
    rows_right, rows = (np.array([one[name] for one in groups.values()]) for name in ("right", "n"))
    worst = min(groups, key=lambda name: groups[name]["accuracy"])
    mean = _share(right)
    return {
        "mean": mean["accuracy"],
        "mean_ci": (mean["ci_low"], mean["ci_high"]),
        "worst_group": groups[worst]["accuracy"],
        "worst_group_ci": worst_interval(rows_right, rows),
        "worst_group_name": worst,
        "groups": {name: {key: one[key] for key in one if key != "right"} for name, one in groups.items()},
    }


def _share(right: np.ndarray) -> dict[str, Any]:
    number = int(right.sum())
    low, high = wilson_interval(number, len(right))
    accuracy = number / len(right)
    return {"accuracy": accuracy, "ci_low": float(low), "ci_high": float(high), "n": len(right), "right": number}
