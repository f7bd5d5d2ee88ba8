"""Rows whose label may be wrong: members far down their class's range that no confounder explains."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, Features, Value

from hf_midrange import columns


DEEP, MIDDLE = 0.3, 0.5
"""Class-relative positions: near strangers of the own class, and past the middle of another class."""


def suspected_mislabels(ds: Dataset, findings: Dataset) -> Dataset:
    """Return the rows that look mislabelled, most suspect first.

    A row is suspected if, for its own label's unit, it stands near strangers (position < 0.3), stands above
    the middle between typical stranger and member for another class (position > 0.5), and no confirmed confounder
    explains that: it neither lacks one of its own class nor has one of another class.

    Args:
        ds: one split with `label`, `position` (one unit per class) and the concept columns of the findings.
        findings: what `associate` returned for it.

    Returns:
        A dataset with `row`, `label`, `suggested` (the class it stands highest in) and `score` (the position in the
        suggested class minus that in its own), of shape `(s,)`.
    """
    ids, position = columns.labels(ds), columns.matrix(ds, columns.POSITION)
    names = columns.class_label(ds.features).names
    if position.shape[1] != len(names):
        raise ValueError(f"`position` has {position.shape[1]} units for {len(names)} classes; fit bands on the logits")
    own = position[np.arange(len(ids)), ids]
    others = np.where(np.isnan(position), -np.inf, position)
    others[np.arange(len(ids)), ids] = -np.inf
    suggested = others.argmax(axis=1)
    score = others.max(axis=1) - own
    rows = np.flatnonzero((own < DEEP) & (others.max(axis=1) > MIDDLE) & ~_explained(ds, findings, ids))
    rows = rows[np.argsort(-score[rows], kind="stable")]
    label = columns.class_label(ds.features)
    features = Features({"row": Value("int64"), "label": label, "suggested": label, "score": Value("float64")})
    values = {"row": rows, "label": ids[rows], "suggested": suggested[rows], "score": score[rows].astype(np.float64)}
    return Dataset.from_dict(values, features=features)


def _explained(ds: Dataset, findings: Dataset, ids: np.ndarray) -> np.ndarray:
    """Return which rows lack a confirmed confounder of their class or have one of another class."""
    wanted = findings.select_columns(["unit", "source", "concept", "confounder"]).to_list()
    explained = np.zeros(len(ids), dtype=bool)
    for source in {row["source"] for row in wanted if row["confounder"]}:
        column = columns.CONCEPTS_PREFIX + source
        index = {word: j for j, word in enumerate(columns.vocabulary(ds.features, column))}
        table = columns.presence(ds, column).tocsc()
        for row in wanted:
            if row["confounder"] and row["source"] == source:
                has = table[:, [index[row["concept"]]]].toarray()[:, 0]
                explained |= np.where(ids == row["unit"], ~has, has)
    return explained
