"""Going over the rows of a data set: batch by batch, shard by shard where a model runs, naming what cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, List, Value
from datasets.fingerprint import Hasher

from hf_midrange import columns
from hf_midrange.extraction.images import UNREADABLE, decode, fault, rgb
from hf_midrange.extraction.shards import Record, ShardFolder
from hf_midrange.processes import is_mine, join_processes


Made = TypeVar("Made", Dataset, IterableDataset)

Batch = Mapping[str, Sequence[Any]]
"""Column name -> the values of some rows, as `datasets` hands them to a batched function."""

SHARD_ROWS = 2048
"""Rows of a costly step that are lost at most when a process dies."""

SHOWN = 10
"""Rows that a warning names."""


@dataclass(frozen=True)
class Step:
    """A batched function for `Dataset.map`; images come to it undecoded, and it hands them on as `decode` reads them.

    Attributes:
        run: returns the columns that are added, for some rows.
        inputs: the columns that are read; none says that all are.
        added: the features of the columns that are added.
        known_by: what the cache of `Dataset.map` tells results apart by, so that no model is pickled.
        images: the columns of images among those read.
    """

    run: Callable[[Batch], dict[str, Any] | pa.Table]
    inputs: tuple[str, ...]
    added: dict[str, Any]
    known_by: object
    images: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return what the cache tells results apart by."""
        return {"known_by": self.known_by, "images": self.images}

    def __call__(self, batch: Batch) -> dict[str, Any] | pa.Table:
        """Return the columns that are added, for some rows."""
        return self.run({**batch, **{name: [decode(cell) for cell in batch[name]] for name in self.images}})


def mapped(ds: Dataset, step: Step, batch_size: int, first: int = 0) -> Dataset:
    """Return `ds` with the columns that `step` adds; only the columns it reads are loaded.

    Raises:
        ValueError: if a row cannot be read; it is named by its number, counted from `first`.
    """
    if not len(ds):
        features = Features({**ds.features, **step.added})
        return Dataset.from_dict({name: [] for name in features}, features=features)
    read = [name for name in ds.column_names if name in step.inputs or not step.inputs]
    inputs, images = undecoded(ds.select_columns(read).with_format(None))
    # `map` copies and hashes all names of a ClassLabel several times over: they are put on afterwards.
    nameless = Features({name: _without_names(feature) for name, feature in step.added.items()})
    try:
        results = inputs.map(
            replace(step, images=images),
            batched=True,
            batch_size=batch_size,
            remove_columns=inputs.column_names,
            features=nameless,
            desc=f"annotate: {', '.join(name.partition('_')[2] for name in step.added)}",
        )
    except UNREADABLE:
        for row, reason in unreadable_rows(inputs, read):  # looked for only now: `map` says nothing of rows
            raise ValueError(
                f"row {first + row} cannot be read: {reason}; repair it, or drop such rows with on_error='skip'"
            ) from None
        raise
    return columns.beside(ds, results, step.added)


def resumed(ds: Dataset, step: Step, batch_size: int, folder: Path, name: str) -> Dataset:
    """Return `ds` with the columns that `step` adds, computing only the shards that a folder in `folder` lacks.

    Processes that a launcher started divide the shards among themselves, and each returns all rows. A shard that was
    cut short or changed on disk is computed again.

    Raises:
        FileNotFoundError: if the other processes were given other rows or sources, or another folder.
    """
    state = join_processes()
    shards = ShardFolder(folder / f"{name}-{Hasher.hash((ds._fingerprint, step, SHARD_ROWS))}", Features(step.added))
    firsts = range(0, len(ds), SHARD_ROWS)
    for number, first in enumerate(firsts):
        if is_mine(number) and not shards.is_finished(number):
            rows = ds.select(range(first, min(first + SHARD_ROWS, len(ds))))
            done = mapped(rows, step, batch_size, first).select_columns(list(step.added))
            shards.folder.mkdir(parents=True, exist_ok=True)
            shards.write(Measured(number, first, done))
    state.wait_for_everyone()
    try:
        done = shards.columns(shards.records(len(firsts)))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; it was a part of another of {state.num_processes} processes: all must be given the same rows "
            "and sources, and an `output_dir` that they share; then call `annotate` again with the same arguments"
        ) from error
    return columns.beside(ds, done, step.added)


class Measured(NamedTuple):
    """A shard of measured rows, as `ShardFolder` writes it."""

    number: int
    first: int
    rows: Dataset

    def record(self) -> Record:
        """Return what is to be remembered of the rows."""
        return Record(self.first, len(self.rows), {}, [])

    def table(self, features: Features) -> pa.Table:
        """Return the measured columns."""
        return self.rows.with_format("arrow")[:].cast(features.arrow_schema)


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


def unreadable_rows(ds: Dataset, read: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each row with an image or text that cannot be read, and why."""
    texts = [name for name in read if is_text(ds.features[name])]
    plain, images = undecoded(ds.with_format(None).select_columns(list(read)))
    for number, row in enumerate(plain.select_columns([*images, *texts])):
        reasons = [_fault_of_image(row[name]) for name in images]
        reasons += [f"column {name!r} is null" if row[name] is None else "" for name in texts]
        reason = next(filter(None, reasons), "")
        if reason:
            yield number, reason


def undecoded(ds: Made) -> tuple[Made, tuple[str, ...]]:
    """Return rows whose images `datasets` leaves as they are, and the columns of images.

    What `datasets` decodes may be of any format, also of those that start other programs.
    """
    images = tuple(name for name, feature in ds.features.items() if isinstance(feature, Image))
    for name in images:
        ds = ds.cast_column(name, Image(decode=False))
    return ds, images


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
