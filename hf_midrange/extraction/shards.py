"""A folder of shards: what extraction keeps on disk, goes on from, reads back and merges.

The shard of rows is the unit of work: computed by one process, written whole or not at all, never computed twice. For
shard 7 a folder holds the table `shard-000007.arrow` and, written after it, the record `shard-000007.json`, which says
that the shard is finished, which rows it holds, the checksum of the table, and where a stream stood after it. The
manifest says what the shards were made from: a run that differs in anything that changes the numbers is refused.
Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Image, IterableDataset, Value, concatenate_datasets
from datasets.table import MemoryMappedTable

from hf_midrange import columns
from hf_midrange.extraction.output_kinds import Classes, predictions
from hf_midrange.io.files import DamagedFileError, from_json, intact, read_json, sha256_of, to_json, write_atomically
from hf_midrange.io.folders import only_writer


MANIFEST = "manifest.json"
FORMAT = 2
"""Raised when the arithmetic or the files of extraction change, so that old shards are not mixed with new ones."""

AGAIN = "run the extraction again with the same arguments: it computes what is missing and nothing else"
ELSEWHERE = "give another `output_dir`, or `overwrite=True` to start again there"


@dataclass(frozen=True)
class Manifest:
    """What a run was made from.

    Attributes:
        key: everything that changes the numbers.
        made_by: facts of the model, for the features of the columns.
        versions: of the libraries, for the reader.
    """

    key: dict[str, Any]
    made_by: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What is to be remembered of a finished shard.

    Attributes:
        first: number of its first row.
        rows: how many rows it has.
        unreadable: row number -> what is wrong with it; such rows hold NaN.
        not_finite: other rows whose logits are NaN or infinite.
        sha256: checksum of the table; empty for a shard that is in memory only.
        position: where a stream stood after the shard, as `IterableDataset.load_state_dict` takes it.
    """

    first: int
    rows: int
    unreadable: dict[int, str]
    not_finite: list[int]
    sha256: str = ""
    position: dict[str, Any] | None = None

    @property
    def numbers(self) -> range:
        """Numbers of the rows."""
        return range(self.first, self.first + self.rows)


class Rows(Protocol):
    """What can be written as a shard."""

    @property
    def number(self) -> int:
        """Number of the shard."""

    def record(self) -> Record:
        """Return what is to be remembered of the rows."""

    def table(self, features: Features) -> pa.Table:
        """Return the columns."""


class Shard(NamedTuple):
    """Consecutive rows with their outputs; unreadable rows hold NaN until they are dropped from the result."""

    number: int
    first: int
    embedding: np.ndarray
    logits: np.ndarray
    unreadable: dict[int, str]

    def record(self) -> Record:
        """Return what is to be remembered of the rows."""
        finite = np.isfinite(self.logits).all(axis=1)
        rows = (self.first + np.flatnonzero(~finite)).tolist()
        not_finite = [row for row in rows if row not in self.unreadable]
        return Record(self.first, len(finite), dict(sorted(self.unreadable.items())), not_finite)

    def table(self, features: Features) -> pa.Table:
        """Return the columns `embedding`, `logits` and `prediction`."""
        logits = self.logits
        if isinstance(features[columns.PREDICTION], Value):  # a number comes as two mirrored halves of it
            logits = logits[:, 1:] - logits[:, :1]
        outputs = {
            columns.EMBEDDING: columns.vector_arrow(self.embedding),
            columns.LOGITS: columns.vector_arrow(logits),
            columns.PREDICTION: predictions(logits, features[columns.PREDICTION]),
        }
        return pa.table(outputs).cast(features.arrow_schema)


class Start(NamedTuple):
    """Where reading a stream begins: before shard `shard`, after so many `rows`, in this state."""

    shard: int = 0
    rows: int = 0
    state: dict[str, Any] | None = None


