"""Tables in the layout of somebody else: read, checked against what is expected, made into splits."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, load_dataset
from pyarrow import csv as arrow_csv


SPLITS = ("train", "validation", "test")
"""By the codes 0, 1 and 2 that the original files give them."""

_SPLIT_NAMES = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}


def file_in(folder: Path, *names: str) -> Path:
    """Return the first of the files `names` that is in the folder.

    Raises:
        FileNotFoundError: if none is; the message says what the folder holds.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    held = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else "no folder"
    raise FileNotFoundError(f"{folder} must hold {' or '.join(names)}; found: {held}")


def read_csv(path: Path, wanted: Sequence[str]) -> pa.Table:
    """Return columns of a CSV file whose cells may hold line breaks.

    Raises:
        ValueError: if a column is missing, which is named, or the file cannot be parsed.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file), [])
    missing = [name for name in wanted if name not in header]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; its first line is {header[:12]}")
    try:
        return arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(include_columns=list(wanted), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error


def codes(values: Any, allowed: int, what: str) -> np.ndarray:  # noqa: ANN401 - an arrow or numpy column
    """Return whole numbers from 0 to below `allowed`, `(n,)` int64.

    Raises:
        ValueError: for any other value; the first row of it is named.
    """
    try:
        found = np.asarray(values).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{what} must hold numbers: {error}") from error
    bad = np.flatnonzero(~np.isin(found, np.arange(allowed)))
    if bad.size:
        raise ValueError(f"{what} must hold 0 to {allowed - 1}, but is {found[bad[0]]} in row {bad[0]}")
    return found.astype(np.int64)


def split_codes(names: Sequence[str], what: str) -> np.ndarray:
    """Return the codes of splits that are given by name."""
    unknown = sorted({name for name in names if name not in _SPLIT_NAMES})
    if unknown:
        raise ValueError(f"{what} must hold train, val and test, but holds {unknown[:5]} too")
    return np.array([_SPLIT_NAMES[name] for name in names])


def splits_of(values: Mapping[str, Any], features: Features, split: np.ndarray) -> DatasetDict:
    """Return the rows of each split, in the order of the file.

    Raises:
        ValueError: if a split has no row.
    """
    parts = {}
    for code, name in enumerate(SPLITS):
        rows = np.flatnonzero(split == code)
        if not rows.size:
            raise ValueError(f"the {name} split (code {code}) has no row; the codes found are {np.unique(split)}")
        part = {key: [column[i] for i in rows] for key, column in values.items()}
        parts[name] = Dataset.from_dict(part, features=features)
    return DatasetDict(parts)


def grouped(classes: Sequence[str], attributes: Sequence[str], joint: str) -> ClassLabel:
    """Return the feature of groups class x attribute; the id is class times number of attributes plus attribute."""
    return ClassLabel(names=[f"{name} {joint} {attribute}" for name in classes for attribute in attributes])


def hub_splits(source: str | DatasetDict, wanted: Sequence[str]) -> DatasetDict:
    """Return the splits train, validation and test of a Hub dataset.

    Args:
        source: its id, or what `load_dataset` gave.
        wanted: columns that must be there.

    Raises:
        ValueError: if a split or column is missing; what was found is listed.
    """
    data = load_dataset(source) if isinstance(source, str) else source
    found = {SPLITS[_SPLIT_NAMES[name]]: part for name, part in data.items() if name in _SPLIT_NAMES}
    if set(found) != set(SPLITS):
        raise ValueError(f"the Hub dataset must have the splits {', '.join(SPLITS)}; it has {', '.join(data)}")
    for name, part in found.items():
        require(part, wanted, name)
    return DatasetDict({name: found[name] for name in SPLITS})


def require(part: Dataset, wanted: Sequence[str], split: str) -> None:
    """Raise `ValueError` if a split lacks a column; what it has is listed."""
    missing = [name for name in wanted if name not in part.column_names]
    if missing:
        raise ValueError(f"the Hub dataset's split {split!r} lacks {missing}; it has {part.column_names}")
