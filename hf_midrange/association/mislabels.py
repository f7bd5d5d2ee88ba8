"""Rows whose label may be wrong: members far down their class's range, more so than confounders explain."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, Features, Value

from hf_midrange import columns
from hf_midrange.association.findings import provenance


DEEP, MIDDLE = 0.3, 0.5
"""Class-relative positions: near strangers of the own class, and past the middle of another class."""

FEWEST = 5
"""Rows with and without a confounder from which their medians are compared."""


def suspected_mislabels(ds: Dataset, findings: Dataset) -> Dataset:
    """Return the rows that look mislabelled, most suspect first.

    First what confounders explain is taken out: members that lack every confirmed confounder of their class are moved
    up, and strangers that have one moved down, by the distance between the medians of those with and without. A row is
    suspected if it then stands near strangers of its own label's unit (position < 0.3) and above the middle between
    typical stranger and member of another's (position > 0.5). The thresholds are ours.

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
    position = _unexplained(ds, findings, ids, position)
    own = position[np.arange(len(ids)), ids]
    others = np.where(np.isnan(position), -np.inf, position)
    others[np.arange(len(ids)), ids] = -np.inf
    suggested = others.argmax(axis=1)
    score = others.max(axis=1) - own
    rows = np.flatnonzero((own < DEEP) & (others.max(axis=1) > MIDDLE))
    rows = rows[np.argsort(-score[rows], kind="stable")]
    label = columns.class_label(ds.features)
    features = Features({"row": Value("int64"), "label": label, "suggested": label, "score": Value("float64")})
    values = {"row": rows, "label": ids[rows], "suggested": suggested[rows], "score": score[rows].astype(np.float64)}
    return Dataset.from_dict(values, features=features)


def _unexplained(ds: Dataset, findings: Dataset, ids: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return positions as they would be if members had, and strangers lacked, their unit's confounders."""
    moved = position.astype(np.float64)
    for unit, has in _with_confounder(ds, findings).items():
        member = ids == unit
        moved[member & ~has, unit] += _distance(position[member, unit], has[member])
        moved[~member & has, unit] -= _distance(position[~member, unit], has[~member])
    return moved


def _distance(position: np.ndarray, has: np.ndarray) -> float:
    """Return how far the median row with a confounder stands above the median row without; 0 where few tell."""
    if min(has.sum(), (~has).sum()) < FEWEST:
        return 0.0
    return max(0.0, float(np.median(position[has]) - np.median(position[~has])))


def _with_confounder(ds: Dataset, findings: Dataset) -> dict[int, np.ndarray]:
    """Return, per unit that has confirmed confounders, which rows have one of them."""
    wanted = findings.select_columns(["unit", "source", "concept", "confounder"]).to_list()
    found: dict[int, np.ndarray] = {}
    for source in {row["source"] for row in wanted if row["confounder"]}:
        column = columns.CONCEPTS_PREFIX + source
        index = {word: j for j, word in enumerate(columns.vocabulary(ds.features, column))}
        table = columns.presence(ds, column).tocsc()
        for row in wanted:
            if row["confounder"] and row["source"] == source:
                has = table[:, [index[row["concept"]]]].toarray()[:, 0]
                found[row["unit"]] = found.get(row["unit"], False) | has
    if provenance(findings).get("mirrored_findings_dropped"):
        found = {1 - unit: ~has for unit, has in found.items() if 1 - unit not in found} | found
    return found
