"""Reading the units' values and the labels that bands are fitted on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset

from hf_midrange import columns


class UnitValues(NamedTuple):
    """What bands are fitted on."""

    values: np.ndarray
    """Of shape `(n, U)`."""
    ids: np.ndarray
    """Class ids of shape `(n,)`; empty where the rule needs none."""
    names: tuple[str, ...]
    """The units' names: the classes', or `unit_<k>`."""


def read_units(ds: Dataset | IterableDataset, column: str, supervised: bool) -> UnitValues:
    """Return values, labels and names, refusing what no band can be fitted on."""
    if isinstance(ds, IterableDataset):
        ds = _gather(ds, [column, columns.LABEL] if supervised else [column])
    columns.require(ds, column)
    if not len(ds):
        raise ValueError("the dataset has no rows to fit bands on")
    label = ds.features.get(columns.LABEL)
    if supervised:
        label = columns.class_label(ds.features)
    values = columns.finite_matrix(ds, column)
    names = _names(values.shape[1], label)
    if not supervised:
        return UnitValues(values, np.empty(0, dtype=np.int64), names)
    if len(label.names) != values.shape[1]:
        raise ValueError(
            f"column {column!r} has {values.shape[1]} units but `label` has {len(label.names)} classes; "
            "rule 'class-relative' needs one unit per class: use 'quantile', 'range', 'std' or 'edges' for other units"
        )
    ids = columns.labels(ds)
    columns.require_every_class(ids, label.names)
    return UnitValues(values, ids, names)


def _names(units: int, label: object) -> tuple[str, ...]:
    if isinstance(label, ClassLabel) and label.num_classes == units:
        return tuple(label.names)
    return tuple(f"unit_{k}" for k in range(units))


def _gather(ds: IterableDataset, names: list[str]) -> Dataset:
    """Read the needed columns of a stream; only these are held in memory."""
    import pyarrow as pa
    from datasets.table import InMemoryTable

    if ds.features is None:
        raise ValueError("this stream does not know its features; `ds = ds.cast(features)` declares them")
    missing = [name for name in names if name not in ds.features]
    if missing:
        raise KeyError(f"the stream has no column {missing}; it has {list(ds.features)}")
    narrow = ds.select_columns(names)
    features = type(ds.features)({name: ds.features[name] for name in names})
    tables = list(narrow.with_format("arrow").iter(batch_size=1000))
    if not tables:
        raise ValueError("the stream has no rows to fit bands on")
    return Dataset(InMemoryTable(pa.concat_tables(tables).select(names).cast(features.arrow_schema)))
