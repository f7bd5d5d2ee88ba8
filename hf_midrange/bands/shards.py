"""The outputs of `extract(output_dir=...)` read where they lie, as one memory-mapped dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from hf_midrange import columns
from hf_midrange.shard_records import shard_paths, verified


def read_shards(folder: str | Path, ds: Dataset | None = None) -> Dataset:
    """Return the columns that `extract` wrote to the `output_dir` `folder`, memory-mapped, without unreadable rows.

    Args:
        folder: the `output_dir` of a finished extraction.
        ds: the dataset that was extracted: its `label` is put beside the outputs, as class-relative bands need it.

    Raises:
        FileNotFoundError: if the folder has no finished shard, or one before the last is missing.
        ValueError: if `ds` has another number of rows than the shards, or a file is not what was written.
    """
    records = _records(Path(folder))
    shards = [Dataset.from_file(str(shard_paths(Path(folder), number)[0])) for number in range(len(records))]
    whole = concatenate_datasets(shards)
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
    return [verified(folder, number) for number in numbers]
