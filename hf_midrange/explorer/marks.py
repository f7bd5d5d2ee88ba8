"""Marks that a reader gives to rows, the curated data set that they make, and where it goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value

from hf_midrange import columns
from hf_midrange.io.datasets import write_dataset
from hf_midrange.io.folders import new_folder


UNMARKED, KEPT = "none", "keep"
LEFT_OUT_BY_HAND = ("drop", "mislabelled")
"""What a reader marks rows as that are to weigh nothing."""
MARKS = (UNMARKED, KEPT, *LEFT_OUT_BY_HAND)
_BEFORE = "; before: "


class Marks(dict[int, str]):
    """Marks by row, the last given ones last, which all pages of one explorer share.

    Gradio gives each page that is opened a deep copy of what it starts with. Were these copies apart, two open pages
    would overwrite each other's export, and a page that is loaded again would have lost its marks.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Marks:
        return self

    def give(self, row: int, mark: str) -> None:
        """Give a row a mark, in place of the one it has."""
        self.pop(row, None)
        if mark != UNMARKED:
            self[row] = mark


def marks_in(ds: Dataset) -> dict[int, str]:
    """Return the marks of a data set edited before, by row; none where there is no `mark` column."""
    if columns.MARK not in ds.column_names:
        return {}
    names = columns.class_label(ds.features, columns.MARK).names
    ids = columns.labels(ds, columns.MARK)
    return {int(row): names[ids[row]] for row in np.flatnonzero(ids) if names[ids[row]] in MARKS}


def told(marks: Mapping[int, str]) -> str:
    """Return how many rows have which mark.

    >>> told({3: "drop", 5: "drop", 8: "keep"})
    '1 keep, 2 drop'
    """
    counts = {mark: sum(given == mark for given in marks.values()) for mark in MARKS[1:]}
    return ", ".join(f"{count} {mark}" for mark, count in counts.items() if count) or "no row"


def edited(ds: Dataset, marks: Mapping[int, str]) -> Dataset:
    """Return the curated rows with marks obeyed: columns `keep`, `weight` and, where there is one, `reason` change.

    A row marked `drop` or `mislabelled` is not kept and weighs nothing. One marked `keep` is kept; if it weighed
    nothing it weighs as much as the other rows of its label do on average. All others stay as they are. The marks are
    written into the column `mark`. The curation's report, which travels with the rows, still tells of the curation
    before the marks; the description of the data set tells of the marks.

    Args:
        ds: what `curate` returned, or rows with `label` alone, which then all count 1.
        marks: mark by row number, each of `MARKS`.

    Raises:
        ValueError: if a row is not there or a mark is none of `MARKS`.
    """
    _check(ds, marks)
    keep, weight = _curated(ds)
    given = np.zeros(len(ds), dtype=np.int64)
    for row, mark in marks.items():
        given[row] = MARKS.index(mark)
    usual = _usual_weights(columns.labels(ds), weight)
    out = np.isin(given, [MARKS.index(mark) for mark in LEFT_OUT_BY_HAND])
    revived = (given == MARKS.index(KEPT)) & (weight <= 0)
    weight = np.where(out, 0.0, np.where(revived, usual, weight))
    keep = (keep & ~out) | (given == MARKS.index(KEPT))
    changed = {
        columns.KEEP: (keep, Value("bool")),
        columns.WEIGHT: (weight.astype(np.float32), Value("float32")),
        columns.MARK: (given, ClassLabel(names=list(MARKS))),
    }
    if columns.REASON in ds.column_names:
        changed[columns.REASON] = (_reasons(ds, marks), ds.features[columns.REASON])
    return columns.signed(columns.with_columns(ds, changed), "explore", f"marked by hand: {told(marks)}")


def _check(ds: Dataset, marks: Mapping[int, str]) -> None:
    for row, mark in marks.items():
        if not 0 <= row < len(ds):
            raise ValueError(f"row {row} is marked, but the data set has rows 0..{len(ds) - 1}")
        if mark not in MARKS:
            raise ValueError(f"row {row} is marked {mark!r}; marks are {', '.join(MARKS)}")


def _curated(ds: Dataset) -> tuple[np.ndarray, np.ndarray]:
    if columns.KEEP not in ds.column_names:
        return np.ones(len(ds), dtype=bool), np.ones(len(ds))
    columns.require(ds, columns.WEIGHT)
    return columns.numbers(ds, columns.KEEP) == 1, columns.numbers(ds, columns.WEIGHT)


def _usual_weights(ids: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return, for each row, the average weight of the rows of its label that weigh something; 1 where none does."""
    counted = weight > 0
    number = np.bincount(ids[counted], minlength=ids.max() + 1)
    total = np.bincount(ids[counted], weights=weight[counted], minlength=ids.max() + 1)
    return np.where(number > 0, total / np.maximum(number, 1), 1.0)[ids]


def _reasons(ds: Dataset, marks: Mapping[int, str]) -> list[str | None]:
    reasons: list[str | None] = list(ds[columns.REASON][:])
    for row, mark in marks.items():
        before = str(reasons[row] or "").split(_BEFORE)[-1]  # marked again: what the curation said is told once
        if mark != UNMARKED:
            reasons[row] = f"marked {mark} by hand{_BEFORE}{before}"
    return reasons


def in_space() -> bool:
    """Return whether this runs in a Space, whose page is for everyone and whose disk is nobody's."""
    return bool(os.environ.get("SPACE_ID"))


@dataclass(frozen=True, eq=False)
class Exports:
    """Where edited rows go.

    Attributes:
        ds: the rows before the marks.
        findings: what is published with them.
        folder: the folder to write; each export replaces the one before.
    """

    ds: Dataset
    findings: Dataset | None
    folder: Path

    def write(self, marks: Mapping[int, str]) -> str:
        """Write the edited rows, whole or not at all; return a sentence that says so.

        Raises:
            OSError, ValueError: if the folder cannot be written.
        """
        with new_folder(self.folder, overwrite=True) as new:
            write_dataset(edited(self.ds, marks), new.folder)
        return f"Wrote {len(self.ds)} rows to {self.folder} (marked: {told(marks)}); load_from_disk reads them."

    def publish(self, marks: Mapping[int, str], repo_id: str) -> str:
        """Publish the edited rows in a private repository; return a sentence that says so.

        Raises:
            PublishError: for what `publish_dataset` refuses.
        """
        from hf_midrange.publishing import publish_dataset

        done = publish_dataset(edited(self.ds, marks), repo_id.strip(), findings=self.findings)
        return f"Published privately: {done.commit_url}"

    def refuse_own_folder(self) -> None:
        """Raise `ValueError` if exports would overwrite the very files that the rows are read from."""
        read_from = {Path(str(file["filename"])).resolve().parent for file in self.ds.cache_files}
        if self.folder.resolve() in read_from:
            raise ValueError(
                f"{self.folder} holds the rows that are explored; choose another folder for what is exported"
            )

    @property
    def publishable(self) -> bool:
        """Whether the rows were curated: others have nothing to publish."""
        return columns.REASON in self.ds.column_names
