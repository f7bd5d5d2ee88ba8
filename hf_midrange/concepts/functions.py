"""Any function of the user's as a concept source: it takes a batch and gives a list of names per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from datasets import Dataset, List, Value
from scipy import sparse

from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import Source, name_table, refuse_constant


@dataclass(frozen=True)
class Names(Source):
    """The names that a function gives: `function(batch)` returns a list of names per row.

    It sees all columns: only the function knows what it reads. The vocabulary is every name met in the rows fitted on;
    other names met later are not reported. A function cannot be saved as JSON.

    Fails as the function does: if it gives other names for the same row when called again, or reads the label.

    Args:
        function: takes a dict of column name -> values of some rows.
        name: the column is `concepts_<name>`.
    """

    function: Callable[[Batch], Sequence[Sequence[str]]]
    name: str
    left_out: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    version: int = 1

    @classmethod
    def of(cls, function: Any) -> Self:  # noqa: ANN401 - what a user passes may be anything
        """Return the source of a plain function, called by the function's own name."""
        name = getattr(function, "__name__", "")
        if not callable(function) or isinstance(function, type):
            raise TypeError(
                f"a concept source must be a source such as `NGrams('text')`, or a function from a batch to a list of "
                f"names per row, but {function!r} is a {type(function).__name__}"
            )
        if not name.isidentifier():
            raise ValueError(f"{function!r} has no name to call its column by; define it with `def name(batch)`")
        return cls(function, name)

    def measured(self) -> dict[str, Any]:
        """Return the working column of names."""
        return {f"_names_{self.name}": List(Value("string"))}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the names per row, checked."""
        given = self.function(batch)
        rows = len(next(iter(batch.values())))
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray) or len(given) != rows:
            raise ValueError(
                f"function {self.name!r} must give one list of names for each of {rows} rows, not {str(given)[:200]}"
            )
        for i, names in enumerate(given):
            if isinstance(names, str) or not all(isinstance(word, str) for word in names):
                raise TypeError(
                    f"function {self.name!r} must give a list of strings per row, not {names!r} (row {i} of a batch)"
                )
        return {f"_names_{self.name}": [list(names) for names in given]}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with every name met."""
        rows = Counter(word for names in ds[f"_names_{self.name}"] for word in set(names))
        refuse_constant(self, sum(count < len(ds) for count in rows.values()))
        return replace(self, words=tuple(sorted(rows)))

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which names each row has."""
        return name_table(batch[f"_names_{self.name}"], self.words)
