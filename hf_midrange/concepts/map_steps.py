"""Going over the rows of a data set: batch by batch, shard by shard where a model runs, naming what cannot be read."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from datasets.fingerprint import Hasher

from hf_midrange import columns
from hf_midrange.extraction.images import UNREADABLE, decode, fault, rgb
from hf_midrange.io.files import sha256_of, write_atomically
from hf_midrange.processes import is_mine, join_processes


Batch = Mapping[str, Sequence[Any]]
"""Column name -> the values of some rows, as `datasets` hands them to a batched function."""

SHARD_ROWS = 2048
"""Rows of a costly step that are lost at most when a process dies."""

SHOWN = 10
"""Rows that a warning names."""


class Step(Protocol):
    """A batched function for `Dataset.map`: frozen data, so that it has the same cache fingerprint in every run."""

    @property
    def inputs(self) -> Sequence[str]:
        """Return the columns that are read; none says that all are."""
        ...

    @property
    def added(self) -> Mapping[str, Any]:
        """Return the features of the columns that are added."""
        ...

    def __call__(self, batch: Batch) -> dict[str, Any] | pa.Table:
        """Return the columns that are added, for some rows."""
        ...


def mapped(ds: Dataset, step: Step, batch_size: int, first: int = 0) -> Dataset:
    """Return `ds` with the columns that `step` adds; only the columns it reads are loaded.

    Raises:
        ValueError: if a row cannot be read; it is named by its number, counted from `first`.
    """
    read = [name for name in ds.column_names if name in step.inputs or not step.inputs]
    inputs = ds.select_columns(read).with_format(None)
    if not len(ds):
        features = Features({**ds.features, **step.added})
        return Dataset.from_dict({name: [] for name in features}, features=features)
    # `map` copies and hashes all names of a ClassLabel several times over: they are put on afterwards.
    nameless = Features({name: _without_names(feature) for name, feature in step.added.items()})
    try:
        results = inputs.map(
            step, batched=True, batch_size=batch_size, remove_columns=inputs.column_names, features=nameless
        )
    except UNREADABLE:
        refuse_first_unreadable(inputs, first)  # looked for only now: `map` says nothing of rows
        raise
    return columns.beside(ds, results, step.added)


def resumed(ds: Dataset, step: Step, batch_size: int, folder: Path, name: str) -> Dataset:
    """Return `ds` with the columns that `step` adds, computing only the shards that a folder in `folder` lacks.

    Processes that a launcher started divide the shards among themselves, and each returns all rows. The shard of the
    rows from 2048 on is the one file `rows-000002048-<checksum>.arrow`, written whole or not at all; where its content
    has another checksum, it is computed again.
    """
    state = join_processes()
    shards = folder / f"{name}-{Hasher.hash((ds._fingerprint, step))}"
    firsts = range(0, len(ds), SHARD_ROWS)
    for number, first in enumerate(firsts):
        if is_mine(number) and _finished(shards, first) is None:
            rows = ds.select(range(first, min(first + SHARD_ROWS, len(ds))))
            done = mapped(rows, step, batch_size, first).select_columns(list(step.added))
            _write(shards, first, done.with_format("arrow")[:])
    state.wait_for_everyone()
    found = [_finished(shards, first) for first in firsts]
    if None in found:
        raise FileNotFoundError(
            f"{shards} lacks the rows from {firsts[found.index(None)]} on, a part of another of {state.num_processes} "
            "processes; all processes must be given the same rows and sources, and an `output_dir` that they share; "
            "then call `annotate` again with the same arguments: it measures what is missing and nothing else"
        )
    tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in found if path]
    whole = pa.concat_tables(tables) if tables else Features(step.added).arrow_schema.empty_table()
    return columns.with_columns(ds, {name: (whole.column(name), feature) for name, feature in step.added.items()})


def _write(shards: Path, first: int, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    shards.mkdir(parents=True, exist_ok=True)
    checksum = hashlib.sha256(content).hexdigest()
    write_atomically(shards / f"rows-{first:09d}-{checksum[:16]}.arrow", content)


def _finished(shards: Path, first: int) -> Path | None:
    """Return the file of the shard that begins with row `first` if it is there as it was written."""
    paths = shards.glob(f"rows-{first:09d}-*.arrow")
    return next((path for path in paths if path.stem.endswith(f"-{sha256_of(path)[:16]}")), None)


def readable(ds: Dataset, read: Sequence[str]) -> Dataset:
    """Return the rows whose images and texts in the columns `read` can be read; a warning lists the others.

    Raises:
        ValueError: if no row can be read.
    """
    bad = dict(unreadable_rows(ds, read))
    if not bad:
        return ds
    shown = "; ".join(f"row {row}: {reason}" for row, reason in list(bad.items())[:SHOWN])
    if len(bad) == len(ds):
        raise ValueError(f"none of the {len(ds)} rows can be read ({shown})")
    more = ", ..." if len(bad) > SHOWN else ""
    warnings.warn(f"dropped {len(bad)} of {len(ds)} rows that cannot be read ({shown}{more})", stacklevel=4)
    return ds.select(np.setdiff1d(np.arange(len(ds)), list(bad)))


def refuse_first_unreadable(ds: Dataset, first: int) -> None:
    """Raise `ValueError` naming the first row of `ds` that cannot be read, counted from `first`; return if all can."""
    for row, reason in unreadable_rows(ds, ds.column_names):
        raise ValueError(
            f"row {first + row} cannot be read: {reason}; repair it, or drop such rows with on_error='skip'"
        )


def unreadable_rows(ds: Dataset, read: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each row with an image or text that cannot be read, and why."""
    images = [name for name in read if isinstance(ds.features[name], Image)]
    texts = [name for name in read if is_text(ds.features[name])]
    plain = ds.with_format(None).select_columns([*images, *texts])
    for name in images:
        plain = plain.cast_column(name, Image(decode=False))
    for number, row in enumerate(plain):
        reasons = [_fault_of_image(row[name]) for name in images]
        reasons += [f"column {name!r} is null" if row[name] is None else "" for name in texts]
        reason = next(filter(None, reasons), "")
        if reason:
            yield number, reason


def is_text(feature: object) -> bool:
    """Return whether a feature is one of strings."""
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _fault_of_image(cell: Any) -> str:  # noqa: ANN401 - an undecoded cell
    if cell is None:
        return "the image is null"
    try:
        rgb(decode(cell))
    except UNREADABLE as error:
        return fault(cell, error)
    return ""


def _without_names(feature: Any) -> Any:  # noqa: ANN401 - a datasets feature
    named = isinstance(feature, List) and isinstance(feature.feature, ClassLabel)
    return List(Value("int64")) if named else feature
