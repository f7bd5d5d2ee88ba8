"""Sources that describe each row by a short vector with named entries, and read each entry as present or absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import Source, refuse_constant


class ViewSource(Source):
    """A source that describes each row by a short vector with named entries: a side view of the data.

    `vocabulary` names the entries of `view_<name>`, in order. An entry is present in a row where its value is above a
    threshold, the one that halves the rows fitted on as evenly as ties allow. A class writes `view(batch)` and
    `vocabulary`, and has a field `thresholds`.
    """

    thresholds: tuple[float, ...]

    of_network: ClassVar[bool] = False
    """Whether a network made the view, which may then know more of the class than a view should."""

    names_meanings: ClassVar[bool] = False
    """Whether entries name meanings and may be the class itself: then it is no side view, but soft words."""

    def view(self, batch: Batch) -> np.ndarray:
        """Return the description of each row, float32 of shape `(rows, len(vocabulary))`."""
        raise NotImplementedError

    @property
    def view_column(self) -> str:
        """Return the name of the column of vectors."""
        return f"{columns.VIEW_PREFIX}{self.name}"

    @property
    def fitted(self) -> bool:
        """Return whether the thresholds are known."""
        return bool(self.thresholds)

    def measured(self) -> dict[str, Any]:
        """Return the feature of the view, which is kept and says what kind of a view it is."""
        facts = {"of_network": self.of_network, **({"vocabulary": True} if self.names_meanings else {})}
        return {self.view_column: columns.with_facts(columns.vector(len(self.vocabulary)), **facts)}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the view."""
        return {self.view_column: self.view(batch)}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the thresholds of `ds`."""
        values = columns.matrix(ds, self.view_column)
        refuse_constant(self, int((values != values[0]).any(axis=0).sum()))
        return replace(self, thresholds=tuple(map(float, halving_thresholds(values))))

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which entries of the view are above their thresholds."""
        values = np.asarray(batch[self.view_column], dtype=np.float32).reshape(-1, len(self.vocabulary))
        return sparse.csr_matrix(values > np.array(self.thresholds, dtype=np.float32))


def halving_thresholds(values: np.ndarray) -> np.ndarray:
    """Return for each column the threshold whose upper side is closest to half of the rows.

    It lies midway between two neighbouring values, so that rounding noise moves no row across it. A constant column
    gets its own value: nothing is above.

    Args:
        values: of shape `(n, m)`.

    Returns:
        float32 thresholds of shape `(m,)`; a value is present if it is greater.

    Examples:
        >>> halving_thresholds(np.array([[0, 1], [0, 1], [2, 1], [4, 1]], dtype=np.float32))
        array([1., 1.], dtype=float32)
    """
    return np.array([_halving(column) for column in np.asarray(values, dtype=np.float32).T], dtype=np.float32)


def _halving(column: np.ndarray) -> np.float32:
    ordered, counts = np.unique(column, return_counts=True)
    if len(ordered) == 1:
        return ordered[0]
    above = len(column) - np.cumsum(counts)[:-1]
    return between(ordered, int(np.argmin(np.abs(above - len(column) / 2))))


def between(ordered: np.ndarray, i: int) -> np.float32:
    """Return the float32 midway between `ordered[i]` and `ordered[i + 1]`, never the upper one itself."""
    low, high = ordered[i], ordered[i + 1]
    middle = np.float32(low + (high - low) / 2)
    return middle if middle < high else np.float32(low)
