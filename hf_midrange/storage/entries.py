"""A wide column read unit by unit, some units at a time: it stands for an array `(n, U)` that memory may not hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.storage.memory import working_set


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


def by_unit(ds: Dataset, column: str, units: np.ndarray, most: int = 64) -> Iterator[tuple[int, np.ndarray]]:
    """Yield some units of a column with their values over all rows, `(n,)`, holding at most `most` of them."""
    width = 4 * max(len(ds), 1)
    step = min(most, max(1, working_set() // 2 // width))
    for start in range(0, len(units), step):
        some = units[start : start + step].tolist()
        table = columns.some_units(ds, column, some)
        yield from ((unit, table[:, j]) for j, unit in enumerate(some))
        del table
