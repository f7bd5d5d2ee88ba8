"""The loop: one classifier, its preprocessing and its options, over any dataset, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, tqdm
from datasets import ClassLabel, Dataset, Features, IterableDataset, concatenate_datasets
from datasets.table import InMemoryTable
from torch import nn

from hf_midrange.classifier import label_names, last_linear
from hf_midrange.columns import LABEL, class_label, with_columns
from hf_midrange.extraction.batch import Batch
from hf_midrange.extraction.collated import Collated
from hf_midrange.extraction.faults import refuse_unreadable, report, unreadable_rows, without_unreadable
from hf_midrange.extraction.forward import Forward, prepared
from hf_midrange.extraction.inputs import Preparation
from hf_midrange.extraction.manifest import MANIFEST, claim, data_key, model_key
from hf_midrange.extraction.positions import START, Position, Positions
from hf_midrange.extraction.rows import Cut, StreamRows, TableRows, Wanted
from hf_midrange.extraction.shards import Shard, ShardFolder, computed, output_features
from hf_midrange.io.shard_records import mapped, read_record, shard_paths
from hf_midrange.processes import is_mine, leads_folder, writing_together


@dataclass(frozen=True)
class Options:
    """What the caller chose, beyond model and data."""

    batch_size: int
    shard_size: int
    num_workers: int
    head: str | None
    device: torch.device
    dtype: torch.dtype | None
    on_error: str
    run_id: str | None
    overwrite: bool
    shared: bool

    def __post_init__(self) -> None:
        if min(self.batch_size, self.shard_size) < 1 or self.num_workers < 0:
            raise ValueError(
                "batch_size and shard_size must be at least 1 and num_workers at least 0, but are "
                f"{self.batch_size}, {self.shard_size} and {self.num_workers}"
            )
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', but is {self.on_error!r}")


@dataclass(frozen=True)
class Extraction:
    """A classifier with its preprocessing and options, to run over datasets."""

    model: nn.Module
    prepare: Preparation | Collated
    options: Options

    @property
    def _skip(self) -> bool:
        return self.options.on_error == "skip"

    @property
    def _cut(self) -> Cut:
        return Cut(self.options.shard_size, self.options.batch_size)

    def check(self, dataset: Dataset | IterableDataset) -> None:
        """Refuse a dataset before any work starts."""
        if not isinstance(dataset, Dataset | IterableDataset):
            raise TypeError(f"extract takes a datasets.Dataset, DatasetDict or IterableDataset, not {type(dataset)}")
        if dataset.features is None:
            raise TypeError(
                "the stream does not know its features; declare them: `stream.cast(datasets.Features({...}))`"
            )
        if isinstance(dataset, Dataset) and len(dataset) == 0:
            raise ValueError("the dataset is empty: it has no rows")
        if isinstance(dataset, IterableDataset) and not self.options.shared and not is_part(dataset):
            raise ValueError(
                "nodes with folders of their own divide a stream by `split_dataset_by_node(stream, rank, world_size)` "
                "of `datasets.distributed`; give each its part"
            )
        if isinstance(self.prepare, Collated) and not isinstance(dataset, Dataset):
            raise TypeError("`Collated` gives inputs to the rows of a Dataset, not to a stream")
        self.prepare.columns(dataset.features)
        self._features(dataset.features)

    def run(self, dataset: Any, folder: Path | None) -> Any:  # noqa: ANN401 - the same kind comes back
        """Extract one dataset or stream."""
        if folder is None:
            return self._stream(dataset) if isinstance(dataset, IterableDataset) else self._in_memory(dataset)
        return self._on_disk(dataset, folder)

    def _in_memory(self, dataset: Dataset) -> Dataset:
        state = PartialState()
        rows = self._rows(dataset)
        features = self._features(dataset.features)
        with self._forward() as forward:
            shards = list(self._compute(rows, forward, is_mine))
        if state.num_processes > 1:
            shards = gather_object(shards)
        shards.sort(key=lambda shard: shard.number)
        table = pa.concat_tables([shard.table(features) for shard in shards])
        result = with_columns(dataset, {name: (table[name], features[name]) for name in features})
        return self._finish(result, [shard.record() for shard in shards])

    def _on_disk(self, dataset: Dataset | IterableDataset, folder: Path) -> Dataset | IterableDataset:
        state = PartialState()
        store = ShardFolder(folder, self._features(dataset.features))
        part = is_part(dataset)
        leads = leads_folder(folder, alone=part) if part or not self.options.shared else state.is_main_process
        with writing_together(folder, leads=leads):
            self._claim(dataset, store, leads)
            rows = self._rows(dataset, Positions(store).last() if isinstance(dataset, IterableDataset) else START)

            def wanted(number: int) -> bool:
                return (part or is_mine(number)) and not store.is_finished(number)

            with self._forward() as forward:
                for shard in self._compute(rows, forward, wanted):
                    store.write(shard)
                    if isinstance(rows, StreamRows) and shard.number in rows.passed:
                        Positions(store).write(rows.passed.pop(shard.number))
            state.wait_for_everyone()
        if rows.total == 0:
            raise ValueError("the stream is empty: it has no rows")
        count = self._cut.shards(rows.total)
        if isinstance(dataset, IterableDataset):
            records = store.records(count)
            report(records, skip=self._skip)
            return _zipped(dataset, store.columns(count), unreadable_rows(records))
        kept = dataset.remove_columns([name for name in store.features if name in dataset.column_names])
        if not self.options.shared:
            return self._own_rows(kept, store, count)
        return self._finish(concatenate_datasets([kept, store.columns(count)], axis=1), store.records(count))

    def _own_rows(self, dataset: Dataset, store: ShardFolder, count: int) -> Dataset:
        """Return the rows whose shards lie in the folder of this node."""
        parts, records = [], []
        for number in range(count):
            path = shard_paths(store.folder, number)[1]
            if path.is_file():
                record = read_record(path)
                rows = dataset.select(range(record["first"], record["first"] + record["rows"]))
                parts.append(concatenate_datasets([rows, mapped(store.folder, number, record)], axis=1))
                records.append(record)
        if not parts:
            return concatenate_datasets([dataset.select([]), Dataset.from_dict({}, features=store.features)], axis=1)
        report(records, skip=self._skip)
        numbers = np.concatenate([np.arange(r["first"], r["first"] + r["rows"]) for r in records])
        bad = np.isin(numbers, np.fromiter(unreadable_rows(records), np.int64))
        whole = concatenate_datasets(parts)
        return whole.select(np.flatnonzero(~bad)) if bad.any() else whole

    def _stream(self, dataset: IterableDataset) -> IterableDataset:
        features = self._features(dataset.features)
        arguments = {"extraction": self, "dataset": dataset, "added": features}
        return IterableDataset.from_generator(
            _streamed, features=Features({**dataset.features, **features}), gen_kwargs=arguments
        )

    def _rows(self, dataset: Dataset | IterableDataset, start: Position = START) -> TableRows | StreamRows:
        if isinstance(dataset, IterableDataset):
            return StreamRows(dataset, self.prepare, self._cut, start)
        return TableRows(dataset, self.prepare, self._cut, self.options.num_workers)

    def _forward(self) -> AbstractContextManager[Forward]:
        return prepared(self.model, self.options.head, self.options.device, self.options.dtype)

    def _compute(self, rows: TableRows | StreamRows, forward: Forward, wanted: Wanted) -> Iterator[Shard]:
        batches = _readable(rows.batches(wanted), skip=self._skip)
        hidden = datasets.are_progress_bars_disabled()
        total = rows.total // PartialState().num_processes or None  # a stream's end is not known
        bar = tqdm(main_process_only=True, total=total, desc="extract", unit=" rows", disable=hidden)
        yield from computed(_counted(batches, bar), forward, self.options.shard_size)
        bar.close()

    def _claim(self, dataset: Dataset | IterableDataset, store: ShardFolder, leads: bool) -> None:
        state = PartialState()
        if self.options.overwrite and leads:
            store.clear()
            (store.folder / MANIFEST).unlink(missing_ok=True)
        state.wait_for_everyone()
        columns = self.prepare.columns(dataset.features)
        key = {
            "data": data_key(dataset, columns, self.options.shard_size, self.options.run_id),
            "rows": len(dataset) if isinstance(dataset, Dataset) else None,
            "columns": columns,
            "model": model_key(self.model),
            "preprocessing": self.prepare.key(),
            "head": self.options.head,
            "dtype": str(self.options.dtype),
            "shard_size": self.options.shard_size,
            "features": repr(dict(store.features)),
        }
        claim(store.folder, key, is_main=leads)
        state.wait_for_everyone()

    def _features(self, features: Features) -> Features:
        """Return the features of the added columns; refuse a model whose labels are not the dataset's."""
        head = last_linear(self.model, self.options.head)[1]
        return output_features(head, self._prediction(features, head.out_features))

    def _prediction(self, features: Features, labels: int) -> ClassLabel:
        """Return the feature of `prediction`: the dataset's classes, else the model's names, else numbers."""
        if LABEL not in features:
            names = label_names(self.model)
            fits = names is not None and len(names) == labels
            return ClassLabel(names=names) if fits else ClassLabel(num_classes=labels)
        label = class_label(features)
        if label.num_classes != labels:
            raise ValueError(
                f"the model has {labels} labels but column {LABEL!r} has {label.num_classes} "
                f"({', '.join(label.names[:5])}{', ...' if label.num_classes > 5 else ''}); use a model fine-tuned on "
                f"these classes, or remove the column for a pure extraction: `ds.remove_columns({LABEL!r})`"
            )
        return label

    def _finish(self, result: Dataset, records: list[dict]) -> Dataset:
        report(records, skip=self._skip)
        return without_unreadable(result, records)


