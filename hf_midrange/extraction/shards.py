"""A folder of shards: what extraction keeps on disk, goes on from, reads back and merges.

The shard of rows is the unit of work: computed by one process, written whole or not at all, never computed twice. For
shard 7 a folder holds the table `shard-000007.arrow` and, written after it, the record `shard-000007.json`, which says
that the shard is finished, which rows it holds, and the checksum of the table. Of a stream, `shard-000007.position`
says where it stood after the shard. Nothing here needs torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, concatenate_datasets
from datasets.table import MemoryMappedTable

from hf_midrange import columns
from hf_midrange.extraction.manifest import MANIFEST, differences, read_manifest
from hf_midrange.io.files import DamagedFileError, from_json, intact, read_json, sha256_of, to_json, write_atomically
from hf_midrange.io.folders import only_writer


AGAIN = "run the extraction again with the same arguments: it computes what is missing and nothing else"


@dataclass(frozen=True)
class Record:
    """What is to be remembered of a finished shard.

    Attributes:
        first: number of its first row.
        rows: how many rows it has.
        unreadable: row number -> what is wrong with it; such rows hold NaN.
        not_finite: other rows whose logits are NaN or infinite.
        sha256: checksum of the table; empty for a shard that is in memory only.
    """

    first: int
    rows: int
    unreadable: dict[int, str]
    not_finite: list[int]
    sha256: str = ""

    @property
    def numbers(self) -> range:
        """Numbers of the rows."""
        return range(self.first, self.first + self.rows)


class Shard(NamedTuple):
    """Consecutive rows with their outputs; unreadable rows hold NaN until they are dropped from the result."""

    number: int
    first: int
    embedding: np.ndarray
    logits: np.ndarray
    unreadable: dict[int, str]

    def record(self, sha256: str = "") -> Record:
        """Return what is to be remembered of the rows."""
        finite = np.isfinite(self.logits).all(axis=1)
        rows = (self.first + np.flatnonzero(~finite)).tolist()
        not_finite = [row for row in rows if row not in self.unreadable]
        return Record(self.first, len(finite), dict(sorted(self.unreadable.items())), not_finite, sha256)

    def table(self, features: Features) -> pa.Table:
        """Return the columns `embedding`, `logits` and `prediction`."""
        outputs = {
            columns.EMBEDDING: columns.vector_arrow(self.embedding),
            columns.LOGITS: columns.vector_arrow(self.logits),
            columns.PREDICTION: pa.array(self.logits.argmax(axis=1), pa.int64()),
        }
        return pa.table(outputs).cast(features.arrow_schema)


class Position(NamedTuple):
    """Where a stream stood between two shards, so that a run that goes on reads no row again before that."""

    shard: int
    """The next shard."""
    rows: int
    """Rows before it."""
    state: dict[str, Any]
    """What `IterableDataset.load_state_dict` takes."""


START = Position(0, 0, {})


def output_features(width: int, prediction: ClassLabel) -> Features:
    """Return the features of the columns that extraction adds, for embeddings of `width` entries."""
    return Features(
        {
            columns.EMBEDDING: columns.vector(width),
            columns.LOGITS: columns.vector(prediction.num_classes),
            columns.PREDICTION: prediction,
        }
    )


def marked(features: Features, made_by: dict[str, Any]) -> Features:
    """Return the features with the facts of the model that made the columns."""
    marks = (columns.EMBEDDING, columns.LOGITS)
    return Features(
        {name: columns.with_facts(each, **made_by) if name in marks else each for name, each in features.items()}
    )


@dataclass(frozen=True)
class ShardFolder:
    """The shards of one extraction, some of them finished."""

    folder: Path
    features: Features

    def write(self, shard: Shard) -> None:
        """Write the table, then the record: a process killed in between leaves an unfinished shard, no false one."""
        table, record = shard_paths(self.folder, shard.number)
        sha256 = write_atomically(table, _stream_bytes(shard.table(self.features)))
        write_atomically(record, to_json(asdict(shard.record(sha256)), indent=1))

    def write_position(self, position: Position) -> None:
        """Remember where the stream stands after the shard before `position`."""
        write_atomically(self._position_path(position.shard - 1), to_json(position._asdict()))

    def is_finished(self, number: int) -> bool:
        """Whether the shard is there and its table is what was written."""
        try:
            verified(self.folder, number)
        except (FileNotFoundError, DamagedFileError):
            return False
        return True

    def last_position(self) -> Position:
        """Return the furthest position before which all shards are finished; the start if there is none."""
        found, number = START, 0
        while self.is_finished(number):
            path = self._position_path(number)
            if path.is_file():
                what, remedy = "position of a stream", "delete it: rows are then read again, and nothing is lost"
                with intact(path, what, remedy):
                    found = from_json(Position, read_json(path, what, remedy))
            number += 1
        return found

    def records(self, count: int, *, all_here: bool = True) -> dict[int, Record]:
        """Return the records of shards 0 to `count - 1` by number: all, or those of them that lie here."""
        paths = {number: shard_paths(self.folder, number)[1] for number in range(count)}
        missing = [path for path in paths.values() if not path.is_file()]
        if missing and all_here:
            raise FileNotFoundError(f"{missing[0]} is missing: all processes must share one `output_dir`; {AGAIN}")
        return {number: _read_record(path) for number, path in paths.items() if path not in missing}

    def columns(self, records: Mapping[int, Record]) -> Dataset:
        """Return the shards with these records, in order, as one memory-mapped dataset."""
        if not records:
            return Dataset.from_dict({}, features=self.features)
        return concatenate_datasets([_mapped(self.folder, number, record) for number, record in records.items()])

    def clear(self) -> None:
        """Delete the shards, finished or not, and nothing else."""
        for path in self.folder.glob("shard-*"):
            path.unlink()

    def _position_path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.position"


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Return where the table of a shard lies, and its record."""
    stem = folder / f"shard-{number:06d}"
    return stem.with_suffix(".arrow"), stem.with_suffix(".json")


