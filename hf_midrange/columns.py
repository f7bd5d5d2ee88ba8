"""The columns a dataset gains on its way through the package: names, features, and how to read and add them.

Every step takes a dataset and gives it back with more columns. This module is the only one that knows how those
columns are called and stored, so that a user can enter at any step with columns of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    DatasetInfo,
    Features,
    IterableDataset,
    LargeList,
    List,
    Value,
    concatenate_datasets,
)
from datasets.table import InMemoryTable
from scipy import sparse


IMAGE, TEXT, TEXT_PAIR, LABEL, GROUP = "image", "text", "text_pair", "label", "group"
EMBEDDING, LOGITS, PREDICTION = "embedding", "logits", "prediction"
QUANTILE, POSITION, BAND = "quantile", "position", "band"
CONCEPTS_PREFIX, VIEW_PREFIX = "concepts_", "view_"
PSEUDO_GROUP, KEEP, WEIGHT, CONFOUNDERS, REASON = "pseudo_group", "keep", "weight", "confounders", "reason"

MARK = "mark"
"""What a reader marked a row as in the explorer."""

SOURCE_ID = "source_id"
"""Optional user column: rows sharing a value come from one source and are never split between halves or folds."""

ROWS_OF_LISTS = 65_536
"""Rows of lists of concepts that are read at once."""

Splits = TypeVar("Splits", Dataset, DatasetDict)
Made = TypeVar("Made", Dataset, IterableDataset)

LONGEST_NAME = 80
"""Characters of the name of a class, concept or group that is shown."""


def vector(length: int, dtype: str = "float32") -> List:
    """Return the feature of a fixed-length vector, such as an embedding of shape `(length,)`."""
    return List(Value(dtype), length=length)


def concept_list(vocabulary: Sequence[str]) -> List:
    """Return the feature of a sparse list of concepts: which words of `vocabulary` a row has."""
    return List(ClassLabel(names=list(vocabulary)))


def with_facts(feature: Any, **facts: Any) -> Any:  # noqa: ANN401 - any feature; facts are JSON values
    """Return a feature that also holds facts about its column, added to those it holds already.

    They go with the column wherever `datasets` takes it: `save_to_disk`, parquet, the Hub.

    Examples:
        >>> band = with_facts(vector(3, "int8"), bands=["low", "mid", "high"])
        >>> facts({"band": band}, "band")
        {'bands': ['low', 'mid', 'high']}
    """
    if isinstance(feature, List | LargeList):  # the id of a list itself is lost on the way
        return replace(feature, feature=with_facts(feature.feature, **facts))
    text = json.dumps({**_facts_of(feature), **facts}, ensure_ascii=True)
    changed = copy(feature)
    changed.id = text
    return changed


def facts(features: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Return what `with_facts` noted of a column; nothing if it is missing or holds no facts."""
    return _facts_of(features[column]) if column in features else {}


def _facts_of(feature: Any) -> dict[str, Any]:  # noqa: ANN401 - any feature
    while isinstance(feature, List | LargeList):
        feature = feature.feature
    try:
        found = json.loads(getattr(feature, "id", None) or "{}")
    except ValueError:  # an id of someone else's
        return {}
    return found if isinstance(found, dict) else {}


def require(ds: Dataset, *names: str) -> None:
    """Raise `KeyError` naming every column of `names` that `ds` lacks, what it has, and which step adds it."""
    missing = [name for name in names if name not in ds.column_names]
    if missing:
        steps = {
            **dict.fromkeys((EMBEDDING, LOGITS, PREDICTION), "extract"),
            **dict.fromkeys((QUANTILE, POSITION, BAND), "LogitBands.transform"),
            **dict.fromkeys((PSEUDO_GROUP, KEEP, WEIGHT, CONFOUNDERS, REASON), "curate"),
        }
        hints = [f"{name!r} is added by `{steps[name]}`" for name in missing if name in steps]
        others = [name for name in missing if name not in steps]
        hints += [f"rename your own column to {name!r} with `rename_column`" for name in others]
        raise KeyError(f"the dataset has no column {missing}; it has {ds.column_names}; {'; '.join(hints)}")


