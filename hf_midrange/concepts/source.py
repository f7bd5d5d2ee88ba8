"""What a concept source is: measured, learnt and read in three stages, and kept as one JSON file."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch, is_text, mapped
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
    `name`, `left_out` and `version`. It writes `learn`, `read` and, if there is something to measure, `measured` and
    `measure`; what it learnt it keeps in a field `words`, or it writes `fitted` and `vocabulary` too. Every stage
    treats rows one by one, so that their order and the batch size do not matter.
    """

    FILES: ClassVar[tuple[str, ...]] = ("source.json",)
    REPO_TYPES: ClassVar[tuple[str, ...]] = ("dataset", "model")

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    name: str
    """The source adds the column `concepts_<name>`."""

    left_out: tuple[str, ...]
    """Names that are never present: concepts found to be the label in disguise."""

    version: int
    """Raised whenever `measure` or `read` compute something else, so that cached results are not reused."""

    words: Sequence[str]
    """The names met in the rows fitted on."""

    reads: ClassVar[str] = ""
    """What the columns `inputs` must be: `IMAGE` or `TEXT`."""

    costly: ClassVar[bool] = False
    """Whether measuring runs a model: such a source gets a pass, and a cache entry, of its own."""

    reads_null: ClassVar[bool] = False
    """Whether a null is a value of its own, as in metadata, and not a broken row."""

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

    @property
    def derived(self) -> bool:
        """Return whether concepts are computed from the embedding: then no p-value about the logits is evidence.

        Derived sources are fitted last, so that the concepts of the others can describe theirs.
        """
        return False

    def identity(self) -> object:
        """Return what tells apart two sources that would measure different things, for the cache of results."""
        return self

    def check(self, features: Features) -> None:
        """Raise `KeyError` or `TypeError` if a column is missing or of a type that cannot be read."""
        for column in self.inputs:
            require_feature(self, features, column, self.reads)

    def check_fit(self, features: Features) -> None:
        """Raise `KeyError` or `TypeError` if a column is missing that only fitting reads, besides `inputs`."""
        return

    def measured(self) -> dict[str, Any]:
        """Return the features of the columns that `measure` adds; those whose name starts with `_` are not kept."""
        return {}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the columns promised by `measured` for these rows."""
        return {}

    @abstractmethod
    def learn(self, ds: Dataset) -> Self:
        """Return the fitted source, from a data set that has `inputs` and the measured columns."""

    @abstractmethod
    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which row has which name, boolean, of shape `(rows, len(vocabulary))`."""

    @property
    def concept_column(self) -> str:
        """Return the name of the concept column."""
        return f"{columns.CONCEPTS_PREFIX}{self.name}"

    def kept(self) -> dict[str, Any]:
        """Return the features of the measured columns that stay in the data set, such as a view or captions."""
        return {name: feature for name, feature in self.measured().items() if not name.startswith("_")}

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
        refuse_unreadable(self, ds)
        return self.learn(mapped(ds, Measure.of([self]), batch_size=64) if self.measured() else ds)

    def transform(self, batch: Batch) -> dict[str, Any]:
        """Return the columns this fitted source adds for some rows: kept measurements and `concepts_<name>`."""
        measured = self.measure(batch)
        table = self.present({**batch, **measured})
        ids = [table.indices[a:b].tolist() for a, b in zip(table.indptr, table.indptr[1:], strict=False)]
        return {**{name: measured[name] for name in self.kept()}, self.concept_column: ids}

    def outputs(self) -> dict[str, Any]:
        """Return the features of the columns that `transform` adds."""
        return {**self.kept(), self.concept_column: concept_feature(self)}

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
        return to_json({"kind": type(self).__name__, **values}, indent=1)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the source that `save` wrote to `path`; `Source.load` loads any kind.

        Raises:
            ValueError: if the file holds another kind of source or one fitted by another version of its arithmetic.
        """
        values = read_json(Path(path), FILE, REFIT)
        kind, kinds = values.pop("kind", None), _kinds(cls)
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(
                f"{path} holds a source of kind {kind!r}, not one of {sorted(kinds)}; `load_source` loads any kind"
            )
        version = kinds[kind].__dataclass_fields__["version"].default
        if values.get("version") != version:
            raise ValueError(
                f"{path} was written by another version of {kind} (version {values.get('version')}, this one is "
                f"{version}); fit the source again"
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


def _kinds(cls: type[Made]) -> dict[str, type[Made]]:
    """Return the classes that can be loaded as a `cls`, by name: itself, and what inherits from it."""
    found = {cls.__name__: cls} if dataclasses.is_dataclass(cls) else {}
    for kind in cls.__subclasses__():
        found |= _kinds(kind)
    return found


@dataclass(frozen=True)
class Measure:
    """The step that measures rows for some sources at once."""

    sources: tuple[Source, ...]
    known_by: tuple[object, ...]
    """The identity of each source, computed once: that of a model is a hash of all its weights."""
    version: int = 1

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Self:
        """Return the step of these sources."""
        return cls(tuple(sources), tuple(source.identity() for source in sources))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return what the sources read; a source without `inputs`, a user's function, sees all columns."""
        if not all(source.inputs for source in self.sources):
            return ()
        return tuple(name for source in self.sources for name in source.inputs)

    @property
    def added(self) -> dict[str, Any]:
        """Return the features of the measured columns."""
        return {name: feature for source in self.sources for name, feature in source.measured().items()}

    def __getstate__(self) -> dict[str, Any]:
        """Return what the cache of `Dataset.map` tells results apart by: no model is pickled."""
        return {"sources": list(self.known_by), "version": self.version}

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Return the measured columns of some rows."""
        return {name: values for source in self.sources for name, values in source.measure(batch).items()}


@dataclass(frozen=True)
class Read:
    """The step that reads the concepts of one fitted source from measured rows."""

    source: Source
    known_by: object
    """Settings and what was learnt: as one text, which hashes faster than many names, or the source's identity."""
    version: int = 1

    @classmethod
    def of(cls, source: Source) -> Self:
        """Return the step of a fitted source."""
        try:
            return cls(source, source.to_json())
        except TypeError:  # a function or a model object
            return cls(source, source.identity())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the measured columns, or what the source reads where it measures nothing."""
        return tuple(self.source.measured()) or self.source.inputs

    @property
    def added(self) -> dict[str, Any]:
        """Return the feature of the concept column."""
        return {self.source.concept_column: concept_feature(self.source)}

    def __getstate__(self) -> dict[str, Any]:
        """Return what the cache of `Dataset.map` tells results apart by."""
        return {"source": self.known_by, "version": self.version}

    def __call__(self, batch: Batch) -> pa.Table:
        """Return the concept column of some rows, as an arrow list."""
        table = self.source.present(batch)
        return pa.table({self.source.concept_column: columns.concept_arrow(table, self.source.vocabulary)})


def concept_feature(source: Source) -> Any:  # noqa: ANN401 - a datasets feature
    """Return the feature of a fitted source's concept column, which says whether its concepts are derived."""
    feature = columns.concept_list(source.vocabulary)
    return columns.with_facts(feature, derived=True) if source.derived else feature


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


