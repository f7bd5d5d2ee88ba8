"""Writing the columns `quantile`, `position` and `band` with one `map` over any kind of dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset

from hf_midrange import columns
from hf_midrange.bands.fitting import batch_rows
from hf_midrange.bands.units import UnitBands


@dataclass(frozen=True)
class BandColumns:
    """The function given to `map`: arrow table in, the same table with three more columns out."""

    units: tuple[UnitBands, ...]
    column: str
    alone: bool = False
    """Whether only the band columns are returned."""
    version: int = 1
    """Part of the fingerprint: raise it when the arithmetic changes, or `map` returns cached old values."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return `table` with the band columns added or replaced, or the band columns alone."""
        values = self._values(table)
        by_unit = np.ascontiguousarray(values.T)
        added = {
            columns.QUANTILE: np.stack([u.quantile(v) for u, v in zip(self.units, by_unit, strict=True)], axis=1),
            columns.POSITION: np.stack([u.position(v) for u, v in zip(self.units, by_unit, strict=True)], axis=1),
            columns.BAND: np.stack([u.band(v) for u, v in zip(self.units, by_unit, strict=True)], axis=1),
        }
        if self.alone:
            return pa.table({name: columns.vector_arrow(array) for name, array in added.items()})
        kept = table.drop_columns([name for name in added if name in table.column_names])
        for name, array in added.items():
            kept = kept.append_column(name, columns.vector_arrow(array))
        return kept

    def _values(self, table: pa.Table) -> np.ndarray:
        values = table[self.column].combine_chunks()
        values = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
        flat = values.flatten().to_numpy(zero_copy_only=False)
        if values.null_count or flat.size != len(values) * len(self.units):
            raise ValueError(f"column {self.column!r} must hold {len(self.units)} values in every row, as when fitted")
        if not np.isfinite(flat).all():
            rows = np.flatnonzero(~np.isfinite(flat.reshape(len(values), -1)).all(axis=1))
            raise ValueError(f"column {self.column!r} is NaN or infinite in row {rows[0]} of a batch; drop such rows")
        return flat.reshape(len(values), len(self.units))


def add_columns(ds: Dataset | IterableDataset, function: BandColumns, facts: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return `ds` with the band columns; its own format is kept. Of a `Dataset` the other columns are not copied.

    Args:
        ds: has the column of the units.
        function: makes the columns.
        facts: what the column `band` says of itself, such as the names of the bands.
    """
    if isinstance(ds, IterableDataset):
        features = _features(ds, _new_features(len(function.units), facts))
        return ds.with_format("arrow").map(function, batched=True, features=features).with_format(None)
    if not len(ds):
        raise ValueError("the dataset has no rows")
    features, narrow = (
        _new_features(len(function.units), facts),
        ds.select_columns([function.column]).with_format("arrow"),
    )
    made = narrow.map(
        replace(function, alone=True),
        batched=True,
        batch_size=batch_rows(len(function.units)),
        features=features,
        remove_columns=[function.column],
        desc="bands",
    )
    return columns.beside(ds, made, features).with_format(ds.format["type"], **ds.format["format_kwargs"])


def _features(ds: IterableDataset, new: Features) -> Features:
    if ds.features is None:
        raise ValueError("this stream does not know its features; `ds = ds.cast(features)` declares them")
    return Features({**{name: feature for name, feature in ds.features.items() if name not in new}, **new})


def _new_features(units: int, facts: Mapping[str, Any]) -> Features:
    return Features(
        {
            columns.QUANTILE: columns.vector(units),
            columns.POSITION: columns.vector(units),
            columns.BAND: columns.with_facts(columns.vector(units, "int8"), **facts),
        }
    )