def verified(folder: Path, number: int) -> Record:
    """Return the record of a finished shard whose table is what was written: every byte of it is read.

    Raises:
        FileNotFoundError: if table or record is missing.
        DamagedFileError: if either was changed or cut short; the message names the file.
    """
    table, path = shard_paths(folder, number)
    for wanted in (path, table):
        if not wanted.is_file():
            raise FileNotFoundError(f"{wanted} is missing; {AGAIN}")
    record = _read_record(path)
    if sha256_of(table) != record.sha256:
        raise DamagedFileError(f"{table} is not what was written (its checksum is another); delete it, and {AGAIN}")
    return record


def unreadable_rows(records: Iterable[Record]) -> dict[int, str]:
    """Return row number -> reason over the records of all shards."""
    return {row: reason for record in records for row, reason in record.unreadable.items()}


def without_unreadable(ds: Dataset, records: Iterable[Record]) -> Dataset:
    """Return the rows of some shards, which `ds` holds one after the other, without those that cannot be read."""
    records = list(records)
    dropped = np.fromiter(unreadable_rows(records), np.int64)
    if not dropped.size:
        return ds
    numbers = np.concatenate([np.asarray(record.numbers) for record in records])
    return ds.select(np.flatnonzero(~np.isin(numbers, dropped)))


def read_shards(folder: str | Path, ds: Dataset | None = None) -> Dataset:
    """Return the columns that `extract` wrote to the `output_dir` `folder`, memory-mapped, without unreadable rows.

    Args:
        folder: the `output_dir` of a finished extraction.
        ds: the dataset that was extracted: its `label` is put beside the outputs, as class-relative bands need it.

    Raises:
        FileNotFoundError: if the folder has no finished shard, or lacks some.
        ValueError: if `ds` has another number of rows than the shards, or a file is not what was written.
    """
    folder = Path(folder)
    records = _all_records(folder)
    whole = concatenate_datasets([_mapped(folder, number, record) for number, record in enumerate(records)])
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder / MANIFEST, AGAIN)
        wanted = manifest.key.get("rows")  # of a stream, nobody knows how many
        if wanted is not None and len(whole) != wanted:
            raise FileNotFoundError(
                f"{folder} holds {len(whole)} of {wanted} rows: the extraction there is not finished; {AGAIN}"
            )
        whole = columns.beside(whole, whole, marked(whole.features, manifest.made_by))
    if ds is not None:
        columns.class_label(ds.features)
        if len(ds) != len(whole):
            raise ValueError(f"the shards in {folder} hold {len(whole)} rows but the dataset has {len(ds)}")
        whole = concatenate_datasets([whole, ds.select_columns([columns.LABEL])], axis=1)
    return without_unreadable(whole, records)


