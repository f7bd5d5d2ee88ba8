"""The rows that a head is fitted to: their labels and weights, checked, and a draw of them where they are many."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.io.blocks import Matrix, finite_vectors, some_rows


LEFT_OUT = "left out"
"""The pseudo-group of rows that a strategy leaves out; they weigh nothing."""

LEFT_OUT_BY_HAND = ("drop", "mislabelled")
"""What a reader marks rows as that are to weigh nothing."""


def weighted_rows(curated: Dataset) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Return embeddings `(n, d)`, labels and weights `(n,)` of a curated split.

    Raises:
        KeyError: if a column is missing.
        ValueError: for NaN, negative weights, a weight of zero in a row that is not left out, a class without weight.
    """
    columns.require(curated, columns.EMBEDDING, columns.LABEL, columns.WEIGHT)
    labels, embedding = columns.labels(curated), finite_vectors(curated, columns.EMBEDDING)
    names = columns.class_label(curated.features).names
    weights = _weights(curated)
    empty = [name for k, name in enumerate(names) if weights[labels == k].sum() == 0]
    if empty:
        raise ValueError(f"no row of {empty} has a positive weight; a head needs rows of every class")
    return embedding, labels, weights


def _weights(curated: Dataset) -> np.ndarray:
    weights = columns.numbers(curated, columns.WEIGHT)
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if bad.size:
        raise ValueError(
            f"column 'weight' must be finite and not negative, but row {bad[0]} has {weights[bad[0]]}; "
            "`curate` writes weights that fit"
        )
    zero = np.flatnonzero((weights == 0) & ~_left_out(curated))
    if zero.size:
        raise ValueError(
            f"column 'weight' is 0 in {zero.size} rows that `curate` did not leave out (first: row {zero[0]}); give "
            "every row a positive weight, or drop it: `curated.filter(lambda row: row['weight'] > 0)`"
        )
    return weights


def _left_out(curated: Dataset) -> np.ndarray:
    """Return rows that a strategy left out, or that a reader marked as not belonging, `(n,)` bool."""
    left_out = np.zeros(len(curated), dtype=bool)
    for column, words in ((columns.PSEUDO_GROUP, (LEFT_OUT,)), (columns.MARK, LEFT_OUT_BY_HAND)):
        if column in curated.column_names:
            names = columns.class_label(curated.features, column).names
            left_out |= np.isin(columns.labels(curated, column), [k for k, name in enumerate(names) if name in words])
    return left_out


def drawn_rows(curated: Dataset, weights: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about `most` rows with weight, and their weights; all such rows where they are so few.

    They are drawn from every pseudo-group (else class) in proportion to its weight, which it keeps.
    """
    used = np.flatnonzero(weights > 0)
    if len(used) <= most:
        return used, weights[used]
    named = columns.PSEUDO_GROUP in curated.column_names
    strata = columns.labels(curated, columns.PSEUDO_GROUP if named else columns.LABEL)
    strata, weights = np.unique(strata[used], return_inverse=True)[1], weights[used]
    whole = np.bincount(strata, weights)
    rows = some_rows(strata, most, seed, whole)
    drawn = np.bincount(strata[rows], weights[rows])
    return used[rows], weights[rows] * (whole / drawn)[strata[rows]]
