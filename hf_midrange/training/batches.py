"""From rows to batches: what a stock collator sees stays the same, and group and weight travel beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch

from hf_midrange.columns import GROUP, IMAGE, LABEL, PSEUDO_GROUP, TEXT, TEXT_PAIR, WEIGHT
from hf_midrange.extraction.faults import refuse_unreadable
from hf_midrange.extraction.inputs import Preparation


EXTRAS = (GROUP, PSEUDO_GROUP, WEIGHT)
"""Columns that belong to the trainer and never reach the model."""
LABEL_COLUMNS = ("labels", LABEL, "label_ids")
RAW = (IMAGE, TEXT, TEXT_PAIR)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Batches:
    """A collator around the trainer's own.

    Attributes:
        collate: the trainer's own collator.
        accepted: columns that it may see; None: all of them (`remove_unused_columns=False`).
        extras: columns of the trainer to add to each batch.
        prepare: makes model inputs of rows that have an image or text instead; None where all rows have inputs.
    """

    collate: Callable[[list[Any]], Any]
    accepted: frozenset[str] | None
    extras: tuple[str, ...] = ()
    prepare: Preparation | None = None

    def __call__(self, rows: list[Any]) -> Any:  # noqa: ANN401 - what the collator gives
        """Return the batch of some rows."""
        if not isinstance(rows[0], Mapping):
            return self.collate(rows)
        batch = self._raw(rows) if self.prepare is not None else self.collate([self._seen(row) for row in rows])
        if isinstance(batch, MutableMapping):
            for name in EXTRAS:
                batch.pop(name, None)
            # Without labels nothing is scored or weighed, and the model is called with the batch as it is.
            if any(name in batch for name in LABEL_COLUMNS):
                batch.update({name: _column(rows, name) for name in self.extras if name in rows[0]})
        return batch

    def _seen(self, row: Row) -> Row:
        return row if self.accepted is None else {name: row[name] for name in row if name in self.accepted}

    def _raw(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        assert self.prepare is not None
        names = [name for name in RAW if name in rows[0] and (name == IMAGE) == (self.prepare.modality == "image")]
        read = self.prepare(0, {name: [row[name] for row in rows] for name in names})
        if read.unreadable or read.inputs is None:
            refuse_unreadable(read.unreadable)
        batch: dict[str, torch.Tensor] = dict(read.inputs or {})
        label = next((name for name in LABEL_COLUMNS if name in rows[0]), None)
        if label is not None:
            batch["labels"] = torch.as_tensor([row[label] for row in rows])
        return batch


def _column(rows: list[Row], name: str) -> torch.Tensor:
    if name == WEIGHT:
        return torch.tensor([float(row[name]) for row in rows], dtype=torch.float32)
    return torch.tensor([-1 if row[name] is None else int(row[name]) for row in rows])