def class_label(features: Features, column: str = LABEL) -> ClassLabel:
    """Return the `ClassLabel` feature of `column`.

    Raises:
        KeyError: if the column is missing.
        TypeError: if it is not a `ClassLabel`; the message holds the call that makes it one.
    """
    if column not in features:
        raise KeyError(f"the dataset has no column {column!r}; it has {list(features)}")
    feature = features[column]
    if not isinstance(feature, ClassLabel):
        remedy = f"`ds = ds.class_encode_column({column!r})` makes it one"
        if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
            remedy = "`hm.one_label(ds, name)` views rows as those of one of their labels"
        elif isinstance(feature, Value) and feature.dtype.startswith("float"):
            remedy = "`hm.signed_error(ds)` views rows of a number by its error"
        raise TypeError(
            f"column {column!r} must be a ClassLabel, so that classes have names, but is {feature}; {remedy}"
        )
    return feature


def labels(ds: Dataset, column: str = LABEL) -> np.ndarray:
    """Return the class ids of `column`, of shape `(n,)` and type int64.

    Raises:
        ValueError: if a row has no label or one outside the names of the `ClassLabel`; rows are named.
    """
    feature = class_label(ds.features, column)
    values = _arrow(ds, column)
    ids = values.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    bad = np.flatnonzero((ids < 0) | (ids >= feature.num_classes))
    if bad.size:
        raise ValueError(
            f"column {column!r} has {bad.size} rows without a label in 0..{feature.num_classes - 1} "
            f"(first rows: {bad[:5].tolist()}); filter them out"
        )
    return ids


def refuse_unnamed(ds: Dataset, column: str) -> None:
    """Raise `ValueError` naming rows whose class id has no name in the `ClassLabel`; null and -1 are no class."""
    feature = class_label(ds.features, column)
    ids = _arrow(ds, column).fill_null(-1).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero((ids < -1) | (ids >= feature.num_classes))
    if bad.size:
        raise ValueError(
            f"column {column!r} has class ids outside 0..{feature.num_classes - 1} in {bad.size} rows (first rows: "
            f"{bad[:5].tolist()}); filter them out, or cast the column to a ClassLabel with a name for each"
        )


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message: the first few, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def shortened(text: str, most: int = LONGEST_NAME) -> str:
    """Return `text`, or its beginning and end where it is longer than `most` characters.

    >>> shortened("abcdefghijklmnopqrstuvwxyz", 12)
    'abcdefgh…xyz'
    """
    end = most // 4
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def require_every_class(ids: np.ndarray, names: Sequence[str], minimum: int = 1) -> None:
    """Raise `ValueError` naming classes with fewer than `minimum` rows."""
    counts = np.bincount(ids, minlength=len(names))
    few = [f"{name!r} ({counts[k]} rows)" for k, name in enumerate(names) if counts[k] < minimum]
    if few:
        raise ValueError(
            f"every class needs at least {minimum} row{'s' if minimum > 1 else ''} here, but {listed(few)} "
            f"{'has' if len(few) == 1 else 'have'} fewer; add rows or cast `label` to the classes that occur"
        )


def matrix(ds: Dataset, column: str) -> np.ndarray:
    """Return a fixed-length vector column as an array of shape `(n, d)`, in the type it is stored in.

    Raises:
        KeyError: if the column is missing.
        ValueError: if rows differ in length or are null; the first such row is named.
    """
    require(ds, column)
    values = _arrow(ds, column)
    if values.null_count:
        raise ValueError(f"column {column!r} is null in row {int(np.flatnonzero(values.is_null())[0])}")
    if not pa.types.is_fixed_size_list(values.type):
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(lengths != lengths[:1])
        if odd.size:
            first = odd[0]
            raise ValueError(f"column {column!r} has {lengths[0]} values in row 0 but {lengths[first]} in row {first}")
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), -1) if len(values) else flat.reshape(0, max(ds.features[column].length, 0))


