"""Rows that cannot be read, or whose logits are no numbers: named, counted, dropped only where the caller said so."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
from accelerate import PartialState
from datasets import Dataset


def refuse_unreadable(rows: Mapping[int, str]) -> None:
    """Raise `ValueError` naming the first of some unreadable rows."""
    row = min(rows)
    raise ValueError(f"row {row} cannot be read: {rows[row]}; repair it, or drop such rows with on_error='skip'")


def unreadable_rows(records: Iterable[Mapping]) -> dict[int, str]:
    """Return row number -> reason over the records of all shards."""
    return {int(row): reason for record in records for row, reason in record["unreadable"].items()}


def without_unreadable(dataset: Dataset, records: Iterable[Mapping]) -> Dataset:
    """Return the dataset without its unreadable rows."""
    dropped = np.fromiter(unreadable_rows(records), np.int64)
    return dataset.select(np.setdiff1d(np.arange(len(dataset)), dropped)) if dropped.size else dataset


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
