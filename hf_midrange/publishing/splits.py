"""One set of features for all splits: a configuration on the Hub has a single one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_midrange import columns
from hf_midrange.curation.report import curation_report
from hf_midrange.publishing.patience import PublishError


_OF_THEIR_SPLIT = (columns.PSEUDO_GROUP, columns.CONFOUNDERS)
"""Columns of `curate` whose names depend on the rows, so that splits differ in them."""


def common_features(splits: Mapping[str, Dataset]) -> Features:
    """Return the features that hold all splits: names of pseudo-groups joined, and every split's report kept.

    Raises:
        PublishError: if the splits have different columns, or a column has different features.
    """
    first_name, first = next(iter(splits.items()))
    features = Features(first.features)
    for name, split in splits.items():
        if set(split.column_names) != set(first.column_names):
            odd = sorted(set(split.column_names) ^ set(first.column_names))
            raise PublishError(f"splits {first_name!r} and {name!r} differ in the columns {odd}; give both the same")
        for column, feature in split.features.items():
            if column in _OF_THEIR_SPLIT:
                features[column] = _joined(features[column], feature)
            elif column != columns.REASON and feature != features[column]:
                raise PublishError(
                    f"column {column!r} is {features[column]} in split {first_name!r} but {feature} in {name!r}; "
                    "`ds.cast_column` makes them one"
                )
    if len(splits) > 1:
        reports = {name: curation_report(split) for name, split in splits.items()}
        features[columns.REASON] = Value("string", id=json.dumps({"splits": reports}, separators=(",", ":")))
    return features


def recoded(table: pa.Table, old: Features, new: Features) -> pa.Table:
    """Return `table` with class ids of `old` as those of `new`, columns in the order of `new`."""
    for name in _OF_THEIR_SPLIT:
        if name in old and _names(old[name]) != _names(new[name]):
            table = table.set_column(table.column_names.index(name), name, _ids(table[name], old[name], new[name]))
    return table.select(list(new)).replace_schema_metadata(new.arrow_schema.metadata)


def _joined(one: Any, other: Any) -> Any:  # noqa: ANN401 - a feature
    label = ClassLabel(names=list(dict.fromkeys([*_names(one), *_names(other)])))
    return List(label) if isinstance(one, List) else label


def _names(feature: Any) -> list[str]:  # noqa: ANN401 - a feature
    return list((feature.feature if isinstance(feature, List) else feature).names)


def _ids(column: pa.ChunkedArray, old: Any, new: Any) -> pa.Array:  # noqa: ANN401 - features
    where = {name: k for k, name in enumerate(_names(new))}
    places = np.array([where[name] for name in _names(old)], dtype=np.int64)
    array = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if not isinstance(old, List):
        return pa.array(places[array.to_numpy(zero_copy_only=False)])
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(places[flat] if len(flat) else flat))