def source_ids(ds: Dataset) -> np.ndarray | None:
    """Return which source each row comes from, of shape `(n,)`; None without such a column.

    Raises:
        ValueError: if a row has none: all such rows would count as one source.
    """
    if SOURCE_ID not in ds.column_names:
        return None
    missing = np.flatnonzero(_arrow(ds, SOURCE_ID).is_null(nan_is_null=True))
    if missing.size:
        raise ValueError(
            f"column {SOURCE_ID!r} is empty in {missing.size} of {len(ds)} rows, first in row {missing[0]}; give "
            "each row that shares its source with no other a value of its own"
        )
    return np.asarray(ds.with_format(None)[SOURCE_ID][:])


def some_units(ds: Dataset, column: str, units: Sequence[int], batch_size: int = 16_384) -> np.ndarray:
    """Return some entries of a vector column, of shape `(n, len(units))`, reading a batch of rows at a time.

    A wide column on disk then costs the memory of the entries asked for, not of all. Each entry is contiguous.
    """
    require(ds, column)
    wanted = np.asarray(units, dtype=np.int64)
    everyone = ds.select_columns([column])
    out: np.ndarray | None = None
    for start in range(0, len(ds), batch_size):
        part = matrix(everyone.select(range(start, min(start + batch_size, len(ds)))), column)
        if out is None:
            out = np.empty((len(wanted), len(ds)), dtype=part.dtype).T
        out[start : start + len(part)] = part[:, wanted]
    return np.empty((0, len(wanted)), dtype=np.float32) if out is None else out


def finite_matrix(ds: Dataset, column: str) -> np.ndarray:
    """Return `matrix(ds, column)`, refusing NaN and infinite values by the rows they stand in."""
    values = matrix(ds, column)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        refuse_not_finite(column, bad.size, bad[:5].tolist())
    return values


def refuse_not_finite(column: str, count: int, first: Sequence[int]) -> None:
    """Raise `ValueError` naming some of the `count` rows in which a vector is NaN or infinite."""
    raise ValueError(
        f"column {column!r} has NaN or infinite values in {count} rows (first rows: {list(first)}); "
        "drop these rows, or extract again with `dtype='float32'` if a low precision overflowed"
    )


def numbers(ds: Dataset, column: str) -> np.ndarray:
    """Return a column of numbers as float64, `(n,)`; null is NaN."""
    return _arrow(ds, column).cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)


def concept_columns(features: Features) -> list[str]:
    """Return the names of the sparse concept columns, in order."""
    return [name for name in features if name.startswith(CONCEPTS_PREFIX)]


def view_columns(features: Features) -> list[str]:
    """Return the names of the dense side-view columns, in order."""
    return [name for name in features if name.startswith(VIEW_PREFIX)]


def vocabulary(features: Features, column: str) -> list[str]:
    """Return the concept names of a `concepts_<source>` column."""
    feature = features[column]
    if not isinstance(feature, List) or not isinstance(feature.feature, ClassLabel):
        raise TypeError(f"column {column!r} must be List(ClassLabel), one entry per concept present, but is {feature}")
    return list(feature.feature.names)


