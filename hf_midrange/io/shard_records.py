"""The record beside each shard that `extract` writes: what it holds, and the checksum of its table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.table import MemoryMappedTable

from hf_midrange.io.files import DamagedFileError, from_json, intact, read_json, sha256_of


AGAIN = "run the extraction again with the same arguments: it computes what is missing and nothing else"

TABLE = "sha256"
"""Key of the table's checksum in a record."""


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Return where the table of a shard lies, and its record."""
    stem = folder / f"shard-{number:06d}"
    return stem.with_suffix(".arrow"), stem.with_suffix(".json")


def read_record(path: Path) -> dict[str, Any]:
    """Return a finished shard's record: `first`, `rows`, `unreadable`, `not_finite`, and the table's checksum.

    Raises:
        DamagedFileError: if the file is not what was written.
    """
    what, remedy = "record of a shard", f"delete it, and {AGAIN}"
    record = read_json(path, what, remedy)
    kinds: dict[str, Any] = {
        "first": int, "rows": int, "not_finite": list[int], "unreadable": dict[str, str], TABLE: str
    }  # fmt: skip
    with intact(path, what, remedy):
        checked = {name: from_json(kind, record[name], name) for name, kind in kinds.items()}
        [int(row) for row in checked["unreadable"]]
    return checked


def mapped(folder: Path, number: int, record: Mapping[str, Any]) -> Dataset:
    """Return a shard memory-mapped; `datasets` knows it by its checksum, wherever it lies and whenever it was made."""
    table = MemoryMappedTable.from_file(str(shard_paths(folder, number)[0]))
    return Dataset(table, fingerprint=record[TABLE][:16])


def verified(folder: Path, number: int) -> dict[str, Any]:
    """Return the record of a finished shard whose table is what was written: every byte of it is read.

    Raises:
        FileNotFoundError: if table or record is missing.
        DamagedFileError: if either was changed or cut short; the message names the file.
    """
    table, path = shard_paths(folder, number)
    for wanted in (path, table):
        if not wanted.is_file():
            raise FileNotFoundError(f"{wanted} is missing; {AGAIN}")
    record = read_record(path)
    if sha256_of(table) != record[TABLE]:
        raise DamagedFileError(f"{table} is not what was written (its checksum is another); delete it, and {AGAIN}")
    return record
