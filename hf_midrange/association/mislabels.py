"""Rows whose label may be wrong: members far down their class's range that stand high in another's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from datasets import Dataset, Features, Value

from hf_midrange import columns
from hf_midrange.association.findings import provenance
from hf_midrange.io.blocks import Vectors, blocks


DEEP, MIDDLE = 0.3, 0.5
"""Class-relative positions: near strangers of the own class, and past the middle of another class."""

FEWEST = 5
"""Rows with and without a confounder from which their medians are compared."""


class Suspects(NamedTuple):
    """How each row stands in its own class and in the nearest other one, of shape `(n,)` each."""

    suspected: np.ndarray
    """Boolean."""
    suggested: np.ndarray
    """The other class it stands highest in."""
    score: np.ndarray
    """The position in the suggested class minus that in its own."""


def suspects_of(position: np.ndarray | Vectors, ids: np.ndarray) -> Suspects:
    """Return which rows look mislabelled by where they stand alone.

    A row is suspected if it stands near strangers of its own label's unit (position < 0.3) and above the middle
    between typical stranger and member of another's (position > 0.5). The thresholds are ours.

    Args:
        position: class-relative positions, of shape `(n, C)`; NaN where a unit does not know its class.
        ids: class ids, of shape `(n,)`.
    """
    own, other = np.empty((2, len(ids)))
    suggested = np.empty(len(ids), dtype=np.int64)
    for first, block in blocks(position):
        some = np.arange(len(block))
        rows = first + some
        values = np.where(np.isnan(block), -np.inf, block).astype(np.float64)
        own[rows] = block[some, ids[rows]]
        values[some, ids[rows]] = -np.inf
        suggested[rows] = values.argmax(axis=1)
        other[rows] = values.max(axis=1)
    return Suspects((own < DEEP) & (other > MIDDLE), suggested, other - own)


def suspects_in(ds: Dataset, ids: np.ndarray) -> Suspects | None:
    """Return `suspects_of` the positions in `ds`; None without a position in every class."""
    number = columns.class_label(ds.features).num_classes
    if columns.POSITION not in ds.column_names:
        return None
    one = columns.matrix(ds.select(range(1)), columns.POSITION)
    if one.shape[1] != number:
        return None
    plain = ds.select_columns([columns.POSITION]).with_format(None)
    return suspects_of(Vectors(plain, columns.POSITION, (len(ds), number), one.dtype), ids)


def suspected_mislabels(ds: Dataset, findings: Dataset | None = None) -> Dataset:
    """Return the rows that look mislabelled: those that nothing else explains first, most suspect first among equals.

    Rows are suspected by where they stand in the range of each class (see `suspects_of`). A row that breaks a tie can
    stand there too. So of those suspected it is told which a confounder explains (`explained`): those that would not
    be suspected if members that lack every confirmed confounder of their class were moved up, and strangers that have
    one moved down, by the distance between the medians of those with and without.

    Args:
        ds: one split with `label`, `position` (one unit per class) and the concept columns of the findings.
        findings: what `associate` returned for it; None: nothing is explained.

    Returns:
        A dataset with `row`, `label`, `suggested` (the class it stands highest in), `score` (the position in the
        suggested class minus that in its own) and `explained`, of shape `(s,)`.

    Raises:
        ValueError: if positions are not one per class.
    """
    ids, position = columns.labels(ds), columns.matrix(ds, columns.POSITION)
    label = columns.class_label(ds.features)
    if position.shape[1] != label.num_classes:
        raise ValueError(
            f"`position` has {position.shape[1]} units for {label.num_classes} classes; fit bands on the logits"
        )
    found = suspects_of(position, ids)
    explained = np.zeros(len(ids), dtype=bool)
    if findings is not None:
        explained = ~suspects_of(_unexplained(ds, findings, ids, position), ids).suspected
    rows = np.flatnonzero(found.suspected)
    rows = rows[np.lexsort((-found.score[rows], explained[rows]))]
    made = {
        "row": (rows, Value("int64")),
        "label": (ids[rows], label),
        "suggested": (found.suggested[rows], label),
        "score": (found.score[rows], Value("float64")),
        "explained": (explained[rows], Value("bool")),
    }
    features = Features({name: feature for name, (_, feature) in made.items()})
    return Dataset.from_dict({name: values for name, (values, _) in made.items()}, features=features)


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
