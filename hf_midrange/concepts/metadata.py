"""What a user brings along, as concepts: columns of metadata, and functions that give names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, List, Value
from scipy import sparse

from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import Source, id_table, name_table, refuse_constant, refuse_outside


MOST_BINS = 1000


@dataclass(frozen=True)
class Annotations(Source):
    """Columns of metadata: `concepts_annotations`.

    A bool column gives its own name where it is true; a `ClassLabel` or string column gives `column=value`; a number
    gives the quantile bin it lies in, as `column <= 3`, `3 < column <= 7`, `column > 7`, with edges from the rows
    fitted on (whole numbers with at most `bins` values give `column=value`). A null, and a string not met when
    fitting, gives nothing.

    Fails where what matters was not written down, or was written down wrongly or for some rows only: what was filled
    in by hand, by class, is found tied to the class.

    Args:
        columns: names of bool, `ClassLabel`, string, integer or float columns.
        bins: how many quantile bins a number is cut into.
        max_values: a string column with more values than this is refused: it is an identifier or a text.
        name: the column is `concepts_<name>`.

    Examples:
        >>> ds = Dataset.from_dict({"place": ["land", "water"], "night": [True, False]})
        >>> Annotations(["place", "night"]).fit(ds).vocabulary
        ('place=land', 'place=water', 'night')
    """

    reads_null: ClassVar[bool] = True  # a missing value is no concept

    columns: Sequence[str]
    bins: int = 4
    max_values: int = 1000
    name: str = "annotations"
    values: tuple[tuple[Any, ...], ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise TypeError(f"`columns` must be a list of column names; write Annotations([{self.columns!r}])")
        super().__post_init__()
        refuse_outside(2, MOST_BINS, bins=self.bins)
        object.__setattr__(self, "columns", tuple(self.columns))
        if self.values and (len(self.values) != len(self.columns) or not all(map(_is_known, self.values))):
            raise ValueError(f"`values` are not what `fit` learns of the columns {list(self.columns)}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the metadata columns."""
        return tuple(self.columns)

    @property
    def fitted(self) -> bool:
        """Return whether values and bin edges are known."""
        return bool(self.values)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names, column by column."""
        known = zip(self.columns, self.values, strict=bool(self.values))
        return tuple(name for column, values in known for name in _names(column, values))

    def check(self, features: Features, *, to_fit: bool = False) -> None:
        """Raise unless every column is a bool, a category, a string or a number."""
        if not self.columns:
            raise ValueError("annotations need at least one column")
        for column in self.columns:
            if column not in features:
                raise KeyError(f"source {self.name!r} reads column {column!r}, but the dataset has {list(features)}")
            if _kind(features[column]) is None:
                raise TypeError(
                    f"source {self.name!r} reads bool, ClassLabel, string, integer and float columns, but {column!r} "
                    f"is {features[column]}; images and texts have sources of their own (ImageProperties, NGrams)"
                )

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the values and bin edges met in `ds`."""
        values = tuple(self._known(ds, column) for column in self.columns)
        return replace(self, values=values)

    def _known(self, ds: Dataset, column: str) -> tuple[Any, ...]:
        kind, feature = _kind(ds.features[column]), ds.features[column]
        met = ds.select_columns([column]).with_format("arrow")[:][column].combine_chunks().drop_null()
        distinct = pa.chunked_array([met]).unique().to_pylist()
        if len(distinct) < 2:
            raise ValueError(
                f"column {column!r} has one value only ({distinct}) in the rows that source {self.name!r} is fitted "
                "on; leave it out, or fit on rows that differ"
            )
        if kind == "bool":
            return ("bool",)
        if kind == "category":
            return ("category", *feature.names)
        if kind == "string":
            return ("string", *self._few(column, sorted(distinct)))
        return _bins(np.asarray(met.to_numpy(zero_copy_only=False), dtype=np.float64), self.bins)

    def _few(self, column: str, distinct: list[str]) -> list[str]:
        if len(distinct) > self.max_values:
            raise ValueError(
                f"string column {column!r} has {len(distinct)} values, more than `max_values`={self.max_values}; "
                "if it is text use NGrams, if it is an identifier leave it out"
            )
        return distinct

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which names each row has."""
        tables = [
            id_table(
                [set() if code is None else {code} for code in _codes(known, batch[column])],
                len(_names(column, known)),
            )
            for column, known in zip(self.columns, self.values, strict=True)
        ]
        return sparse.csr_matrix(sparse.hstack(tables), dtype=bool)


def _kind(feature: Any) -> str | None:  # noqa: ANN401 - a datasets feature
    if isinstance(feature, ClassLabel):
        return "category"
    if not isinstance(feature, Value):
        return None
    if feature.dtype == "bool":
        return "bool"
    if feature.dtype in ("string", "large_string"):
        return "string"
    return "number" if feature.dtype.startswith(("int", "uint", "float")) else None


def _is_known(values: Sequence[Any]) -> bool:
    """Whether this is what is remembered of one column: its kind, then names, whole numbers or edges."""
    kinds = {"bool": str, "category": str, "string": str, "whole": int, "number": float}
    if not values or values[0] not in [*kinds] or values == ("number",):
        return False
    return all(isinstance(value, kinds[values[0]]) for value in values[1:])


def _bins(values: np.ndarray, bins: int) -> tuple[Any, ...]:
    values = values[np.isfinite(values)]
    distinct = np.unique(values)
    if len(distinct) <= bins and (distinct == np.round(distinct)).all():
        return ("whole", *map(int, distinct))
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="lower"))
    edges = edges[edges < distinct[-1]]
    return ("number", *map(float, edges if len(edges) else distinct[-2:-1]))


def _names(column: str, known: Sequence[Any]) -> list[str]:
    kind, *values = known
    if kind == "bool":
        return [column]
    if kind != "number":
        return [f"{column}={value}" for value in values]
    inner = [f"{low:.6g} < {column} <= {high:.6g}" for low, high in zip(values, values[1:], strict=False)]
    return [f"{column} <= {values[0]:.6g}", *inner, f"{column} > {values[-1]:.6g}"]


def _codes(known: Sequence[Any], cells: Sequence[Any]) -> list[int | None]:
    """Return which of a column's names each cell has; None where it is missing or was not met when fitting."""
    kind, *values = known
    there = [cell is not None and (isinstance(cell, str) or bool(np.isfinite(cell))) for cell in cells]
    if kind == "bool":
        return [0 if cell else None for cell in cells]
    if kind == "category":
        return [cell if known and 0 <= cell < len(values) else None for cell, known in zip(cells, there, strict=True)]
    if kind == "number":
        bins = np.searchsorted(values, [cell if known else 0 for cell, known in zip(cells, there, strict=True)])
        return [int(code) if known else None for code, known in zip(bins, there, strict=True)]
    ids = {value: k for k, value in enumerate(values)}
    return [ids.get(cell) for cell in cells]


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

    def feature(self) -> Any:  # noqa: ANN401 - a datasets feature
        """Return the feature of the names that the function gives."""
        return List(Value("string"))

    def measure(self, batch: Batch) -> list[list[str]]:
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
        return [list(names) for names in given]

    def learn(self, ds: Dataset) -> Self:
        """Return the source with every name met."""
        rows = Counter(word for names in ds[self.measured_column] for word in set(names))
        refuse_constant(self, sum(count < len(ds) for count in rows.values()))
        return replace(self, words=tuple(sorted(rows)))

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which names each row has."""
        return name_table(batch[self.measured_column], self.words)
