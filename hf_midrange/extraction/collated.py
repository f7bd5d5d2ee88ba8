"""Rows that are model inputs already: tokenised texts, pixel values, or what a dataset's own transform makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features

from hf_midrange.extraction.batch import Batch


NOT_INPUTS = ("labels", "label", "label_ids")


@dataclass(frozen=True)
class Collated:
    """Model inputs of the rows of a dataset, batched by a collator; given to `extract` in place of a processor.

    Attributes:
        rows: as many rows as the dataset to be extracted, in the same order, read in their own format: with its
            transform, if `set_transform` gave it one.
        collate: makes model inputs of a list of rows, as the collator of a Trainer.
    """

    rows: Dataset
    collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]]

    def columns(self, features: Features) -> list[str]:
        """Return the columns read of the dataset to be extracted: none, as `rows` has them."""
        return []

    def view(self, dataset: Dataset) -> Dataset:
        """Return `rows`, refusing a dataset of another length."""
        if len(dataset) != len(self.rows):
            raise ValueError(f"there are model inputs of {len(self.rows)} rows for a dataset of {len(dataset)}")
        return self.rows

    def __call__(self, first_row: int, values: Mapping[str, Sequence[Any]]) -> Batch:
        """Collate rows `first_row`, `first_row + 1`, ... given as columns."""
        count = len(next(iter(values.values())))
        batch = self.collate([{name: column[i] for name, column in values.items()} for i in range(count)])
        inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
        odd = [name for name, value in inputs.items() if not isinstance(value, torch.Tensor)]
        if odd or not inputs:
            raise TypeError(f"the collator must make a dictionary of tensors, but {odd or 'it'} is none")
        return Batch(first_row, count, np.arange(first_row, first_row + count), inputs)

    def key(self) -> str:
        """Return a text that changes when the rows or the name of the collator change."""
        name = getattr(self.collate, "__qualname__", type(self.collate).__qualname__)
        return f"collated {self.rows._fingerprint} {name}"
