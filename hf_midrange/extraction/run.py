"""`extract`: one loop over datasets, dictionaries of datasets and streams, on one process or several."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict
from datasets.table import InMemoryTable
from torch import nn

from hf_midrange.classifier import fingerprint, heads, load_classifier, unwrapped, whole
from hf_midrange.columns import (
    BAND,
    CONFOUNDERS,
    KEEP,
    LOGITS,
    POSITION,
    PSEUDO_GROUP,
    QUANTILE,
    REASON,
    WEIGHT,
    beside,
    facts,
    with_columns,
)
from hf_midrange.extraction.forward import Forward, prepared
from hf_midrange.extraction.inputs import (
    Batch,
    Collated,
    Cut,
    Preparation,
    Processor,
    StreamRows,
    TableRows,
    Wanted,
    preparation,
    refuse_unreadable,
)
from hf_midrange.extraction.output_kinds import Classes, classes_of, warn_of_names
from hf_midrange.extraction.shards import (
    Record,
    Shard,
    ShardFolder,
    Start,
    data_key,
    marked,
    output_features,
    unreadable_rows,
    without_unreadable,
)
from hf_midrange.processes import is_mine, join_processes, leads_folder, writing_together


DERIVED = (QUANTILE, POSITION, BAND, PSEUDO_GROUP, KEEP, WEIGHT, CONFOUNDERS, REASON)
"""Columns that later steps compute from the outputs of the model."""

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
    classes: Literal["all", "match"] = "all",
    on_error: Literal["raise", "skip"] = "raise",
    run_id: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Data:
    """Run a classifier over a dataset and add the columns `embedding`, `logits` and `prediction`.

    One forward pass a row: the embedding is the input of the classifier's last linear layer, of shape `(d,)`; the
    logits, of shape `(C,)`, are that layer applied to it in float32, whatever the backbone's precision. A distilled
    model with two heads, whose logits are their mean, has the inputs of both side by side. Logits come in the order of
    the dataset's classes, by name where the model names the same classes in another order. One logit z that a sigmoid
    makes a probability becomes the two mirrored ones -z/2 and z/2. Rows come back in order, on any number of processes
    (`accelerate launch`). The model keeps its weights, buffers, mode and device.

    With `output_dir`, rows are computed in shards. A finished shard is on disk and is never computed again, so the
    same call after a crash goes on where it stopped, and memory does not grow with the number of rows: the result is
    the dataset with memory-mapped columns. Without it, results stay in memory, and those of a stream are computed as
    it is read.

    Each shard has a checksum: one that was cut short or changed is computed again when a run goes on, and named by
    `read_shards`. One run at a time writes into a folder; the lock of a process that died is no obstacle. After a full
    disk or Ctrl-C, too, the same call goes on. Images more than 50 times as long as wide are squeezed to that.

    The first batch is a proof: a layer whose outputs are not the model's logits is refused, and a model that gives a
    row other logits in a batch than alone is warned of. Columns that later steps derived from another model's outputs
    are dropped.

    Of a stream, the position after each shard is kept too, and a run that goes on reads on from there. On several
    processes each reads past the shards of the others; give each a part by `split_dataset_by_node`, and an
    `output_dir` of its own, and it reads its part alone.

    Args:
        dataset: has `image`, or `text` and perhaps `text_pair`; if it has `label`, a `ClassLabel`, or a list of them
            for several labels a row (see `one_label`), the model must have as many labels; if it is a float, the model
            must have one output (see `signed_error`). A `DatasetDict` is written to one subfolder a split.
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
        classes: `"match"` takes, by name, the logits of the dataset's classes alone from a model that has more labels.
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

    Examples:
        ```python
        ds = hm.extract(ds, "timm/resnet18.a1_in1k", output_dir="extracted", batch_size=128)
        ds.with_format("torch")["embedding"]  # float32, of shape (n, 512)
        ```
    """
    if min(batch_size, shard_size) < 1 or num_workers < 0:
        raise ValueError(
            "batch_size and shard_size must be at least 1 and num_workers at least 0, but are "
            f"{batch_size}, {shard_size} and {num_workers}"
        )
    if classes not in ("all", "match"):
        raise ValueError(f"classes must be 'all' or 'match', but is {classes!r}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', but is {on_error!r}")
    state = join_processes()
    chosen_dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    source = None if isinstance(model, nn.Module) else fspath(model)
    with whole(load_classifier(model, trust_remote_code=trust_remote_code)) as classifier:
        prepare = preparation(
            classifier, processor, source=source, max_length=max_length, trust_remote_code=trust_remote_code
        )
        extraction = Extraction(
            classifier,
            prepare,
            _made_by(classifier, source, heads(classifier, head).name, chosen_dtype),
            Cut(shard_size, batch_size),
            num_workers,
            head,
            state.device if device is None else torch.device(device),
            chosen_dtype,
            on_error == "skip",
            run_id,
            overwrite,
            shared,
            classes == "match",
        )
        folder = None if output_dir is None else Path(output_dir)
        if isinstance(dataset, DatasetDict | IterableDatasetDict):
            for split in dataset.values():
                extraction.check(split)
            return type(dataset)(
                {name: extraction.run(split, folder and folder / name) for name, split in dataset.items()}
            )
        extraction.check(dataset)
        return extraction.run(dataset, folder)


def _made_by(model: nn.Module, source: str | None, head: str, dtype: torch.dtype | None) -> dict[str, Any]:
    """Return what is to be known of the model that made the columns; all its weights are read for it, once a run."""
    config = getattr(unwrapped(model), "config", None)
    own = next((parameter.dtype for parameter in model.parameters()), None)
    facts = {
        "model": source or str(getattr(config, "name_or_path", "")) or "unnamed",
        "revision": getattr(config, "_commit_hash", None),
        "fingerprint": fingerprint(model),
        "head": head,
        "dtype": str(dtype or own).removeprefix("torch."),
    }
    return {name: value for name, value in facts.items() if value is not None}


@dataclass(frozen=True)
class Extraction:
    """A classifier with its preprocessing, and the options of `extract`, to run over datasets."""

    model: nn.Module
    prepare: Preparation | Collated
    made_by: dict[str, Any]
    """Facts of the model, which the columns are marked with."""
    cut: Cut
    num_workers: int
    head: str | None
    device: torch.device
    dtype: torch.dtype | None
    skip: bool
    """Whether unreadable rows are dropped."""
    run_id: str | None
    overwrite: bool
    shared: bool
    match: bool
    """Whether the classes are some of the model's labels, by name."""

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
        if isinstance(dataset, IterableDataset) and not self.shared and not is_part(dataset):
            raise ValueError(
                "nodes with folders of their own divide a stream by `split_dataset_by_node(stream, rank, world_size)` "
                "of `datasets.distributed`; give each its part"
            )
        if isinstance(self.prepare, Collated) and not isinstance(dataset, Dataset):
            raise TypeError("`Collated` gives inputs to the rows of a Dataset, not to a stream")
        self.prepare.columns(dataset.features)
        self._features(dataset.features)
        warn_of_names(dataset.features, self.model)

    def run(self, dataset: Any, folder: Path | None) -> Any:  # noqa: ANN401 - the same kind comes back
        """Extract one dataset or stream."""
        dataset = self._without_derived(dataset)
        if folder is None:
            if isinstance(dataset, IterableDataset):
                return self._with_generated(dataset, _streamed, extraction=self)
            return self._in_memory(dataset)
        return self._on_disk(dataset, folder)

    def _in_memory(self, dataset: Dataset) -> Dataset:
        rows = self._rows(dataset)
        features = self._features(dataset.features)
        with self._forward(dataset.features) as forward:
            shards = list(self._compute(rows, forward, is_mine))
        if PartialState().num_processes > 1:
            shards = gather_object(shards)
        shards.sort(key=lambda shard: shard.number)
        table = pa.concat_tables([shard.table(features) for shard in shards])
        records = [shard.record() for shard in shards]
        self._report(records)
        added = marked(features, self._marks(dataset.features))
        return without_unreadable(with_columns(dataset, {name: (table[name], added[name]) for name in added}), records)

    def _on_disk(self, dataset: Dataset | IterableDataset, folder: Path) -> Dataset | IterableDataset:
        state = PartialState()
        store = ShardFolder(folder, self._features(dataset.features))
        part = is_part(dataset)
        leads = leads_folder(folder, alone=part) if part or not self.shared else state.is_main_process
        with writing_together(folder, leads=leads):
            self._claim(dataset, store, leads)
            rows = self._rows(dataset, store.last_position() if isinstance(dataset, IterableDataset) else None)

            def wanted(number: int) -> bool:
                return (part or is_mine(number)) and not store.is_finished(number)

            with self._forward(dataset.features) as forward:
                for shard in self._compute(rows, forward, wanted):
                    position = rows.passed.pop(shard.number, None) if isinstance(rows, StreamRows) else None
                    store.write(shard, position)
            state.wait_for_everyone()
        if rows.total == 0:
            raise ValueError("the stream is empty: it has no rows")
        records = store.records(self.cut.shards(rows.total), all_here=self.shared)
        self._report(list(records.values()))
        made, dropped = store.columns(records), frozenset(unreadable_rows(records.values()))
        if isinstance(dataset, IterableDataset):
            return self._with_generated(dataset, _zipped_rows, made=made, dropped=dropped)
        own = dataset
        if not self.shared:
            own = dataset.select([row for record in records.values() for row in record.numbers])
        added = marked(store.features, self._marks(dataset.features))
        return without_unreadable(beside(own, made, added), records.values())

    def _with_generated(
        self, dataset: IterableDataset, generate: Callable[..., Iterator[dict]], **arguments: object
    ) -> IterableDataset:
        """Return a stream of the rows that `generate` yields, those of `dataset` with the extracted columns.

        It is one shard to a DataLoader: several workers would otherwise count rows of their own.
        """
        added = marked(self._features(dataset.features), self._marks(dataset.features))
        features = Features({**dataset.features, **added})
        return IterableDataset.from_generator(
            generate, features=features, gen_kwargs={"dataset": dataset, **arguments}
        )

    def _rows(self, dataset: Dataset | IterableDataset, start: Start | None = None) -> TableRows | StreamRows:
        if isinstance(dataset, IterableDataset):
            return StreamRows(dataset, self.prepare, self.cut, start or Start())
        return TableRows(dataset, self.prepare, self.cut, self.num_workers)

    def _forward(self, features: Features) -> AbstractContextManager[Forward]:
        order, pad_token = self._classes(features).order, getattr(self.prepare, "pad_token", None)
        return prepared(self.model, self.head, self.device, self.dtype, order, pad_token)

    def _compute(self, rows: TableRows | StreamRows, forward: Forward, wanted: Wanted) -> Iterator[Shard]:
        batches = _readable(rows.batches(wanted), skip=self.skip)
        hidden = datasets.are_progress_bars_disabled()
        total = rows.total // PartialState().num_processes or None  # a stream's end is not known
        bar = tqdm(main_process_only=True, total=total, desc="extract", unit=" rows", disable=hidden)
        yield from _computed(_counted(batches, bar), forward, self.cut.shard_size)
        bar.close()

    def _claim(self, dataset: Dataset | IterableDataset, store: ShardFolder, leads: bool) -> None:
        state = PartialState()
        if self.overwrite and leads:
            store.clear()
        state.wait_for_everyone()
        columns = self.prepare.columns(dataset.features)
        key = {
            "data": data_key(dataset, columns, self.cut.shard_size, self.run_id),
            "rows": len(dataset) if isinstance(dataset, Dataset) else None,
            "columns": columns,
            "model": self.made_by["fingerprint"],
            "preprocessing": self.prepare.key(),
            "head": self.head,
            "classes": self._classes(dataset.features).order,
            "dtype": str(self.dtype),
            "shard_size": self.cut.shard_size,
            "features": repr(dict(store.features)),
        }
        store.claim(key, self._marks(dataset.features), is_main=leads)
        state.wait_for_everyone()

    def _features(self, features: Features) -> Features:
        """Return the features of the added columns; refuse a model whose labels are not the dataset's."""
        return output_features(heads(self.model, self.head).width, self._classes(features))

    def _classes(self, features: Features) -> Classes:
        return classes_of(features, self.model, heads(self.model, self.head), match=self.match)

    def _marks(self, features: Features) -> dict[str, Any]:
        """Return the facts of the model, and which of its labels each logit is where that is not plain."""
        order = self._classes(features).order
        return self.made_by if order is None else {**self.made_by, "order": order}

    def _without_derived(self, dataset: Any) -> Any:  # noqa: ANN401 - the same kind comes back
        """Return the dataset without the columns that were derived from the outputs of another model."""
        features = dataset.features
        if LOGITS not in features or facts(features, LOGITS).get("fingerprint") == self.made_by["fingerprint"]:
            return dataset
        stale = [
            name
            for name in features
            if name in DERIVED or facts(features, name).get("derived") or facts(features, name).get("of_network")
        ]
        if not stale:
            return dataset
        warnings.warn(f"dropped {', '.join(stale)}: they were derived from the outputs of another model", stacklevel=4)
        return dataset.remove_columns(stale)

    def _report(self, records: list[Record]) -> None:
        """Warn, on the main process, of dropped rows and of rows without finite logits.

        Raises:
            ValueError: if rows are unreadable and none may be dropped (an earlier run may have been allowed to), or no
                row is readable.
        """
        dropped = unreadable_rows(records)
        if dropped and (not self.skip or len(dropped) == sum(record.rows for record in records)):
            refuse_unreadable(dropped)
        if not PartialState().is_main_process:
            return
        if dropped:
            shown = "; ".join(f"row {row}: {reason}" for row, reason in list(dropped.items())[:3])
            warnings.warn(f"dropped {len(dropped)} rows that cannot be read ({shown})", stacklevel=4)
        bad = [row for record in records for row in record.not_finite]
        if bad:
            warnings.warn(
                f"logits are NaN or infinite in {len(bad)} rows (first rows: {bad[:5]}); bands refuse such rows: "
                "drop them, or use dtype='float32' if a low precision overflowed",
                stacklevel=4,
            )


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


