"""Datasets on disk, as a command line names them: one reader, one writer, one guard of the output folder."""

from __future__ import annotations

import re
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk

from hf_midrange import columns


READERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

_SAVED_SPLITS, _SAVED_DATASET = "dataset_dict.json", "state.json"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_dataset(path: str, split: str | None = None) -> Dataset | DatasetDict:
    """Return the dataset that `path` names.

    `path` is, in this order: a folder written by `save_to_disk`, any other folder (read as an image folder, one
    sub-folder per class or a `metadata.csv`), a csv, json, jsonl or parquet file, or a Hub id. Files of rows know no
    class names, so a `label` or `group` column of theirs becomes a `ClassLabel` of the values that occur, sorted.

    Raises:
        FileNotFoundError: if nothing of the kind is found.
        ValueError: if a file is of another kind, or `split` is not among the splits.
    """
    place = Path(path)
    if place.is_dir():
        ds = _read_folder(place)
    elif place.is_file():
        ds = _read_file(place)
    else:
        ds = _read_hub(path)
    return ds if split is None else _pick(ds, split, path)


def one_split(ds: Dataset | DatasetDict, path: str) -> Dataset:
    """Return the only split of `ds`, or raise `ValueError` naming the splits to choose from."""
    if isinstance(ds, Dataset):
        return ds
    if len(ds) == 1:
        return next(iter(ds.values()))
    raise ValueError(f"{path} has the splits {', '.join(ds)}; choose one with --split")


def read_findings(folder: Path) -> Dataset:
    """Return the findings in a folder, as `associate` on the command line or `save_findings` wrote them."""
    from hf_midrange.association import load_findings

    if (folder / "findings.parquet").is_file():
        return load_findings(folder)
    return one_split(read_dataset(str(folder)), str(folder))


def claim_output(output: Path, source: str, overwrite: bool = False) -> None:
    """Refuse an `output` folder that must not be written, before any work is done.

    Raises:
        ValueError: if `output` is the source itself, is a file, or is a folder with something in it and `overwrite`
            is false.
    """
    if Path(source).exists() and output.resolve() == Path(source).resolve():
        raise ValueError(f"--output {output} is the dataset that is read; choose another folder")
    if output.is_file():
        raise ValueError(f"--output {output} is a file; give a folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise ValueError(f"--output {output} is not empty; choose another folder or add --overwrite")


def write_dataset(ds: Dataset | DatasetDict, output: Path) -> None:
    """Save `ds` in the folder `output`, so that `read_dataset` gives it back; nothing else there is deleted."""
    for marker in (_SAVED_SPLITS, _SAVED_DATASET):  # of an earlier dataset: both at once could not be told apart
        (output / marker).unlink(missing_ok=True)
    empty = isinstance(ds, Dataset) and len(ds) == 0  # such as findings; by itself it is saved without a file
    ds.save_to_disk(output, num_shards=1 if empty else None)


def _read_folder(folder: Path) -> Dataset | DatasetDict:
    if (folder / _SAVED_SPLITS).is_file() or (folder / _SAVED_DATASET).is_file():
        return load_from_disk(folder)
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"the folder {folder} is empty; a saved dataset or an image folder is wanted")
    splits = load_dataset("imagefolder", data_dir=str(folder))
    return splits["train"] if list(splits) == ["train"] else splits


def _read_file(file: Path) -> Dataset:
    if file.suffix not in READERS:
        raise ValueError(f"{file} ends in {file.suffix!r}; files of {', '.join(READERS)} can be read")
    return _encoded(load_dataset(READERS[file.suffix], data_files=str(file), split="train"))


def _read_hub(path: str) -> Dataset | DatasetDict:
    if not _HUB_ID.fullmatch(path):
        raise FileNotFoundError(f"there is no folder or file {path}")
    try:
        return load_dataset(path)
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{path} is no folder or file here, and as a Hub dataset it cannot be read: {error}"
        ) from error


def _encoded(ds: Dataset) -> Dataset:
    for name in (columns.LABEL, columns.GROUP):
        if name in ds.column_names and not isinstance(ds.features[name], ClassLabel):
            ds = ds.class_encode_column(name)
    return ds


def _pick(ds: Dataset | DatasetDict, split: str, path: str) -> Dataset:
    if isinstance(ds, Dataset):
        if str(ds.split) != split:
            raise ValueError(f"{path} is a dataset without splits; leave out --split {split}")
        return ds
    if split not in ds:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(ds)}")
    return ds[split]
