"""What a concept source is: the one protocol that all sources follow, and how a fitted source is kept as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.storage.files import intact, read_sealed, sealed, write_atomically
from hf_midrange.storage.restoring import restored


Batch = Mapping[str, Sequence[Any]]
"""Column name -> the values of some rows, as `datasets` hands them to a batched function."""

IMAGE, TEXT = "Image()", 'Value("string")'
"""The two features that sources read, as a user would write them."""

FILE, REFIT = "file of a fitted source", "fit the source again and save it"
"""What `save` writes, and what to do where it is damaged."""


class Source(Protocol):
    """A place that names of concepts come from: a frozen dataclass of settings and, once fitted, of what it learnt.

    Work is done in three stages, so that images are decoded and models run once per row:

    1. `measure(batch)`: what must be computed before anything is known of the data set; costly, needs no fitting.
    2. `learn(ds)`: vocabulary and thresholds, from the measured rows of one split. Frozen from then on.
    3. `read(batch)`: which concepts each measured row has; cheap.

    `fit` and `transform` chain these stages. A class that inherits from this protocol writes `inputs`, `fitted`,
    `vocabulary`, `learn`, `read` and, if there is something to measure, `measured` and `measure`; every stage treats
    rows one by one, so that their order and the batch size do not matter.
    """

    name: str
    """The source adds the column `concepts_<name>`."""

    left_out: tuple[str, ...]
    """Names that are never present: concepts found to be the label in disguise."""

    version: int
    """Raised whenever `measure` or `read` compute something else, so that cached results are not reused."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        ...

    @property
    def fitted(self) -> bool:
        """Return whether vocabulary and thresholds are known."""
        ...

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names this source can give, in the order of the columns of `read`."""
        ...

    @property
    def costly(self) -> bool:
        """Return whether measuring runs a model: such a source gets a pass, and a cache entry, of its own."""
        return False

    @property
    def derived(self) -> bool:
        """Return whether concepts are computed from the embedding: then no p-value about the logits is evidence.

        Derived sources are fitted last, so that the concepts of the others can describe theirs.
        """
        return False

    @property
    def reads_null(self) -> bool:
        """Return whether a null is a value of its own, as in metadata, and not a broken row."""
        return False

    def identity(self) -> object:
        """Return what tells apart two sources that would measure different things, for the cache of results."""
        return self

    def check(self, features: Features) -> None:
        """Raise `KeyError` or `TypeError` if a column is missing or of a type that cannot be read."""
        ...

    def check_fit(self, features: Features) -> None:
        """Raise `KeyError` or `TypeError` if a column is missing that only fitting reads, besides `inputs`."""
        return

    def measured(self) -> dict[str, Any]:
        """Return the features of the columns that `measure` adds; those whose name starts with `_` are not kept."""
        return {}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the columns promised by `measured` for these rows."""
        return {}

    def learn(self, ds: Dataset) -> Self:
        """Return the fitted source, from a data set that has `inputs` and the measured columns."""
        ...

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which row has which name, boolean, of shape `(rows, len(vocabulary))`."""
        ...

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
        from hf_midrange.concepts.passes import measure

        refuse_unreadable(self, ds)
        return self.learn(measure(ds, [self]))

    def transform(self, batch: Batch) -> dict[str, Any]:
        """Return the columns this fitted source adds for some rows: kept measurements and `concepts_<name>`."""
        measured = self.measure(batch)
        table = self.present({**batch, **measured})
        ids = [table.indices[a:b].tolist() for a, b in zip(table.indptr, table.indptr[1:], strict=False)]
        return {**{name: measured[name] for name in self.kept()}, self.concept_column: ids}

    def outputs(self) -> dict[str, Any]:
        """Return the features of the columns that `transform` adds."""
        return {**self.kept(), self.concept_column: columns.concept_list(self.vocabulary)}

    def save(self, path: str | Path) -> None:
        """Write settings and what was learnt to a JSON file; floats come back bit for bit."""
        write_atomically(Path(path), self.to_json())

    def to_json(self) -> str:
        """Return what `save` writes."""
        return sealed({"kind": type(self).__name__, **self.settings()}, indent=1)

    def settings(self) -> dict[str, Any]:
        """Return every field as JSON values.

        Raises:
            TypeError: if a field is a function or a model object, which JSON cannot hold.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(cast(Any, self))}
        for name, value in values.items():
            if not isinstance(value, str | int | float | tuple | list | dict | None):
                raise TypeError(
                    f"{type(self).__name__} cannot be saved: `{name}` is a {type(value).__name__}, which JSON cannot "
                    "hold; give a model by its id or folder, and save the names a function gives as a column"
                )
        return values

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the source that `save` wrote to `path`.

        Raises:
            ValueError: if the file holds another kind of source or one fitted by another version of its arithmetic.
        """
        values = read_sealed(Path(path), FILE, REFIT)
        kind = values.pop("kind", None)
        if kind != cls.__name__:
            raise ValueError(
                f"{path} holds a source of kind {kind!r}, not {cls.__name__!r}; `load_source` loads any kind"
            )
        names = {field.name: field.default for field in dataclasses.fields(cast(Any, cls))}
        unknown = sorted(set(values) - set(names))
        if unknown or values.get("version") != names["version"]:
            raise ValueError(
                f"{path} was written by another version of {kind} (version {values.get('version')}, this one is "
                f"{names['version']}; unknown fields {unknown}); fit the source again"
            )
        with intact(path, FILE, REFIT):
            return restored(cls, values)


class WordSource(Source, Protocol):
    """A source whose names are what was met in the rows fitted on: a class has a field `words` for them."""

    words: tuple[str, ...]

    @property
    def fitted(self) -> bool:
        """Return whether the names are known."""
        return bool(self.words)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names met in the rows fitted on."""
        return self.words


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
        if isinstance(ds.features[column], ClassLabel):
            columns.refuse_unnamed(ds, column)
        if not (spelled(ds.features[column], TEXT) or isinstance(ds.features[column], Image)) or source.reads_null:
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
        fitting = [name for name, feature in features.items() if spelled(feature, wanted)]
        hint = f"; of the right type {wanted} are {fitting}" if fitting else f"; none is of the right type {wanted}"
        raise KeyError(f"source {source.name!r} reads column {column!r}, but the dataset has {list(features)}{hint}")
    feature = features[column]
    if not spelled(feature, wanted):
        raise TypeError(
            f"source {source.name!r} reads column {column!r} as {wanted}, but it is {feature}; "
            f"`ds = ds.cast_column({column!r}, {wanted})` may make it one"
        )


def spelled(feature: object, as_: str) -> bool:
    """Return whether a feature is what `as_` says: `IMAGE` or `TEXT`."""
    if as_ == IMAGE:
        return isinstance(feature, Image)
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def refuse_constant(source: Source, varying: int) -> None:
    """Raise if no name of `source` is present in some rows and absent in others."""
    if not varying:
        raise ValueError(
            f"source {source.name!r} found no concept that some rows have and others lack in columns "
            f"{list(source.inputs)}; leave this source out, or fit it on rows that differ"
        )
