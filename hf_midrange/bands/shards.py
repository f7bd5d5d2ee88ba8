"""The outputs of `extract(output_dir=...)` read where they lie, as one memory-mapped dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from hf_midrange import columns
from hf_midrange.io.files import from_json, intact, read_json
from hf_midrange.io.shard_records import AGAIN, mapped, verified


def read_shards(folder: str | Path, ds: Dataset | None = None) -> Dataset:
    """Return the columns that `extract` wrote to the `output_dir` `folder`, memory-mapped, without unreadable rows.

    Args:
        folder: the `output_dir` of a finished extraction.
        ds: the dataset that was extracted: its `label` is put beside the outputs, as class-relative bands need it.

    Raises:
        FileNotFoundError: if the folder has no finished shard, or lacks some.
        ValueError: if `ds` has another number of rows than the shards, or a file is not what was written.
    """
    records = _records(Path(folder))
    whole = concatenate_datasets([mapped(Path(folder), number, record) for number, record in enumerate(records)])
    if ds is not None:
        columns.class_label(ds.features)
        if len(ds) != len(whole):
            raise ValueError(f"the shards in {folder} hold {len(whole)} rows but the dataset has {len(ds)}")
        whole = concatenate_datasets([whole, ds.select_columns([columns.LABEL])], axis=1)
    unreadable = [int(row) for record in records for row in record["unreadable"]]
    return whole.select(np.setdiff1d(np.arange(len(whole)), unreadable)) if unreadable else whole


def _records(folder: Path) -> list[dict]:
    paths = sorted(folder.glob("shard-*.json"))
    numbers = [int(number) for path in paths if (number := path.stem.removeprefix("shard-")).isdecimal()]
    if not numbers or numbers != list(range(len(numbers))):
        missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
        raise FileNotFoundError(
            f"{folder} has no finished shard {missing[0]}; `extract(..., output_dir=...)` writes shards, and run "
            "again with the same arguments it computes those that are missing"
        )
    records = [verified(folder, number) for number in numbers]
    _refuse_unfinished(folder, sum(record["rows"] for record in records))
    return records


def _refuse_unfinished(folder: Path, rows: int) -> None:
    """Raise if the extraction was to have more rows; of a stream, nobody knows how many."""
    path, what = folder / "manifest.json", "manifest of an extraction"
    if not path.is_file():
        return
    with intact(path, what, AGAIN):
        key = from_json(dict[str, Any], read_json(path, what, AGAIN)["key"], "key")
        wanted = from_json(int | None, key["rows"], "rows")
    if wanted is not None and rows != wanted:
        raise FileNotFoundError(
            f"{folder} holds {rows} of {wanted} rows: the extraction there is not finished; {AGAIN}"
        )
