"""`annotate`: fit concept sources on one split, and add what they say about every row as columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch, Step, mapped, readable, resumed, undecoded
from hf_midrange.concepts.metadata import Names
from hf_midrange.concepts.source import Source, measuring, reading, refuse_unreadable, refuse_unsafe_name
from hf_midrange.io.blocks import MOST_ROWS, some_rows
from hf_midrange.io.files import write_atomically
from hf_midrange.io.folders import only_writer
from hf_midrange.processes import is_main, writing_together


Annotated = TypeVar("Annotated", Dataset, DatasetDict, IterableDataset, IterableDatasetDict)
SourceLike = Source | Callable[[Batch], Sequence[Sequence[str]]]

READ_AT_ONCE = 1000
"""Rows whose concepts are read at once, which takes little memory."""


def annotate(
    ds: Annotated,
    sources: Sequence[SourceLike],
    *,
    fit_split: str | None = None,
    batch_size: int = 64,
    output_dir: str | Path | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Annotated:
    """Return `ds` with one column `concepts_<source>` per source: the names that each row has.

    Dense sources (`Thumbnail`, `TextStyle`, `EarlyFeatures`; `Kinds`, `TextTopics`) add `view_<source>`, whose entries
    are named by the vocabulary of their `concepts_<source>` column, one to one; there an entry is present where its
    value is above the threshold frozen when the source was fitted. `Captions` also adds its captions.

    If there is a `ClassLabel` column `label`, a source fitted here never reports concepts that are the class label in
    disguise, those whose presence the label decides in all but 0.5 % of the rows of every class; a warning names them.

    Args:
        ds: any dataset; a stream (`IterableDataset`) needs sources that are already fitted.
        sources: concept sources, or functions that take a batch (column name -> values) and give a list of names per
            row; such a function gives its own name to the column.
        fit_split: the split of a `DatasetDict` that unfitted sources are fitted on; needed when it has several. Of
            more than 100,000 rows so many are drawn to be fitted on, from every class; all are then read.
        batch_size: rows that are measured at once.
        output_dir: folder in which what models measure is kept shard by shard, so that the same call goes on where it
            stopped, and every fitted source as `<name>.json` for `load_source`. Streams write nothing. Processes
            that a launcher started share the folder and divide the shards; without it each runs models on all rows.
            A shard that was cut short or changed on disk is measured again.
        on_error: `"skip"` drops rows whose image or text cannot be read and lists them in a warning, at the price of
            decoding every image once more; `"raise"` names the first.

    Raises:
        KeyError, TypeError: before any work, if a column is missing or of a type that its source cannot read.
        ValueError: if two sources have one name, a column would be overwritten, an image or text cannot be read, no
            name varies among the rows fitted on, a stream is given with sources that are not fitted or with
            `on_error="skip"`, or another process writes into `output_dir`.

    Examples:
        >>> from datasets import Dataset
        >>> from hf_midrange import Annotations, annotate
        >>> ds = annotate(Dataset.from_dict({"night": [True, False]}), [Annotations(["night"])])
        >>> ds["concepts_annotations"][:], ds.features["concepts_annotations"].feature.names
        ([[0], []], ['night'])
    """
    chosen = [source if isinstance(source, Source) else Names.of(source) for source in sources]
    _refuse_clashes(ds, chosen)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', but is {on_error!r}")
    if isinstance(ds, IterableDataset | IterableDatasetDict):
        if on_error == "skip":
            raise ValueError(
                "on_error='skip' looks at all rows first, which a stream does not allow; `extract(stream, ..., "
                "on_error='skip')` drops unreadable rows of a stream"
            )
        if isinstance(ds, IterableDataset):
            return cast(Annotated, _streamed(ds, chosen))
        return cast(Annotated, IterableDatasetDict({name: _streamed(split, chosen) for name, split in ds.items()}))
    splits = dict(ds) if isinstance(ds, DatasetDict) else {"": ds}
    folder = None if output_dir is None else Path(output_dir)
    split = _fit_split(splits, chosen, fit_split)
    if on_error == "skip":
        splits = {name: _readable(rows, chosen) for name, rows in splits.items()}
    for source in chosen:
        for name, rows in splits.items():
            refuse_unreadable(source, rows, to_fit=name == split and not source.fitted)
    with _writing(folder, chosen):
        measured = _measured(splits, chosen, batch_size, folder)
        done = _read(measured, chosen, split, folder)
    return cast(Annotated, DatasetDict(done) if isinstance(ds, DatasetDict) else done[""])


def _readable(ds: Dataset, sources: Sequence[Source]) -> Dataset:
    for source in sources:
        source.check(ds.features)
    read = {name for source in sources if not source.reads_null for name in source.inputs}
    return readable(ds, [name for name in ds.column_names if name in read])


def _writing(folder: Path | None, sources: Sequence[Source]) -> AbstractContextManager[None]:
    """Return what holds the folder while it is written: processes that share the work of models hold it together."""
    if folder is None:
        return nullcontext()
    if any(source.costly for source in sources):
        return writing_together(folder)
    return only_writer(folder) if is_main() else nullcontext()


def _measured(
    splits: dict[str, Dataset], sources: list[Source], batch_size: int, folder: Path | None
) -> dict[str, Dataset]:
    """Return the splits with what the sources measure: cheap sources in one pass, costly ones each in its own.

    Images are decoded once for all cheap sources together. With a `folder`, what costly sources measure is written
    there shard by shard, and a finished shard is never computed again.
    """
    measure = [source for source in sources if source.measured()]
    cheap = [source for source in measure if not source.costly]
    for group in [cheap, *([source] for source in measure if source.costly)]:
        step = measuring(group)
        for name, rows in splits.items() if group else ():
            if folder is not None and group is not cheap:
                splits = {**splits, name: resumed(rows, step, batch_size, folder, group[0].name)}
            else:
                splits = {**splits, name: mapped(rows, step, batch_size)}
    return splits


def _read(
    splits: dict[str, Dataset], sources: list[Source], fit_split: str, folder: Path | None
) -> dict[str, Dataset]:
    """Return measured splits with the concept columns, and without the columns that only served to measure."""
    for source in sorted(sources, key=lambda source: source.last):
        rows = _to_learn_from(splits[fit_split], source)
        fitted = source if source.fitted else source.learn(rows)
        if not source.fitted and not source.last:
            fitted = _without_disguised(fitted, rows)
        if folder is not None and is_main():
            _keep(fitted, folder)
        step = reading(fitted)
        splits = {name: mapped(split, step, READ_AT_ONCE) for name, split in splits.items()}
    working = [name for source in sources for name in source.measured() if name.startswith("_")]
    return {name: split.remove_columns(working) for name, split in splits.items()}


def _to_learn_from(ds: Dataset, source: Source) -> Dataset:
    """Return the rows that a source is fitted on; one that is fitted last draws from the discovery half itself."""
    if source.fitted or source.last or len(ds) <= MOST_ROWS:
        return ds
    labelled = isinstance(ds.features.get(columns.LABEL), ClassLabel)
    strata = columns.labels(ds) if labelled else np.zeros(len(ds), dtype=np.int64)
    return ds.select(some_rows(strata, MOST_ROWS, seed=0))


def _keep(source: Source, folder: Path) -> None:
    try:
        write_atomically(folder / f"{source.name}.json", source.to_json())
    except TypeError as error:  # a function or a model object; the columns are right all the same
        warnings.warn(str(error), UserWarning, stacklevel=4)


def _without_disguised(source: Source, ds: Dataset) -> Source:
    """Return `source` with the concepts left out that are the class label in disguise, and warn of them."""
    if not isinstance(ds.features.get(columns.LABEL), ClassLabel):
        return source
    table = columns.presence(mapped(ds, reading(source), READ_AT_ONCE), source.concept_column)
    found = leaks_label(table, columns.labels(ds))
    names = tuple(source.vocabulary[j] for j in np.flatnonzero(found))
    if not names:
        return source
    warnings.warn(
        f"source {source.name!r}: {columns.listed(names, 3)} are the class label in disguise (the label decides "
        "them in at least 99.5 % of the rows of every class) and are left out",
        UserWarning,
        stacklevel=4,
    )
    return replace(source, left_out=names)


def leaks_label(table: sparse.csr_matrix, labels: np.ndarray, tolerance: float = 0.005) -> np.ndarray:
    """Return which concepts the label decides in all but a share `tolerance` of the rows of every class.

    Such a concept has a prevalence of at most `tolerance` or at least `1 - tolerance` within every class, and both
    occur. A confounder tied to the class in 98 % of the rows is far from it; one tied in all rows cannot be told from
    the class, and there are no rows that could break the tie.

    Args:
        table: presence, of shape `(n, concepts)`.
        labels: class ids of shape `(n,)`.
        tolerance: share of rows of a class that may be contrary.

    Returns:
        Booleans of shape `(concepts,)`.

    Examples:
        >>> leaks_label(sparse.csr_matrix([[1, 1], [1, 0], [0, 1], [0, 0]]), np.array([0, 0, 1, 1]))
        array([ True, False])
    """
    classes = np.unique(labels)
    prevalence = np.stack([np.asarray(table[labels == k].mean(axis=0)).ravel() for k in classes])
    absent, always = prevalence <= tolerance, prevalence >= 1 - tolerance
    return np.asarray((absent | always).all(axis=0) & absent.any(axis=0) & always.any(axis=0))


def _streamed(ds: IterableDataset, sources: list[Source]) -> IterableDataset:
    if ds.features is None:
        raise ValueError(
            "the stream does not know its columns; build it with `features=...` (for example "
            "`IterableDataset.from_generator(..., features=Features({...}))`)"
        )
    unfitted = [source.name for source in sources if not source.fitted]
    if unfitted:
        raise ValueError(
            f"sources {unfitted} are not fitted, and a stream cannot be read twice; fit them first on rows held in "
            "memory: `source = source.fit(Dataset.from_list(list(stream.take(2000)), features=stream.features))`"
        )
    declared = dict(ds.features)
    ds, images = undecoded(ds)
    for source in sources:
        source.check(Features(declared))
        declared |= source.outputs()
        step = Step(source.transform, source.inputs, source.outputs(), source.identity(), images)
        ds = ds.map(step, batched=True, features=Features({**ds.features, **step.added}))
    return ds.cast(Features(declared)) if images else ds


def _fit_split(splits: dict[str, Dataset], sources: list[Source], fit_split: str | None) -> str:
    unfitted = [source.name for source in sources if not source.fitted]
    if fit_split is None and (len(splits) == 1 or not unfitted):
        return next(iter(splits))
    if fit_split not in splits:
        raise ValueError(
            f"`fit_split` must name the split that {unfitted or 'sources'} are fitted on, one of {list(splits)}, "
            f"but is {fit_split!r}; use the held-out split that is curated, never the one that is scored"
        )
    return fit_split


def _refuse_clashes(ds: Dataset | DatasetDict | IterableDataset | IterableDatasetDict, sources: list[Source]) -> None:
    names = [source.name for source in sources]
    for name in names:
        refuse_unsafe_name(name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several sources are called {twice}; tell them apart with `name=...`")
    found = ds.column_names
    taken = {name for split in found.values() for name in split or ()} if isinstance(found, dict) else set(found or ())
    for source in sources:
        clash = sorted(taken & {source.concept_column, *source.measured()})
        if clash:
            raise ValueError(
                f"source {source.name!r} would overwrite the columns {clash}; remove them first with "
                f"`ds.remove_columns({clash})`, or give the source another name"
            )