def output_features(width: int, classes: Classes) -> Features:
    """Return the features of the columns that extraction adds, for embeddings of `width` entries."""
    return Features(
        {
            columns.EMBEDDING: columns.vector(width),
            columns.LOGITS: columns.vector(classes.size),
            columns.PREDICTION: classes.prediction,
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

    def write(self, shard: Rows, position: dict[str, Any] | None = None) -> None:
        """Write the table, then the record: a process killed in between leaves an unfinished shard, no false one."""
        table, record = shard_paths(self.folder, shard.number)
        sink = pa.BufferOutputStream()
        rows = shard.table(self.features)
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        sha256 = write_atomically(table, sink.getvalue().to_pybytes())
        facts = replace(shard.record(), sha256=sha256, position=position)
        write_atomically(record, to_json(asdict(facts), indent=1))

    def is_finished(self, number: int) -> bool:
        """Whether the shard is there and its table is what was written."""
        try:
            verified(self.folder, number)
        except (FileNotFoundError, DamagedFileError):
            return False
        return True

    def last_position(self) -> Start:
        """Return the furthest place in a stream before which all shards are finished; its start if there is none."""
        found, number = Start(), 0
        while self.is_finished(number):
            record = _read_record(shard_paths(self.folder, number)[1])
            number += 1
            if record.position is not None:
                found = Start(number, record.first + record.rows, record.position)
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

    def claim(self, key: Mapping[str, Any], made_by: dict[str, Any], *, is_main: bool) -> None:
        """Take the folder for the run described by `key`, or find that it is that run's already.

        Raises:
            ValueError: if the folder holds another run; the message says what differs and what to do.
        """
        path = self.folder / MANIFEST
        wanted = json.loads(json.dumps({"format": FORMAT, **key}))
        if path.is_file():
            changes = _differences(read_manifest(path).key, wanted)
            if changes:
                raise ValueError(
                    f"{self.folder} holds the extraction of another run ({changes}); give another `output_dir`, "
                    "or `overwrite=True` to delete its shards and start again"
                )
        elif is_main:
            versions = {name: version(name) for name in ("torch", "transformers", "timm", "datasets")}
            write_atomically(path, to_json(asdict(Manifest(wanted, made_by, versions)), indent=1))

    def clear(self) -> None:
        """Delete the shards, finished or not, and the manifest, and nothing else."""
        for path in (*self.folder.glob("shard-*"), self.folder / MANIFEST):
            path.unlink(missing_ok=True)


def read_manifest(path: Path, remedy: str = ELSEWHERE) -> Manifest:
    """Return what a folder of shards was made from.

    Raises:
        DamagedFileError: if the file is no manifest; the message ends with `remedy`.
    """
    what = "manifest of an extraction"
    with intact(path, what, remedy):
        return from_json(Manifest, read_json(path, what, remedy))


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
    numbers = _numbers(folder)
    missing = set(range(max(numbers, default=0) + 1)) - set(numbers)
    if missing:
        raise FileNotFoundError(
            f"{folder} has no finished shard {min(missing)}; `extract(..., output_dir=...)` writes shards, and run "
            "again with the same arguments it computes those that are missing"
        )
    records = {number: verified(folder, number) for number in numbers}
    whole = ShardFolder(folder, Features()).columns(records)
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
    return without_unreadable(whole, records.values())


def merge_shards(folders: Sequence[str | PathLike[str]], output_dir: str | PathLike[str]) -> Path:
    """Bring the shards of one extraction that lie in several folders into one, and return it.

    Each of several nodes without a shared disk runs `extract(..., output_dir=its_own, shared=False)`; its folder is
    then copied to one machine. There `extract(..., output_dir=merged)` with the same arguments finds all shards done
    and returns the dataset, and `read_shards(merged)` the columns alone.

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
    where = {number: place for place in reversed(places) for number in _numbers(place)}
    shards = -(-key["rows"] // key["shard_size"]) if key.get("rows") else max(where, default=0) + 1
    missing = sorted(set(range(shards)) - set(where))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {shards} shards, the first number {missing[0]}, are in none of "
            f"{', '.join(map(str, places))}; run the extraction again on the node that was to compute them, with the "
            "same arguments, or add its folder"
        )
    with only_writer(target):
        if (target / MANIFEST).is_file():
            _common_key([places[0], target])
        there = ShardFolder(target, Features())
        for number, place in sorted(where.items()):
            if not there.is_finished(number):
                verified(place, number)
                for source, copy in zip(shard_paths(place, number), shard_paths(target, number), strict=True):
                    write_atomically(copy, source.read_bytes())
        write_atomically(target / MANIFEST, (places[0] / MANIFEST).read_bytes())
    return target


def data_key(dataset: Dataset | IterableDataset, names: list[str], shard_size: int, run_id: str | None) -> str:
    """Return what the rows are known by: the caller's name, the fingerprint, or for a stream its first shard.

    Image files that rows point to count with their size and the time of their last change.

    Args:
        dataset: the rows.
        names: of the columns that are read.
        shard_size: rows a shard.
        run_id: the caller's name for the rows, or None.
    """
    if run_id is not None:
        return f"run_id {run_id}"
    digest = hashlib.sha256(repr(dataset.features).encode())
    if isinstance(dataset, IterableDataset):
        for row in dataset.decode(False).select_columns(names).take(shard_size):
            for value in row.values():
                digest.update(_content(value))
        return f"first shard {digest.hexdigest()}"
    outside = [path for name in names if isinstance(dataset.features[name], Image) for path in _paths(dataset, name)]
    for path in outside:
        digest.update(_file_state(path))
    return f"fingerprint {dataset._fingerprint}{f', files {digest.hexdigest()[:16]}' if outside else ''}"


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the shards in a folder that have a record, in order."""
    found = (path.stem.removeprefix("shard-") for path in folder.glob("shard-*.json"))
    return sorted(int(number) for number in found if number.isdecimal())


def _read_record(path: Path) -> Record:
    what, remedy = "record of a shard", f"delete it, and {AGAIN}"
    with intact(path, what, remedy):
        return from_json(Record, read_json(path, what, remedy))


def _mapped(folder: Path, number: int, record: Record) -> Dataset:
    """Return a shard memory-mapped; `datasets` knows it by its checksum, wherever it lies and whenever it was made."""
    table = MemoryMappedTable.from_file(str(shard_paths(folder, number)[0]))
    return Dataset(table, fingerprint=record.sha256[:16])


def _common_key(places: Sequence[Path]) -> dict[str, Any]:
    for place in places:
        if not (place / MANIFEST).is_file():
            raise FileNotFoundError(f"{place} has no {MANIFEST}; `extract(..., shared=False)` writes one")
    first, *others = [read_manifest(place / MANIFEST).key for place in places]
    for place, other in zip(places[1:], others, strict=True):
        changes = _differences(first, other)
        if changes:
            raise ValueError(f"{places[0]} and {place} hold different extractions ({changes}); merge those of one run")
    return first


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in what the keys of two runs differ; nothing for the same run."""
    differing = [name for name in {**there, **now} if there.get(name) != now.get(name)]
    return "; ".join(f"{name}: {there.get(name)!r} there, {now.get(name)!r} now" for name in differing)


def _content(value: Any) -> bytes:  # noqa: ANN401 - an undecoded cell
    if not isinstance(value, Mapping):
        return repr(value).encode()
    return value.get("bytes") or _file_state(value.get("path"))


def _paths(dataset: Dataset, column: str) -> Iterator[str]:
    """Yield the paths of images whose bytes the dataset does not hold."""
    for table in dataset.with_format("arrow").select_columns([column]).iter(batch_size=10_000):
        cells = table[column].combine_chunks()
        held, paths = cells.field("bytes").is_valid().to_numpy(False), cells.field("path")
        yield from (path for path in paths.filter(~held).to_pylist() if path is not None)


def _file_state(path: str | None) -> bytes:
    """Return a path with the size and time of the file, where it is one of this machine."""
    try:
        found = os.stat(path or "")
    except (OSError, ValueError):
        return repr(path).encode()
    return f"{path!r} {found.st_size} {found.st_mtime_ns}".encode()
