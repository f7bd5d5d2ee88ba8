"""From the values of every unit, read in bounded memory, to its fitted bands, with warnings where they may mislead."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, IterableDataset, List
from datasets.table import InMemoryTable

from hf_midrange import columns
from hf_midrange.bands.units import CLASS_RELATIVE, UnitBands, UnitValues, cuts_of
from hf_midrange.io.blocks import MOST_ROWS, working_set


MEMORISED_ACCURACY, MEMORISED_MIDDLE, ENOUGH_ROWS = 0.995, 0.01, 100

_KNOWN = "the model was trained on this split"
_SUSPECTED = "the logits separate the classes almost perfectly, as on rows that the model was trained on"


class Separation(NamedTuple):
    """How well the units of a classifier separate its classes."""

    rows: int
    right: int
    """Rows whose own class has the highest unit."""
    contrary: int
    """Members closer to the typical stranger than to the typical member, over all classes."""

    def memorised(self) -> bool:
        """Return whether the model is right on 99.5 % of at least 100 rows, and fewer than 1 % are contrary."""
        enough = self.rows >= ENOUGH_ROWS
        return enough and self.right / self.rows >= MEMORISED_ACCURACY and self.contrary / self.rows < MEMORISED_MIDDLE


def fit_units(
    ds: Dataset, column: str, rule: str, edges: Sequence[float]
) -> tuple[tuple[UnitBands, ...], Separation | None]:
    """Return each unit's bands from all its values, and, with classes, how well the units separate them."""
    supervised = rule == CLASS_RELATIVE
    width = width_of(ds, column)
    names = unit_names(ds.features, column, width, supervised)
    ids = columns.labels(ds) if supervised else None
    if ids is not None:
        _require_strangers(np.bincount(ids, minlength=width), names)
    best, winner = np.full(len(ds), -np.inf), np.zeros(len(ds), dtype=np.int64)
    units: list[UnitBands] = []
    contrary = 0
    for first, block in unit_blocks(ds, column, width):
        for k, unit in enumerate(block.T, first):
            values = UnitValues.of(np.ascontiguousarray(unit), None if ids is None else ids == k)
            typical = values.typical() if supervised else None
            units.append(UnitBands(names[k], cuts_of(rule, values, edges), typical, values.knots()))
            contrary += values.contrary() if supervised else 0
        if supervised:
            highest = block.max(axis=1)
            winner[highest > best] = first + block[highest > best].argmax(axis=1)
            best = np.maximum(best, highest)
    if ids is None:
        return tuple(units), None
    return tuple(units), Separation(len(ids), int(np.sum(winner == ids)), contrary)


def warn_if_memorised(found: Separation, training_split: bool | None) -> None:
    """Warn if these rows are those the model was trained on, or, where nobody says, look like them."""
    if training_split or (training_split is None and found.memorised()):
        known = _KNOWN if training_split else _SUSPECTED
        warnings.warn(
            f"{known}. There members without the tied concept are memorised and score like typical members, so the "
            "middle of the range is empty or misleading: curate on held-out data",
            UserWarning,
            stacklevel=3,
        )


def warn_of_units_without_bands(units: Sequence[UnitBands], supervised: bool) -> None:
    """Warn of the units that cannot be divided, by name.

    Raises:
        ValueError: if that is every unit.
    """
    without = [unit.name for unit in units if unit.cuts is None]
    reason = "its members' median is not above its strangers'" if supervised else "it is constant"
    if len(without) == len(units):
        raise ValueError(f"no unit can be cut into bands: for each, {reason}; is the label column the model's own?")
    if without:
        warnings.warn(f"no bands for {without}: of each, {reason}; its band is -1 on every row", stacklevel=3)


def _require_strangers(counts: np.ndarray, names: Sequence[str]) -> None:
    """Raise `ValueError` naming a class without rows, or one that has them all."""
    columns.require_every_class(np.repeat(np.arange(len(counts)), np.minimum(counts, 1)), names)
    if len(counts) == 1:
        raise ValueError(
            f"all {counts[0]} rows are of class {names[0]!r}; class-relative bands need rows of another class: use "
            "'quantile', 'range', 'std' or 'edges'"
        )


BLOCK_VALUES = 100_000_000
"""Most values read at once, 400 MB of float32, and less in a smaller working set: a wider column is read again for
each block of its units."""

BATCH_VALUES = 8_000_000


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


def drawn_rows(ds: IterableDataset, names: Sequence[str], seed: int) -> Dataset:
    """Return at most `MOST_ROWS` rows of a stream, drawn at random in one pass; all rows of a stream that is shorter.

    Each row gets a random number, and the rows with the smallest numbers are kept (bottom-k sampling), so that memory
    does not grow with the stream and every row is as likely to be drawn.

    Args:
        ds: a stream that knows its features.
        names: the columns to keep, the first of which holds the units and must be finite.
        seed: of the draw.

    Raises:
        KeyError, TypeError: if a column is missing, or the first holds no vectors.
        ValueError: if the stream does not know its features, has no rows, or units are NaN or infinite.
    """
    features = Features({name: stream_features(ds, names)[name] for name in names})
    rng, size = np.random.default_rng(seed), batch_rows(features[names[0]].length)
    kept, drawn, first = features.arrow_schema.empty_table(), np.empty(0), 0
    for batch in ds.select_columns(list(names)).with_format("arrow").iter(batch_size=size):
        part = pa.table(batch).select(list(names)).cast(features.arrow_schema)
        _require_finite(columns.matrix(Dataset(InMemoryTable(part)), names[0]), first, names[0])
        kept, drawn, first = pa.concat_tables([kept, part]), np.append(drawn, rng.random(len(part))), first + len(part)
        if len(drawn) > 2 * MOST_ROWS:
            kept, drawn = _smallest(kept, drawn)
    if not first:
        raise ValueError("the stream has no rows to fit bands on")
    return Dataset(InMemoryTable(_smallest(kept, drawn)[0].combine_chunks()))


def _smallest(rows: pa.Table, drawn: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Return the rows with the smallest numbers, in order, and these numbers."""
    if len(drawn) <= MOST_ROWS:
        return rows, drawn
    chosen = np.sort(np.argpartition(drawn, MOST_ROWS)[:MOST_ROWS])
    return rows.take(chosen), drawn[chosen]


def stream_features(ds: IterableDataset, names: Sequence[str]) -> Features:
    """Return the features of a stream, refusing one that does not know them or lacks a column of `names`."""
    if ds.features is None:
        raise ValueError("this stream does not know its features; `ds = ds.cast(features)` declares them")
    missing = [name for name in names if name not in ds.features]
    if missing:
        raise KeyError(f"the stream has no column {missing}; it has {list(ds.features)}")
    _require_vector(ds.features, names[0])
    return ds.features


def _require_finite(values: np.ndarray, first: int, column: str) -> None:
    """Raise `ValueError` naming rows with NaN or infinite values; the first of `values` has number `first`."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise ValueError(
            f"column {column!r} has NaN or infinite values (first rows: {(first + bad[:5]).tolist()}); drop these "
            "rows, or extract again with `dtype='float32'` if a low precision overflowed"
        )


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
    size, narrow = batch_rows(width_of(ds, column)), ds.select_columns([column])
    by_unit = np.empty((0, 0))
    for row in range(0, len(ds), size):
        values = columns.matrix(narrow.select(range(row, min(row + size, len(ds)))), column)
        _require_finite(values, row, column)
        if not row:
            by_unit = np.empty((stop - first, len(ds)), dtype=values.dtype)
        by_unit[:, row : row + len(values)] = values[:, first:stop].T
    return by_unit.T
