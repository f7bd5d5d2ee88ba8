"""What dense sources share: a view column of named numbers, and a present/absent reading of each entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, Self, cast

import numpy as np
from datasets import Dataset
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.reading import halving_thresholds
from hf_midrange.concepts.source import Batch, Source, refuse_constant


class DenseSource(Source, Protocol):
    """A source that describes each row by a short vector with named entries: a side view of the data.

    `vocabulary` names the entries of `view_<name>`, in order. An entry is present in a row where its value is above a
    threshold, the one that halves the rows fitted on as evenly as ties allow. A class writes `view(batch)`, `inputs`,
    `check` and `vocabulary`, and has a field `thresholds`.
    """

    thresholds: tuple[float, ...]

    def view(self, batch: Batch) -> np.ndarray:
        """Return the description of each row, float32 of shape `(rows, len(vocabulary))`."""
        ...

    @property
    def view_column(self) -> str:
        """Return the name of the column of vectors."""
        return f"{columns.VIEW_PREFIX}{self.name}"

    @property
    def fitted(self) -> bool:
        """Return whether the thresholds are known."""
        return bool(self.thresholds)

    def measured(self) -> dict[str, Any]:
        """Return the feature of the view, which is kept."""
        return {self.view_column: columns.vector(len(self.vocabulary))}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the view."""
        return {self.view_column: self.view(batch)}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the thresholds of `ds`."""
        values = columns.matrix(ds, self.view_column)
        refuse_constant(self, int((values != values[0]).any(axis=0).sum()))
        return cast(Self, replace(cast(Any, self), thresholds=tuple(map(float, halving_thresholds(values)))))

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which entries of the view are above their thresholds."""
        values = np.asarray(batch[self.view_column], dtype=np.float32).reshape(-1, len(self.vocabulary))
        return sparse.csr_matrix(values > np.array(self.thresholds, dtype=np.float32))
