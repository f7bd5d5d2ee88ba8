"""The shard of rows is the unit of work: computed by one process, written whole or not at all, never computed twice.

A folder holds for shard 7 the table `shard-000007.arrow` and, written after it, the record `shard-000007.json`. The
record says that the shard is finished, which rows it holds, and the checksum of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, concatenate_datasets
from torch import nn

from hf_midrange.columns import EMBEDDING, LOGITS, PREDICTION, vector, vector_arrow
from hf_midrange.extraction.batch import Batch
from hf_midrange.extraction.forward import Forward
from hf_midrange.io.files import DamagedFileError, sealed, write_atomically
from hf_midrange.io.shard_records import AGAIN, TABLE, mapped, read_record, shard_paths, verified


class Shard(NamedTuple):
    """Consecutive rows with their outputs; unreadable rows hold NaN until they are dropped from the result."""

    number: int
    first: int
    embedding: np.ndarray
    logits: np.ndarray
    unreadable: dict[int, str]

    def record(self) -> dict:
        """Return what is to be remembered of the rows: how many, which are unreadable, which have no finite logits."""
        finite = np.isfinite(self.logits).all(axis=1)
        rows = self.first + np.flatnonzero(~finite)
        not_finite = [int(row) for row in rows if int(row) not in self.unreadable]
        unreadable = {str(row): reason for row, reason in sorted(self.unreadable.items())}
        return {"first": self.first, "rows": len(finite), "unreadable": unreadable, "not_finite": not_finite}

    def table(self, features: Features) -> pa.Table:
        """Return the columns `embedding`, `logits` and `prediction`."""
        columns = {
            EMBEDDING: vector_arrow(self.embedding),
            LOGITS: vector_arrow(self.logits),
            PREDICTION: pa.array(self.logits.argmax(axis=1), pa.int64()),
        }
        return pa.table(columns).cast(features.arrow_schema)


def output_features(head: nn.Linear, prediction: ClassLabel) -> Features:
    """Return the features of the columns that extraction adds."""
    return Features({EMBEDDING: vector(head.in_features), LOGITS: vector(head.out_features), PREDICTION: prediction})


def computed(batches: Iterable[Batch], forward: Forward, shard_size: int) -> Iterator[Shard]:
    """Run the model over batches in row order and yield each shard when its last batch is done."""
    for number, group in groupby(batches, key=lambda batch: batch.first // shard_size):
        parts = [(batch, forward(batch.inputs) if batch.inputs is not None else None) for batch in group]
        first, rows = parts[0][0].first, sum(batch.count for batch, _ in parts)
        embedding = np.full((rows, forward.head.in_features), np.nan, np.float32)
        logits = np.full((rows, forward.head.out_features), np.nan, np.float32)
        for batch, outputs in parts:
            if outputs is not None:
                embedding[batch.rows - first], logits[batch.rows - first] = outputs
        unreadable = {row: reason for batch, _ in parts for row, reason in batch.unreadable.items()}
        yield Shard(number, first, embedding, logits, unreadable)


@dataclass(frozen=True)
class ShardFolder:
    """Finished shards on disk."""

    folder: Path
    features: Features

    def write(self, shard: Shard) -> None:
        """Write the table, then the record: a process killed in between leaves an unfinished shard, no false one."""
        table_path, record_path = shard_paths(self.folder, shard.number)
        checksum = write_atomically(table_path, _stream_bytes(shard.table(self.features)))
        record = {**shard.record(), TABLE: checksum}
        write_atomically(record_path, sealed(record, indent=1))

    def is_finished(self, number: int) -> bool:
        """Whether the shard is there and its table is what was written."""
        try:
            verified(self.folder, number)
        except (FileNotFoundError, DamagedFileError):
            return False
        return True

    def records(self, count: int) -> list[dict]:
        """Return the records of shards 0 to `count - 1`."""
        paths = [shard_paths(self.folder, number)[1] for number in range(count)]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: all processes must share one `output_dir`; {AGAIN}")
        return [read_record(path) for path in paths]

    def columns(self, count: int) -> Dataset:
        """Return shards 0 to `count - 1` as one memory-mapped dataset."""
        return concatenate_datasets(
            [mapped(self.folder, number, record) for number, record in enumerate(self.records(count))]
        )

    def clear(self) -> None:
        """Delete the shards, finished or not, and nothing else."""
        for path in self.folder.glob("shard-*"):
            path.unlink()


def _stream_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