def _computed(batches: Iterable[Batch], forward: Forward, shard_size: int) -> Iterator[Shard]:
    """Run the model over batches in row order and yield each shard when its last batch is done."""
    for number, group in groupby(batches, key=lambda batch: batch.first // shard_size):
        parts = [(batch, forward(batch.inputs) if batch.inputs is not None else None) for batch in group]
        first, rows = parts[0][0].first, sum(batch.count for batch, _ in parts)
        embedding = np.full((rows, forward.head.width), np.nan, np.float32)
        logits = np.full((rows, len(forward.order)), np.nan, np.float32)
        for batch, outputs in parts:
            if outputs is not None:
                embedding[batch.rows - first], logits[batch.rows - first] = outputs
        unreadable = {row: reason for batch, _ in parts for row, reason in batch.unreadable.items()}
        yield Shard(number, first, embedding, logits, unreadable)


def _zipped_rows(dataset: IterableDataset, made: Dataset, dropped: frozenset[int]) -> Iterator[dict]:
    added = iter(made.with_format("numpy"))
    for row, values in enumerate(dataset.decode(False)):
        extracted = next(added)
        if row not in dropped:
            yield {**values, **extracted}


def _streamed(extraction: Extraction, dataset: IterableDataset) -> Iterator[dict]:
    """Extract as rows are read: a shard of rows is held while its outputs are computed."""
    records, added = [], extraction._features(dataset.features)
    source = iter(dataset.decode(False))
    with extraction._forward(dataset.features) as forward:
        for shard in extraction._compute(extraction._rows(dataset), forward, lambda _: True):
            records.append(shard.record())
            outputs = Dataset(InMemoryTable(shard.table(added))).with_format("numpy")
            for row, extracted in enumerate(outputs, start=shard.first):
                values = next(source)
                if row not in shard.unreadable:
                    yield {**values, **extracted}
    if not records:
        raise ValueError("the stream is empty: it has no rows")
    extraction._report(records)
