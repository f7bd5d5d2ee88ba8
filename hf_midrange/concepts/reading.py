"""From numbers and names to presence: thresholds that split the data, and sparse tables of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import chain

import numpy as np
from scipy import sparse


def halving_thresholds(values: np.ndarray) -> np.ndarray:
    """Return for each column the threshold whose upper side is closest to half of the rows.

    It lies midway between two neighbouring values, so that rounding noise moves no row across it. A constant column
    gets its own value: nothing is above.

    Args:
        values: of shape `(n, m)`.

    Returns:
        float32 thresholds of shape `(m,)`; a value is present if it is greater.

    Examples:
        >>> halving_thresholds(np.array([[0, 1], [0, 1], [2, 1], [4, 1]], dtype=np.float32))
        array([1., 1.], dtype=float32)
    """
    return np.array([_halving(column) for column in np.asarray(values, dtype=np.float32).T], dtype=np.float32)


def _halving(column: np.ndarray) -> np.float32:
    ordered, counts = np.unique(column, return_counts=True)
    if len(ordered) == 1:
        return ordered[0]
    above = len(column) - np.cumsum(counts)[:-1]
    return between(ordered, int(np.argmin(np.abs(above - len(column) / 2))))


def between(ordered: np.ndarray, i: int) -> np.float32:
    """Return the float32 midway between `ordered[i]` and `ordered[i + 1]`, never the upper one itself."""
    low, high = ordered[i], ordered[i + 1]
    middle = np.float32(low + (high - low) / 2)
    return middle if middle < high else np.float32(low)


def name_table(rows: Iterable[Sequence[str]], names: Sequence[str]) -> sparse.csr_matrix:
    """Return which of `names` each row has, boolean, of shape `(rows, len(names))`; other names are passed over."""
    ids = {name: j for j, name in enumerate(names)}
    return id_table(({ids[name] for name in row if name in ids} for row in rows), len(names))


def id_table(rows: Iterable[Set[int]], width: int) -> sparse.csr_matrix:
    """Return a boolean table of shape `(rows, width)` that is true at the ids of each row."""
    found = [sorted(row) for row in rows]
    indptr = np.cumsum([0, *map(len, found)])
    indices = np.fromiter(chain.from_iterable(found), np.int64, indptr[-1])
    return sparse.csr_matrix((np.ones(len(indices), dtype=bool), indices, indptr), shape=(len(found), width))
