"""`extract`: one loop over datasets, dictionaries of datasets and streams, on one process or several."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import groupby
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeVar

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, tqdm
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict
from datasets.table import InMemoryTable
from torch import nn

from hf_midrange.classifier import fingerprint, label_names, last_linear, load_classifier
from hf_midrange.columns import LABEL, beside, class_label, with_columns
from hf_midrange.extraction.forward import Forward, prepared
from hf_midrange.extraction.inputs import Batch, Collated, Preparation, Processor, preparation, refuse_unreadable
from hf_midrange.extraction.manifest import MANIFEST, claim, data_key
from hf_midrange.extraction.rows import Cut, StreamRows, TableRows, Wanted
from hf_midrange.extraction.shards import (
    START,
    Position,
    Record,
    Shard,
    ShardFolder,
    marked,
    output_features,
    unreadable_rows,
    without_unreadable,
)
from hf_midrange.processes import is_mine, join_processes, leads_folder, writing_together


Data = TypeVar("Data", Dataset, DatasetDict, IterableDataset, IterableDatasetDict)


def extract(
    dataset: Data,
    model: nn.Module | str | PathLike[str],
    processor: Processor | Collated | str | PathLike[str] | None = None,
    *,
    batch_size: int = 64,
    output_dir: str | PathLike[str] | None = None,
    shared: bool = True,
    head: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    num_workers: int = 0,
    shard_size: int = 4096,
    max_length: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    run_id: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Data:
    """Run a classifier over a dataset and add the columns `embedding`, `logits` and `prediction`.

    One forward pass a row: the embedding is the input of the classifier's last linear layer, of shape `(d,)`; the
    logits, of shape `(C,)`, are that layer applied to it in float32, whatever the backbone's precision. Rows come back
    in order, on any number of processes (`accelerate launch`). The model keeps its weights, buffers, mode and device.

    With `output_dir`, rows are computed in shards. A finished shard is on disk and is never computed again, so the
    same call after a crash goes on where it stopped, and memory does not grow with the number of rows: the result is
    the dataset with memory-mapped columns. Without it, results stay in memory, and those of a stream are computed as
    it is read.

    Each shard has a checksum: one that was cut short or changed is computed again when a run goes on, and named by
    `read_shards`. One run at a time writes into a folder; the lock of a process that died is no obstacle. After a full
    disk or Ctrl-C, too, the same call goes on. Images more than 50 times as long as wide are squeezed to that.

    Of a stream, the position after each shard is kept too, and a run that goes on reads on from there. On several
    processes each reads past the shards of the others; give each a part by `split_dataset_by_node`, and an
    `output_dir` of its own, and it reads its part alone.

    Args:
        dataset: has `image`, or `text` and perhaps `text_pair`; if it has `label`, a `ClassLabel`, the model must have
            as many labels. A `DatasetDict` is written to one subfolder a split.
        model: a timm or transformers image classifier or a transformers sequence classifier; or its Hub id or folder.
        processor: an image processor, a tokenizer, or a callable from a PIL image to a tensor of shape `(3, h, w)`;
            or `Collated`, rows that are model inputs already; None takes the model's own.
        batch_size: rows a forward pass; halved by itself where the device's memory is too small. Sums are rounded
            differently in batches of another size, by about 1e-6 of the values.
        output_dir: folder for the shards; shared by all processes.
        shared: False if nodes do not share a disk: `output_dir` is then a folder of this node's own, the rows of the
            shards that lie in it come back, and `merge_shards` makes one folder of all.
        head: name of the last linear layer, where several fit.
        device: where to run; None takes the process's accelerator, else the CPU.
        dtype: precision of the backbone, such as `"bfloat16"`; None takes the model's own.
        num_workers: worker processes that decode and transform or tokenise; streams use none.
        shard_size: rows a shard: what is held in memory, and what is lost at most when a process dies.
        max_length: most tokens of a text; None takes the tokenizer's limit.
        on_error: `"skip"` drops unreadable rows and says how many; `"raise"` names the first.
        run_id: your name for these rows, in place of the dataset's fingerprint or a stream's first shard.
        overwrite: delete the shards of another run in `output_dir`.
        trust_remote_code: run code that comes with the model.

    Returns:
        The same kind of dataset, with the columns added.

    Raises:
        KeyError: if the image or text column is missing.
        TypeError: if a column has the wrong feature.
        ValueError: if the dataset is empty, a row cannot be read, the model's labels are not the dataset's, the last
            linear layer is not clear, `output_dir` holds another run, or another process is writing there.
        OSError: if the disk is full or `output_dir` cannot be written.

    Example:
        ```python
        ds = hm.extract(ds, "timm/resnet18.a1_in1k", output_dir="extracted", batch_size=128)
        ds.with_format("torch")["embedding"]  # float32, of shape (n, 512)
        ```
    """
    state = join_processes()
    classifier = load_classifier(model, trust_remote_code=trust_remote_code)
    source = None if isinstance(model, nn.Module) else fspath(model)
    extraction = Extraction(
        classifier,
        preparation(
            classifier, processor, source=source, max_length=max_length, trust_remote_code=trust_remote_code
        ),
        head=head,
        device=state.device if device is None else torch.device(device),
        dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype,
        cut=Cut(shard_size, batch_size),
        num_workers=num_workers,
        on_error=on_error,
        run_id=run_id,
        overwrite=overwrite,
        shared=shared,
    )
    splits = dataset.values() if isinstance(dataset, DatasetDict | IterableDatasetDict) else [dataset]
    for split in splits:
        extraction.check(split)
    made_by = _made_by(extraction, source)
    folder = None if output_dir is None else Path(output_dir)
    if isinstance(dataset, DatasetDict | IterableDatasetDict):
        parts = {name: extraction.run(split, folder and folder / name, made_by) for name, split in dataset.items()}
        return type(dataset)(parts)
    return extraction.run(dataset, folder, made_by)


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


def report(records: list[dict], *, skip: bool) -> None:
    """Warn, on the main process, of dropped rows and of rows without finite logits.

    Raises:
        ValueError: if rows are unreadable and `skip` is false (an earlier run may have been allowed to drop them), or
            no row is readable.
    """
    dropped = unreadable_rows(records)
    if dropped and (not skip or len(dropped) == sum(record["rows"] for record in records)):
        refuse_unreadable(dropped)
    if not PartialState().is_main_process:
        return
    if dropped:
        shown = "; ".join(f"row {row}: {reason}" for row, reason in list(dropped.items())[:3])
        warnings.warn(f"dropped {len(dropped)} rows that cannot be read ({shown})", stacklevel=2)
    bad = [row for record in records for row in record["not_finite"]]
    if bad:
        warnings.warn(
            f"logits are NaN or infinite in {len(bad)} rows (first rows: {bad[:5]}); bands refuse such rows: "
            "drop them, or use dtype='float32' if a low precision overflowed",
            stacklevel=2,
        )
