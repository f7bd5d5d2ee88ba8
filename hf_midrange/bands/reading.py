"""Reading the units' values and the labels that bands are fitted on, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, IterableDataset, List
from datasets.table import InMemoryTable

from hf_midrange import columns
from hf_midrange.io.blocks import working_set


BLOCK_VALUES = 100_000_000
"""Most values read at once, 400 MB of float32, and less in a smaller working set: a wider column is read again for
each block of its units."""

BATCH_VALUES = 8_000_000


class Batch(NamedTuple):
    """Consecutive rows."""

    values: np.ndarray
    """Of shape `(n, U)`."""
    ids: np.ndarray | None
    """Class ids of shape `(n,)`; None where no class is asked about."""


def unit_names(features: Features, column: str, width: int, supervised: bool) -> tuple[str, ...]:
    """Return the units' names: the classes' where there is a unit for each, else `unit_<k>`.

    Raises:
        KeyError, TypeError: if classes are asked about and the label is missing or no `ClassLabel`.
        ValueError: if the units are not one per class and classes are asked about.
    """
    label = columns.class_label(features) if supervised else features.get(columns.LABEL)
    if isinstance(label, ClassLabel) and label.num_classes == width:
        return tuple(label.names)
    if supervised:
        raise ValueError(
            f"column {column!r} has {width} units but `label` has {label.num_classes} classes; rule "
            "'class-relative' needs one unit per class: use 'quantile', 'range', 'std' or 'edges' for other units"
        )
    return tuple(f"unit_{k}" for k in range(width))


def width_of(ds: Dataset, column: str) -> int:
    """Return the number of units in `column`, refusing a missing column, one that is no vector, and no rows."""
    columns.require(ds, column)
    _require_vector(ds.features, column)
    if not len(ds):
        raise ValueError("the dataset has no rows to fit bands on")
    return int(columns.matrix(ds.select(range(1)), column).shape[1])


def unit_blocks(ds: Dataset, column: str, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of a unit and the finite values `(n, b)` of it and the next; one block if all fit in memory."""
    step = max(1, min(BLOCK_VALUES, working_set() // 4) // len(ds))
    if step >= width:
        yield 0, columns.finite_matrix(ds, column)
        return
    for first in range(0, width, step):
        yield first, _block(ds, column, first, min(first + step, width))


def table_batches(ds: Dataset, column: str, supervised: bool) -> Iterator[Batch]:
    """Yield the rows of a dataset batch by batch, checked; only a batch is in memory."""
    size = batch_rows(width_of(ds, column))
    narrow = ds.select_columns([column, columns.LABEL] if supervised else [column])
    for first in range(0, len(ds), size):
        part = narrow.select(range(first, min(first + size, len(ds))))
        yield Batch(
            require_finite(columns.matrix(part, column), first, column), columns.labels(part) if supervised else None
        )


def stream_batches(ds: IterableDataset, column: str, supervised: bool) -> Iterator[Batch]:
    """Yield the rows of a stream batch by batch, checked; only a batch is in memory."""
    names = [column, columns.LABEL] if supervised else [column]
    features = Features({name: stream_features(ds, names)[name] for name in names})
    size, first = batch_rows(features[column].length), 0
    for table in ds.select_columns(names).with_format("arrow").iter(batch_size=size):
        part = Dataset(InMemoryTable(pa.table(table).select(names).cast(features.arrow_schema)))
        values = require_finite(columns.matrix(part, column), first, column)
        first += len(part)
        yield Batch(values, columns.labels(part) if supervised else None)


def stream_features(ds: IterableDataset, names: Sequence[str]) -> Features:
    """Return the features of a stream, refusing one that does not know them or lacks a column of `names`."""
    if ds.features is None:
        raise ValueError("this stream does not know its features; `ds = ds.cast(features)` declares them")
    missing = [name for name in names if name not in ds.features]
    if missing:
        raise KeyError(f"the stream has no column {missing}; it has {list(ds.features)}")
    _require_vector(ds.features, names[0])
    return ds.features


def require_finite(values: np.ndarray, first: int, column: str) -> np.ndarray:
    """Return `values`, the rows from number `first` on, refusing NaN and infinite ones by their row."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise ValueError(
            f"column {column!r} has NaN or infinite values (first rows: {(first + bad[:5]).tolist()}); drop these "
            "rows, or extract again with `dtype='float32'` if a low precision overflowed"
        )
    return values


def batch_rows(width: int) -> int:
    """Return how many rows of `width` values make a batch; few where the width is not known (-1)."""
    return min(max(BATCH_VALUES // width, 256), 65_536)


def _require_vector(features: Features, column: str) -> None:
    feature = features[column]
    if not isinstance(feature, List):
        raise TypeError(
            f"column {column!r} must hold a vector in every row, one entry per unit, such as List(Value('float32'), "
            f"length=8), but is {feature}"
        )


def _block(ds: Dataset, column: str, first: int, stop: int) -> np.ndarray:
    """Return some units of all rows, of shape `(n, stop - first)`, each unit contiguous in memory."""
    by_unit, row = np.empty((0, 0)), 0
    for batch in table_batches(ds, column, supervised=False):
        if not row:
            by_unit = np.empty((stop - first, len(ds)), dtype=batch.values.dtype)
        by_unit[:, row : row + len(batch.values)] = batch.values[:, first:stop].T
        row += len(batch.values)
    return by_unit.T