def refuse_unreadable(source: Source, ds: Dataset) -> None:
    """Raise before work starts if `source` cannot be fitted on `ds`."""
    refuse_nulls(source, ds)
    source.check_fit(ds.features)
    if not len(ds):
        raise ValueError(
            f"source {source.name!r} cannot be fitted on a dataset without rows; give it a split that has some"
        )


def refuse_nulls(source: Source, ds: Dataset) -> None:
    """Raise before work starts if a column of `source` is missing, of another type, or holds what cannot be read.

    That is an image or text that is null, and a class id without a name.
    """
    source.check(ds.features)
    for column in source.inputs:
        feature = ds.features[column]
        if isinstance(feature, ClassLabel):
            columns.refuse_unnamed(ds, column)
        if not (is_text(feature) or isinstance(feature, Image)) or source.reads_null:
            continue
        if not ds.data.column(column).null_count:
            continue
        nulls = np.flatnonzero(ds.select_columns([column]).with_format("arrow")[:][column].is_null())
        if nulls.size:
            raise ValueError(
                f"column {column!r} is null in {nulls.size} rows (first rows: {nulls[:5].tolist()}), which source "
                f"{source.name!r} cannot read; filter these rows out or fill them in"
            )


def require_feature(source: Source, features: Features, column: str, wanted: str) -> None:
    """Raise unless `column` is there and is what `wanted` says: `IMAGE` or `TEXT`."""
    if column not in features:
        fitting = [name for name, feature in features.items() if _is(feature, wanted)]
        hint = f"; of the right type {wanted} are {fitting}" if fitting else f"; none is of the right type {wanted}"
        raise KeyError(f"source {source.name!r} reads column {column!r}, but the dataset has {list(features)}{hint}")
    feature = features[column]
    if not _is(feature, wanted):
        raise TypeError(
            f"source {source.name!r} reads column {column!r} as {wanted}, but it is {feature}; "
            f"`ds = ds.cast_column({column!r}, {wanted})` may make it one"
        )


def _is(feature: object, wanted: str) -> bool:
    return isinstance(feature, Image) if wanted == IMAGE else is_text(feature)


def refuse_constant(source: Source, varying: int) -> None:
    """Raise if no name of `source` is present in some rows and absent in others."""
    if not varying:
        raise ValueError(
            f"source {source.name!r} found no concept that some rows have and others lack in columns "
            f"{list(source.inputs)}; leave this source out, or fit it on rows that differ"
        )