def is_part(dataset: Dataset | IterableDataset) -> bool:
    """Whether a stream is what `split_dataset_by_node` gave this process: all its rows are for this process."""
    return isinstance(dataset, IterableDataset) and dataset._distributed is not None


def _readable(batches: Iterable[Batch], *, skip: bool) -> Iterator[Batch]:
    for batch in batches:
        if batch.unreadable and not skip:
            refuse_unreadable(batch.unreadable)
        yield batch


def _counted(batches: Iterable[Batch], bar: Any) -> Iterator[Batch]:  # noqa: ANN401 - tqdm has no types
    for batch in batches:
        yield batch
        bar.update(batch.count)


def _zipped(dataset: IterableDataset, columns: Dataset, dropped: dict[int, str]) -> IterableDataset:
    """Return a stream that reads `dataset` again, each row beside its extracted columns.

    It is one shard to a DataLoader: several workers would otherwise count rows of their own.
    """
    features = Features({**dataset.features, **columns.features})
    arguments = {"dataset": dataset, "columns": columns, "dropped": frozenset(dropped)}
    return IterableDataset.from_generator(_zipped_rows, features=features, gen_kwargs=arguments)


def _zipped_rows(dataset: IterableDataset, columns: Dataset, dropped: frozenset[int]) -> Iterator[dict]:
    added = iter(columns.with_format("numpy"))
    for row, values in enumerate(dataset.decode(False)):
        extracted = next(added)
        if row not in dropped:
            yield {**values, **extracted}


def _streamed(extraction: Extraction, dataset: IterableDataset, added: Features) -> Iterator[dict]:
    """Extract as rows are read: a shard of rows is held while its outputs are computed."""
    records = []
    source = iter(dataset.decode(False))
    with extraction._forward() as forward:
        for shard in extraction._compute(extraction._rows(dataset), forward, lambda _: True):
            records.append(shard.record())
            outputs = Dataset(InMemoryTable(shard.table(added))).with_format("numpy")
            for row, extracted in enumerate(outputs, start=shard.first):
                values = next(source)
                if row not in shard.unreadable:
                    yield {**values, **extracted}
    if not records:
        raise ValueError("the stream is empty: it has no rows")
    report(records, skip=extraction._skip)