def merge_shards(folders: Sequence[str | PathLike[str]], output_dir: str | PathLike[str]) -> Path:
    """Bring the shards of one extraction that lie in several folders into one, and return it.

    Each of several nodes without a shared disk runs `extract(..., output_dir=its_own, shared=False)`; its folder is
    then copied to one machine. There `extract(..., output_dir=merged)` with the same arguments finds all shards done
    and returns the dataset, and `read_shards(merged)` the columns alone. Files are linked where they can be.

    Args:
        folders: the folders of the nodes, all of the same run; a shard may lie in several.
        output_dir: the folder to make, or an earlier, unfinished merge of the same run.

    Raises:
        DamagedFileError: if a shard is not what was written.
        FileNotFoundError: if a shard is in none of the folders, or a folder has no manifest.
        ValueError: if the folders hold different runs, or there are none.
    """
    places, target = [Path(folder) for folder in folders], Path(output_dir)
    if not places:
        raise ValueError("there are no folders to merge; give those that `extract(..., shared=False)` wrote")
    key = _common_key(places)
    where: dict[int, Path] = {}
    for place in places:
        for record in sorted(place.glob("shard-*.json")):
            where.setdefault(int(record.stem.removeprefix("shard-")), place)
    _refuse_missing(where, key, places)
    with only_writer(target):
        if (target / MANIFEST).is_file():
            _common_key([places[0], target])
        there = ShardFolder(target, Features())
        for number, place in sorted(where.items()):
            if not there.is_finished(number):
                verified(place, number)
                for source, copy in zip(shard_paths(place, number), shard_paths(target, number), strict=True):
                    _link(source, copy)
        _link(places[0] / MANIFEST, target / MANIFEST)
    return target


def _read_record(path: Path) -> Record:
    what, remedy = "record of a shard", f"delete it, and {AGAIN}"
    with intact(path, what, remedy):
        return from_json(Record, read_json(path, what, remedy))


def _mapped(folder: Path, number: int, record: Record) -> Dataset:
    """Return a shard memory-mapped; `datasets` knows it by its checksum, wherever it lies and whenever it was made."""
    table = MemoryMappedTable.from_file(str(shard_paths(folder, number)[0]))
    return Dataset(table, fingerprint=record.sha256[:16])


def _all_records(folder: Path) -> list[Record]:
    paths = sorted(folder.glob("shard-*.json"))
    numbers = [int(number) for path in paths if (number := path.stem.removeprefix("shard-")).isdecimal()]
    if not numbers or numbers != list(range(len(numbers))):
        missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
        raise FileNotFoundError(
            f"{folder} has no finished shard {missing[0]}; `extract(..., output_dir=...)` writes shards, and run "
            "again with the same arguments it computes those that are missing"
        )
    return [verified(folder, number) for number in numbers]


def _common_key(places: Sequence[Path]) -> dict[str, Any]:
    for place in places:
        if not (place / MANIFEST).is_file():
            raise FileNotFoundError(f"{place} has no {MANIFEST}; `extract(..., shared=False)` writes one")
    first, *others = [read_manifest(place / MANIFEST).key for place in places]
    for place, other in zip(places[1:], others, strict=True):
        changes = differences(first, other)
        if changes:
            raise ValueError(f"{places[0]} and {place} hold different extractions ({changes}); merge those of one run")
    return first


def _refuse_missing(where: dict[int, Path], key: dict[str, Any], places: Sequence[Path]) -> None:
    shards = -(-key["rows"] // key["shard_size"]) if key.get("rows") else max(where, default=0) + 1
    missing = sorted(set(range(shards)) - set(where))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {shards} shards, the first number {missing[0]}, are in none of "
            f"{', '.join(map(str, places))}; run the extraction again on the node that was to compute them, with the "
            "same arguments, or add its folder"
        )


def _link(source: Path, copy: Path) -> None:
    """Make `copy` the same file as `source`, or a copy of it on another disk; it is there whole or not at all."""
    draft = copy.with_name(f"{copy.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except OSError:
        shutil.copyfile(source, draft)
    draft.replace(copy)


def _stream_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
