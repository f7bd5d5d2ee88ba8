"""Wide columns read a block of rows at a time: what stands for a matrix `(n, d)` that memory may not hold."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset
from scipy import sparse

from hf_midrange import columns


WORKING_SET = "HF_MIDRANGE_WORKING_SET"
"""Environment variable: megabytes of a data set's columns that a step holds at once; 400 where it is not set."""

_DEFAULT_MEGABYTES = 400

HELD = 64_000_000
"""Bytes up to which a column is simply read into memory."""

BLOCK_BYTES = 16_000_000

MOST_ROWS = 100_000
"""Rows that anything is fitted to at most, drawn at random from every class; all other rows are scored by that fit."""


def working_set() -> int:
    """Return how many bytes of a data set's columns a step may hold at once.

    Raises:
        ValueError: if the environment variable is not a positive number.
    """
    text = os.environ.get(WORKING_SET, str(_DEFAULT_MEGABYTES))
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = 0.0
    if not 1 <= megabytes < math.inf:
        raise ValueError(f"{WORKING_SET} must be a number of megabytes, at least 1, but is {text!r}")
    return int(megabytes * 1e6)


@dataclass(frozen=True)
class Vectors:
    """A column of vectors; indexing by rows reads these rows alone, as an array `(rows, d)`."""

    ds: Dataset
    """Of this one column."""
    column: str
    shape: tuple[int, int]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return some rows: a slice, row numbers, or a boolean array. Consecutive rows may be a read-only view."""
        numbers: range | np.ndarray
        if isinstance(rows, slice):
            numbers = range(*rows.indices(len(self)))
        else:
            numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        if not len(numbers):
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        if isinstance(numbers, range):
            return self._run(numbers.start, numbers.stop) if numbers.step == 1 else self[np.array(numbers)]
        first, last = int(numbers.min()), int(numbers.max()) + 1
        if last - first <= 4 * len(numbers):  # reading on is faster than jumping
            run = self._run(first, last)
            return run if np.array_equal(numbers, np.arange(first, last)) else run[numbers - first]
        return columns.matrix(self.ds.select(numbers), self.column)

    def _run(self, first: int, last: int) -> np.ndarray:
        """Return consecutive rows; `select` takes milliseconds for what a slice of the column does at once."""
        stored = self.ds.data.column(self.column)
        if self.ds._indices is not None or stored.null_count or not pa.types.is_fixed_size_list(stored.type):
            return columns.matrix(self.ds.select(range(first, last)), self.column)
        parts = [part.flatten().to_numpy(zero_copy_only=False) for part in stored.slice(first, last - first).chunks]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(last - first, self.shape[1])


@dataclass(frozen=True)
class Presence:
    """Some concepts of every row; indexing by rows gives 0 and 1 as an array `(rows, m)` of float64."""

    table: sparse.csr_matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and concepts."""
        return self.table.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of what indexing gives."""
        return np.dtype(np.float64)

    def __len__(self) -> int:
        return self.table.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.table[rows].toarray().astype(np.float64)


Matrix = np.ndarray | Vectors | Presence


def finite_vectors(ds: Dataset, column: str) -> np.ndarray | Vectors:
    """Return a column of vectors, refusing NaN and infinite values: an array if it is small, else read when asked.

    Raises:
        KeyError, ValueError: as `columns.finite_matrix` does.
    """
    columns.require(ds, column)
    if not len(ds):
        return columns.finite_matrix(ds, column)
    one = columns.matrix(ds.select(range(1)), column)
    if len(ds) * one.nbytes <= HELD:
        return columns.finite_matrix(ds, column)
    plain = ds.select_columns([column]).with_format(None)
    found = Vectors(plain, column, (len(ds), one.shape[1]), one.dtype)
    bad: list[int] = []
    count = 0
    for first, block in blocks(found):
        if block.shape[1] != one.shape[1]:
            raise ValueError(
                f"column {column!r} has {one.shape[1]} values in row 0 but {block.shape[1]} in row {first}"
            )
        rows = np.flatnonzero(~np.isfinite(block).all(axis=1))
        count += len(rows)
        bad += (first + rows[: 5 - len(bad)]).tolist()
    if count:
        columns.refuse_not_finite(column, count, bad)
    return found


def concept_table(table: sparse.csr_matrix) -> np.ndarray | Presence:
    """Return a boolean table of concepts as numbers: an array if it is small."""
    dense = table.shape[0] * table.shape[1] * 8
    return table.toarray().astype(np.float64) if dense <= HELD else Presence(table)


def blocks(values: Matrix) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of a row, and the rows from it on, in order; an array in one piece."""
    if isinstance(values, np.ndarray):
        yield 0, values
        return
    size = max(1, BLOCK_BYTES // max(1, values.shape[1] * values.dtype.itemsize))
    for first in range(0, len(values), size):
        yield first, values[first : first + size]


def varies(values: Matrix) -> bool:
    """Return whether any column of `values` holds two values."""
    if not len(values):
        return False
    start = values[:1]
    return any(bool((block != start).any()) for _, block in blocks(values))


def some_rows(strata: np.ndarray, most: int, seed: int, shares: np.ndarray | None = None) -> np.ndarray:
    """Return at most about `most` rows in order, drawn from every stratum; all rows where they are so few.

    Args:
        strata: the stratum of each row, `(n,)`, in 0..s-1.
        most: how many rows to draw.
        seed: of the draw.
        shares: of the draw, one a stratum; None: as many as its rows are. A stratum never gives more than it has, and
            at least one row.
    """
    if len(strata) <= most:
        return np.arange(len(strata))
    counts = np.bincount(strata)
    wanted = counts / counts.sum() if shares is None else shares
    sizes = _sizes(counts, wanted, most)
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return np.sort(order[rank < np.repeat(sizes, counts)])


def _sizes(counts: np.ndarray, shares: np.ndarray, most: int) -> np.ndarray:
    """Return how many rows each stratum gives: what full strata cannot give is spread over the others."""
    sizes = np.zeros(len(counts))
    for _ in range(len(counts)):
        open_ = (sizes < counts) & (shares > 0)
        left = most - sizes.sum()
        if left < 1 or not open_.any():
            break
        sizes[open_] = np.minimum(counts[open_], sizes[open_] + left * shares[open_] / shares[open_].sum())
    return np.where((counts > 0) & (shares > 0), np.maximum(np.floor(sizes), 1), 0).astype(np.int64)


def discovery_half(ids: np.ndarray, source_ids: np.ndarray | None, seed: int) -> np.ndarray:
    """Return which rows are for discovery, boolean of shape `(n,)`; the others are for confirmation.

    Rows are split at random within each label; where rows share a source, whole sources are, by the label of their
    first row, so that no source is on both sides.
    """
    rng = np.random.default_rng(seed)
    if source_ids is None:
        return _every_other(ids, rng)
    _, first, source = np.unique(source_ids, return_index=True, return_inverse=True)
    return _every_other(ids[first], rng)[source]


def _every_other(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(len(ids))
    order = order[np.argsort(ids[order], kind="stable")]
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[order[::2]] = True
    return chosen


class Entries:
    """A vector column; `entries[:, unit]` is one unit's value in every row.

    Units are read in blocks of half the working set, so walking through them in order reads the column a few times.
    """

    def __init__(self, ds: Dataset, column: str) -> None:
        columns.require(ds, column)
        first = columns.matrix(ds.select(range(1)), column)
        self.ds, self.column = ds.select_columns([column]), column
        self.shape = (len(ds), first.shape[1])
        self.size = max(1, working_set() // 2 // (len(ds) * first.itemsize))
        self.block, self.start = np.empty((0, 0), dtype=first.dtype), 0

    def __getitem__(self, place: tuple[slice, int]) -> np.ndarray:
        """Return one unit's values, of shape `(n,)`."""
        _, unit = place
        if not self.start <= unit < self.start + len(self.block):
            self.start = unit // self.size * self.size
            stop = min(self.start + self.size, self.shape[1])
            self.block = np.empty((0, 0), dtype=self.block.dtype)  # the old block need not be held beside the new
            self.block = columns.some_units(self.ds, self.column, range(self.start, stop)).T
        return self.block[unit - self.start]

    def highest(self) -> np.ndarray:
        """Return each unit's largest value, of shape `(U,)`."""
        rows = max(1, 16_000_000 // self.shape[1])
        parts = (self.ds.select(range(a, min(a + rows, len(self.ds)))) for a in range(0, len(self.ds), rows))
        return np.max([columns.matrix(part, self.column).max(axis=0) for part in parts], axis=0)
