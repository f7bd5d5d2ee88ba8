"""Passes over a dataset: measure its rows once for several sources, then read concepts from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from hf_midrange import columns
from hf_midrange.concepts.measured import MeasuredRows
from hf_midrange.concepts.source import Batch, Source
from hf_midrange.concepts.unreadable import UNREADABLE, refuse_first_unreadable
from hf_midrange.storage.memory import give_back, pages_returned


SHARD_ROWS = 2048
"""Rows of a costly source that are lost at most when a process dies."""


@dataclass(frozen=True)
class _Measure:
    """A batched function for `Dataset.map`; being frozen data, it gives the same cache fingerprint in every run."""

    sources: tuple[Source, ...]
    version: int = 1

    def __getstate__(self) -> dict[str, Any]:
        """Return what the cache of `Dataset.map` tells results apart by: no model is pickled."""
        return {"sources": [source.identity() for source in self.sources], "version": self.version}

    def __call__(self, batch: Batch) -> dict[str, Any]:
        give_back()
        return {name: values for source in self.sources for name, values in source.measure(batch).items()}


@dataclass(frozen=True)
class _Read:
    """A batched function for `Dataset.map`: the concept column of one fitted source, as an arrow list."""

    source: Source
    version: int = 1

    def __getstate__(self) -> dict[str, Any]:
        """Return what the cache of `Dataset.map` tells results apart by: many names hash faster as one text."""
        try:
            known: object = self.source.to_json()
        except TypeError:  # a function or a model object
            known = self.source.identity()
        return {"source": known, "version": self.version}

    def __call__(self, batch: Batch) -> pa.Table:
        give_back()
        table = self.source.present(batch)
        return pa.table({self.source.concept_column: columns.concept_arrow(table, self.source.vocabulary)})


def measure(ds: Dataset, sources: Sequence[Source], batch_size: int = 64, folder: Path | None = None) -> Dataset:
    """Return `ds` with the columns that the sources measure: cheap sources in one pass, costly ones each in its own.

    Images are decoded once for all cheap sources together. With a `folder`, what costly sources measure is written
    there shard by shard, and a finished shard is never computed again.
    """
    cheap = tuple(source for source in sources if source.measured() and not source.costly)
    costly = [(source,) for source in sources if source.measured() and source.costly]
    for group in ([cheap] if cheap else []) + costly:
        if folder is None or group is cheap:
            ds = _mapped(ds, _Measure(group), group, _features(group), batch_size)
        else:
            ds = _resumed(ds, _Measure(group), group, batch_size, folder)
    return ds


def _resumed(ds: Dataset, step: _Measure, group: Sequence[Source], batch_size: int, folder: Path) -> Dataset:
    """Return `ds` with the columns that `step` measures, computing only the shards that `folder` lacks.

    Processes that a launcher started divide the shards among themselves, and each returns all rows.
    """
    from hf_midrange.extraction.processes import is_mine, join_processes

    state, added = join_processes(), _features(group)
    store = MeasuredRows(folder / f"{group[0].name}-{Hasher.hash((ds._fingerprint, step))}")
    firsts = range(0, len(ds), SHARD_ROWS)
    for number, first in enumerate(firsts):
        if is_mine(number) and not store.is_finished(first):
            rows = ds.select(range(first, min(first + SHARD_ROWS, len(ds))))
            done = _mapped(rows, step, group, added, batch_size, first).select_columns(list(added))
            store.write(first, done.with_format("arrow")[:])
    state.wait_for_everyone()
    tables = [store.read(first, state.num_processes) for first in firsts]
    whole = pa.concat_tables(tables) if tables else Features(added).arrow_schema.empty_table()
    return columns.with_columns(ds, {name: (whole.column(name), feature) for name, feature in added.items()})


def read(ds: Dataset, source: Source, batch_size: int = 1000) -> Dataset:
    """Return a measured dataset with `concepts_<source>` added."""
    feature = columns.concept_list(source.vocabulary)
    return _mapped(ds, _Read(source), (source,), {source.concept_column: feature}, batch_size)


def _features(sources: Sequence[Source]) -> dict[str, Any]:
    return {name: feature for source in sources for name, feature in source.measured().items()}


def _wanted(ds: Dataset, step: _Measure | _Read, sources: Sequence[Source]) -> list[str]:
    """Return the columns that `step` reads; a source without `inputs`, a user's function, sees all of them."""
    if isinstance(step, _Read) and step.source.measured():
        return list(step.source.measured())
    if not all(source.inputs for source in sources):
        return ds.column_names
    wanted = {name for source in sources for name in source.inputs}
    return [name for name in ds.column_names if name in wanted]


def _mapped(
    ds: Dataset,
    step: _Measure | _Read,
    sources: Sequence[Source],
    added: dict[str, Any],
    batch_size: int,
    first: int = 0,
) -> Dataset:
    """Return `ds` with the columns `added` that `step` computes; only the columns it reads are loaded.

    A row that cannot be read is named by its number, counted from `first`.
    """
    inputs = ds.select_columns(_wanted(ds, step, sources)).with_format(None)
    if not len(ds):
        features = Features({**ds.features, **added})
        return Dataset.from_dict({name: [] for name in features}, features=features)
    # `map` copies and hashes all names of a ClassLabel several times over: they are put on afterwards.
    nameless = Features({name: _without_names(feature) for name, feature in added.items()})
    try:
        with pages_returned(inputs):
            results = inputs.map(
                step, batched=True, batch_size=batch_size, remove_columns=inputs.column_names, features=nameless
            )
    except UNREADABLE:
        refuse_first_unreadable(inputs, first)  # looked for only now: `map` says nothing of rows
        raise
    return columns.beside(ds, results, added)


def _without_names(feature: Any) -> Any:  # noqa: ANN401 - a datasets feature
    named = isinstance(feature, List) and isinstance(feature.feature, ClassLabel)
    return List(Value("int64")) if named else feature