def presence(ds: Dataset, column: str) -> sparse.csr_matrix:
    """Return which row has which concept: boolean, of shape `(n, len(vocabulary))`; a null list is an empty one."""
    names = vocabulary(ds.features, column)
    require(ds, column)
    counts, words = [np.zeros(1, dtype=np.int64)], [np.empty(0, dtype=np.int32)]
    everyone = ds.select_columns([column])
    for start in range(0, len(ds), ROWS_OF_LISTS):
        part = _arrow(everyone.select(range(start, min(start + ROWS_OF_LISTS, len(ds)))), column).fill_null([])
        counts.append(part.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
        words.append(part.flatten().to_numpy(zero_copy_only=False).astype(np.int32))
    indices, indptr = np.concatenate(words), np.cumsum(np.concatenate(counts))
    if indices.size and (indices.min() < 0 or indices.max() >= len(names)):
        raise ValueError(f"column {column!r} has concept ids outside 0..{len(names) - 1}")
    present = np.ones(len(indices), dtype=bool)
    table = sparse.csr_matrix((present, indices, indptr), shape=(len(ds), len(names)))
    table.sum_duplicates()
    return table


def concept_arrow(table: np.ndarray | sparse.csr_matrix, names: Sequence[str]) -> pa.Array:
    """Return the arrow list column of a boolean matrix of shape `(n, len(names))`: the inverse of `presence`."""
    csr = sparse.csr_matrix(table, dtype=bool)
    if csr.shape[1] != len(names):
        raise ValueError(f"the matrix has {csr.shape[1]} columns for {len(names)} concept names")
    csr.eliminate_zeros()
    csr.sort_indices()
    return pa.ListArray.from_arrays(pa.array(csr.indptr, pa.int32()), pa.array(csr.indices.astype(np.int64)))


def vector_arrow(values: np.ndarray) -> pa.Array:
    """Return the arrow fixed-size list column of an array of shape `(n, d)`, without copying it to Python objects."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def with_columns(ds: Dataset, columns: Mapping[str, tuple[Any, Any]]) -> Dataset:
    """Return `ds` with columns added or replaced, in memory, typed as declared.

    Args:
        ds: any dataset; an indices mapping left by `select` is resolved.
        columns: name -> (values, feature). Values are a numpy array of shape `(n,)` or `(n, d)`, an arrow array, or a
            sequence.
    """
    features = Features({name: feature for name, (_, feature) in columns.items()})
    arrays = {name: _storage(values, features[name]) for name, (values, _) in columns.items()}
    for name, array in arrays.items():
        if len(array) != len(ds):
            raise ValueError(f"column {name!r} has {len(array)} values for {len(ds)} rows")
    table = pa.table(arrays).cast(features.arrow_schema)
    added = Dataset(InMemoryTable(table))
    old = ds.remove_columns([name for name in columns if name in ds.column_names])
    return concatenate_datasets([old, added], axis=1) if old.column_names else added


def beside(ds: Dataset, made: Dataset, features: Mapping[str, Any]) -> Dataset:
    """Return `ds` with the columns of `made` added or replaced, typed as declared; what is on disk stays there."""
    declared = Features(features)
    table = made.data.cast(declared.arrow_schema)
    added = Dataset(table, info=DatasetInfo(features=declared), fingerprint=made._fingerprint)
    old = ds.remove_columns([name for name in declared if name in ds.column_names])
    return concatenate_datasets([old, added], axis=1) if old.column_names else added


def signed(ds: Made, step: str, text: str) -> Made:
    """Return `ds` with a line `step: text` in its description, in place of an earlier one of the same step.

    What made a dataset's columns is then told to findings and cards, and survives saving.
    """
    earlier: list[str] = [
        line for line in (ds.info.description or "").splitlines() if not line.startswith(f"{step}: ")
    ]
    ds.info.description = "\n".join([*earlier, f"{step}: {text}"])
    return ds


def over_splits(ds: Splits, step: Callable[[Dataset], Dataset]) -> Splits:
    """Apply `step` to a dataset, or to every split of a `DatasetDict`; the same kind comes back."""
    if isinstance(ds, DatasetDict):
        return DatasetDict({name: step(split) for name, split in ds.items()})
    return step(ds)


def _arrow(ds: Dataset, column: str) -> pa.Array:
    require(ds, column)
    chunked = ds.with_format("arrow")[:][column] if ds._indices is not None else ds.data.column(column)
    combined = chunked.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _storage(values: Any, feature: Any) -> pa.Array:  # noqa: ANN401 - arrays of several libraries, any feature
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return vector_arrow(values)
    return pa.array(values, type=feature.pa_type if isinstance(feature, Value | ClassLabel) else None)
