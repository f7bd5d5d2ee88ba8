"""What a concept source is: measured, learnt and read in three stages, and kept as one JSON file."""

from __future__ import annotations

import dataclasses
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch, Step, is_text, mapped
from hf_midrange.io.files import from_json, intact, read_json, to_json, write_atomically
from hf_midrange.io.hub import HubSaved


Made = TypeVar("Made", bound="Source")

IMAGE, TEXT = "Image()", 'Value("string")'
"""The two features that sources read, as a user would write them."""

FILE, REFIT = "file of a fitted source", "fit the source again and save it"
"""What `save` writes, and what to do where it is damaged."""

_PLAIN_NAME = re.compile(r"\w[\w .+-]{0,79}")


class Source(HubSaved, ABC):
    """A place that names of concepts come from: a frozen dataclass of settings and, once fitted, of what it learnt.

    Work is done in three stages, so that images are decoded and models run once per row:

    1. `measure(batch)`: what must be computed before anything is known of the data set; costly, needs no fitting.
    2. `learn(ds)`: vocabulary and thresholds, from the measured rows of one split. Frozen from then on.
    3. `read(batch)`: which concepts each measured row has; cheap.

    `fit` and `transform` chain these stages. A class that inherits from this one is a frozen dataclass with the fields
    `name` and `left_out`. It writes `learn`, `read` and, if there is something to measure, `feature` and `measure`;
    what it learnt it keeps in a field `words`, or it writes `fitted` and `vocabulary` too. Every stage treats rows one
    by one, so that their order and the batch size do not matter.
    """

    FILES: ClassVar[tuple[str, ...]] = ("source.json",)
    REPO_TYPES: ClassVar[tuple[str, ...]] = ("dataset", "model")

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    version: ClassVar[int] = 1
    """Raised whenever `measure` or `read` compute something else, so that cached results are not reused."""

    reads: ClassVar[str] = ""
    """What the columns `inputs` must be: `IMAGE` or `TEXT`."""

    costly: ClassVar[bool] = False
    """Whether measuring runs a model: such a source gets a pass, and a cache entry, of its own."""

    reads_null: ClassVar[bool] = False
    """Whether a null is a value of its own, as in metadata, and not a broken row."""

    last: ClassVar[bool] = False
    """Whether the source is fitted after the others, since it names concepts by theirs."""

    derived: bool = False
    """Whether concepts are computed from the embedding: then no p-value about the logits is evidence."""

    name: str
    """The source adds the column `concepts_<name>`."""

    left_out: tuple[str, ...]
    """Names that are never present: concepts found to be the label in disguise."""

    words: Sequence[str]
    """The names met in the rows fitted on."""

    def __post_init__(self) -> None:
        refuse_unsafe_name(self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the columns that are read: those that the field `column` names, if there is one."""
        column = getattr(self, "column", ())
        return (column,) if isinstance(column, str) else tuple(column)

    @property
    def fitted(self) -> bool:
        """Return whether vocabulary and thresholds are known."""
        return bool(self.words)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names this source can give, in the order of the columns of `read`."""
        return tuple(self.words)

    def identity(self) -> object:
        """Return what tells apart two sources that would measure different things, for the cache of results."""
        return self

    def check(self, features: Features, *, to_fit: bool = False) -> None:
        """Raise `KeyError` or `TypeError` if a column is missing or cannot be read, or one that only fitting reads."""
        for column in self.inputs:
            require_feature(self, features, column, self.reads)

    @property
    def measured_column(self) -> str:
        """Return the name of the column of what is measured; if it starts with `_`, it is not kept."""
        return f"_{self.name}"

    def feature(self) -> Any | None:  # noqa: ANN401 - a datasets feature
        """Return the feature of the measured column; None: nothing needs measuring."""
        return None

    def measure(self, batch: Batch) -> Any:  # noqa: ANN401 - a list or an array
        """Return the measured value of each row."""
        raise NotImplementedError

    @abstractmethod
    def learn(self, ds: Dataset) -> Self:
        """Return the fitted source, from a data set that has `inputs` and the measured column."""

    @abstractmethod
    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which row has which name, boolean, of shape `(rows, len(vocabulary))`."""

    @property
    def concept_column(self) -> str:
        """Return the name of the concept column."""
        return f"{columns.CONCEPTS_PREFIX}{self.name}"

    def measured(self) -> dict[str, Any]:
        """Return the measured column's name and feature, if there is one."""
        feature = self.feature()
        return {} if feature is None else {self.measured_column: feature}

    def concepts(self) -> dict[str, Any]:
        """Return the concept column's name and feature, which says whether concepts are derived."""
        feature = columns.concept_list(self.vocabulary)
        return {self.concept_column: columns.with_facts(feature, derived=True) if self.derived else feature}

    def outputs(self) -> dict[str, Any]:
        """Return the features of the columns that `transform` adds."""
        kept = {name: feature for name, feature in self.measured().items() if not name.startswith("_")}
        return {**kept, **self.concepts()}

    def present(self, batch: Batch) -> sparse.csr_matrix:
        """Return `read(batch)` without the concepts in `left_out`."""
        table = self.read(batch)
        if not self.left_out:
            return table
        keep = np.array([name not in self.left_out for name in self.vocabulary], dtype=bool)
        return sparse.csr_matrix(table.multiply(keep[None, :]), dtype=bool)

    def fit(self, ds: Dataset) -> Self:
        """Return this source with vocabulary and thresholds learnt from `ds`; the rows themselves are not kept.

        Raises:
            KeyError, TypeError: if a column is missing or of a type that cannot be read.
            ValueError: if `ds` has no rows, an image or text is null, or no name varies among its rows.
        """
        refuse_unreadable(self, ds, to_fit=True)
        return self.learn(mapped(ds, measuring([self]), batch_size=64) if self.measured() else ds)

    def transform(self, batch: Batch) -> dict[str, Any]:
        """Return the columns this fitted source adds for some rows: kept measurements and `concepts_<name>`."""
        measured = {name: self.measure(batch) for name in self.measured()}
        table = self.present({**batch, **measured})
        ids = [table.indices[a:b].tolist() for a, b in zip(table.indptr, table.indptr[1:], strict=False)]
        return {name: ids if name == self.concept_column else measured[name] for name in self.outputs()}

    def save(self, path: str | Path) -> None:
        """Write settings and what was learnt to a JSON file; floats come back bit for bit."""
        write_atomically(Path(path), self.to_json())

    def to_json(self) -> str:
        """Return what `save` writes.

        Raises:
            TypeError: if a field is a function or a model object, which JSON cannot hold.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in values.items():
            if not isinstance(value, str | int | float | tuple | list | dict | None):
                raise TypeError(
                    f"{type(self).__name__} cannot be saved: `{name}` is a {type(value).__name__}, which JSON cannot "
                    "hold; give a model by its id or folder, and save the names a function gives as a column"
                )
        return to_json({"kind": type(self).__name__, "version": self.version, **values}, indent=1)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the source that `save` wrote to `path`; `Source.load` loads any kind.

        Raises:
            ValueError: if the file holds another kind of source or one fitted by another version of its arithmetic.
        """
        values = read_json(Path(path), FILE, REFIT)
        kind, kinds, version = values.pop("kind", None), _kinds(cls), values.pop("version", None)
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(
                f"{path} holds a source of kind {kind!r}, not one of {sorted(kinds)}; `load_source` loads any kind"
            )
        if version != kinds[kind].version:
            raise ValueError(
                f"{path} was written by another version of {kind} (version {version}, this one is "
                f"{kinds[kind].version}); fit the source again"
            )
        with intact(path, FILE, REFIT):
            made = from_json(kinds[kind], values)
        lists = {name: tuple(value) for name, value in vars(made).items() if isinstance(value, list)}
        return dataclasses.replace(made, **lists)  # JSON knows no tuples

    def _write(self, folder: Path) -> None:
        self.save(folder / self.FILES[0])

    @classmethod
    def _read(cls, *files: Path) -> Self:
        return cls.load(files[0])


class ViewSource(Source):
    """A source that describes each row by a short vector with named entries: a side view of the data.

    `vocabulary` names the entries of `view_<name>`, in order. An entry is present in a row where its value is above a
    threshold, the one that halves the rows fitted on as evenly as ties allow. A class writes `measure(batch)`, which
    returns float32 of shape `(rows, entries)`, and `vocabulary`, and has a field `thresholds`.
    """

    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thresholds:
            refuse_lengths(self, len(self.vocabulary), "thresholds")

    of_network: ClassVar[bool] = False
    """Whether a network made the view, which may then know more of the class than a view should."""

    names_meanings: ClassVar[bool] = False
    """Whether entries name meanings and may be the class itself: then it is no side view, but soft words."""

    @property
    def measured_column(self) -> str:
        """Return the name of the column of vectors."""
        return f"{columns.VIEW_PREFIX}{self.name}"

    def feature(self) -> Any:  # noqa: ANN401 - a datasets feature
        """Return the feature of the view, which says what kind of a view it is."""
        facts = {"of_network": self.of_network, **({"vocabulary": True} if self.names_meanings else {})}
        return columns.with_facts(columns.vector(len(self.vocabulary)), **facts)

    @property
    def fitted(self) -> bool:
        """Return whether the thresholds are known."""
        return bool(self.thresholds)

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the thresholds of `ds`."""
        values = columns.matrix(ds, self.measured_column)
        refuse_constant(self, int((values != values[0]).any(axis=0).sum()))
        return replace(self, thresholds=tuple(map(float, self.cuts(values))))

    def cuts(self, values: np.ndarray) -> np.ndarray:
        """Return the threshold of each entry for values of shape `(n, entries)`."""
        return halving_thresholds(values)

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which entries of the view are above their thresholds."""
        return sparse.csr_matrix(numbers(batch, self) > np.array(self.thresholds, dtype=np.float32))


def numbers(batch: Batch, source: Source) -> np.ndarray:
    """Return the vectors that a source has measured, float32 of shape `(rows, entries)`."""
    feature = source.feature()
    width = feature.length if feature is not None else 0
    return np.asarray(batch[source.measured_column], dtype=np.float32).reshape(-1, width)


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


def measuring(sources: Sequence[Source]) -> Step:
    """Return the step that measures rows for some sources at once; one without `inputs`, a function, sees all."""
    inputs = [source.inputs for source in sources]
    return Step(
        run=lambda batch: {source.measured_column: source.measure(batch) for source in sources},
        inputs=tuple(chain(*inputs)) if all(inputs) else (),
        added={name: feature for source in sources for name, feature in source.measured().items()},
        known_by=[(source.identity(), source.version) for source in sources],
    )


def reading(source: Source) -> Step:
    """Return the step that reads the concepts of a fitted source from measured rows."""

    def run(batch: Batch) -> pa.Table:
        return pa.table({source.concept_column: columns.concept_arrow(source.present(batch), source.vocabulary)})

    try:
        known_by: object = source.to_json()  # one text hashes faster than many names
    except TypeError:  # a function or a model object
        known_by = (source.identity(), source.version)
    return Step(run, tuple(source.measured()) or source.inputs, source.concepts(), known_by)


def name_table(rows: Iterable[Sequence[str]], names: Sequence[str]) -> sparse.csr_matrix:
    """Return which of `names` each row has, boolean, of shape `(rows, len(names))`; other names are passed over."""
    ids = {name: j for j, name in enumerate(names)}
    return id_table(({ids[name] for name in row if name in ids} for row in rows), len(names))


def id_table(rows: Iterable[Set[int]], width: int) -> sparse.csr_matrix:
    """Return a boolean table of shape `(rows, width)` that is true at the ids of each row."""
    found = [sorted(row) for row in rows]
    indptr = np.cumsum([0, *map(len, found)])
    indices = np.fromiter(chain.from_iterable(found), np.int64, indptr[-1])
    return sparse.csr_matrix((np.ones(len(indices), dtype=bool), indices, indptr), shape=(len(found), width))


def refuse_unsafe_name(name: str) -> None:
    """Raise `ValueError` unless a column and a file can be called by `name` on any system."""
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
        raise ValueError(
            f"a source cannot be called {str(name)[:100]!r}: columns and files are named after it, so give it 1 to "
            "80 letters, digits, spaces or any of _ . + -, the first a letter, digit or _"
        )


def refuse_outside(low: int, high: int, **numbers: object) -> None:
    """Raise `ValueError` naming each setting that is no whole number from `low` to `high`."""
    bad = {name: value for name, value in numbers.items() if not isinstance(value, int) or not low <= value <= high}
    if bad:
        raise ValueError(f"whole numbers from {low} to {high} are needed, not {bad}")


def refuse_lengths(source: Source, length: int, *fields: str) -> None:
    """Raise `ValueError` naming a field of what a source learnt that has not `length` members."""
    for name in fields:
        if len(getattr(source, name)) != length:
            raise ValueError(
                f"source {source.name!r} has {len(getattr(source, name))} `{name}` where {length} belong; fit it again"
            )


def refuse_unreadable(source: Source, ds: Dataset, *, to_fit: bool = False) -> None:
    """Raise before work starts if `source` cannot read `ds`, or cannot be fitted on it.

    Columns must be there and of their type, no image or text may be null, no class id without a name.
    """
    source.check(ds.features, to_fit=to_fit)
    for column in source.inputs:
        feature = ds.features[column]
        if isinstance(feature, ClassLabel):
            columns.refuse_unnamed(ds, column)
        if source.reads_null or not (is_text(feature) or isinstance(feature, Image)):
            continue
        if ds.data.column(column).null_count:
            nulls = np.flatnonzero(ds.select_columns([column]).with_format("arrow")[:][column].is_null())
            if nulls.size:
                raise ValueError(
                    f"column {column!r} is null in {nulls.size} rows (first rows: {nulls[:5].tolist()}), which source "
                    f"{source.name!r} cannot read; filter these rows out or fill them in"
                )
    if to_fit and not len(ds):
        raise ValueError(
            f"source {source.name!r} cannot be fitted on a dataset without rows; give it a split that has some"
        )


def require_feature(source: Source, features: Features, column: str, wanted: str) -> None:
    """Raise unless `column` is there and is what `wanted` says: `IMAGE` or `TEXT`."""
    fitting = [
        name
        for name, feature in features.items()
        if (isinstance(feature, Image) if wanted == IMAGE else is_text(feature))
    ]
    if column in fitting:
        return
    if column not in features:
        hint = f"; of the right type {wanted} are {fitting}" if fitting else f"; none is of the right type {wanted}"
        raise KeyError(f"source {source.name!r} reads column {column!r}, but the dataset has {list(features)}{hint}")
    raise TypeError(
        f"source {source.name!r} reads column {column!r} as {wanted}, but it is {features[column]}; "
        f"`ds = ds.cast_column({column!r}, {wanted})` may make it one"
    )


def refuse_constant(source: Source, varying: int) -> None:
    """Raise if no name of `source` is present in some rows and absent in others."""
    if not varying:
        raise ValueError(
            f"source {source.name!r} found no concept that some rows have and others lack in columns "
            f"{list(source.inputs)}; leave this source out, or fit it on rows that differ"
        )


def _kinds(cls: type[Made]) -> dict[str, type[Made]]:
    """Return the classes that can be loaded as a `cls`, by name: itself, and what inherits from it."""
    found = {} if inspect.isabstract(cls) else {cls.__name__: cls}
    for kind in cls.__subclasses__():
        found |= _kinds(kind)
    return found
