"""Reading bands, labels and concepts of a dataset into one problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from scipy import sparse

from hf_midrange import columns
from hf_midrange.association.screening import Problem
from hf_midrange.association.sources import Sources
from hf_midrange.bands import LogitBands
from hf_midrange.bands.logit_bands import band_names
from hf_midrange.io.blocks import Entries


MIRRORED = -0.999


class Inputs(NamedTuple):
    """Everything `associate` works on."""

    problem: Problem
    ds: Dataset
    values: str
    """The column that `bands` was cut from, or one that orders rows alike: at worst the bands."""
    names: list[str]
    """The concepts' names, of length m."""
    sources: list[str]
    derived: np.ndarray
    """Which concepts were computed from the same embedding as the logits: their p-values are no evidence. Of shape
    `(m,)`; the columns say so themselves (`columns.facts`)."""
    unit_names: list[str]
    band_names: tuple[str, ...]
    source_ids: np.ndarray | None
    bands: dict[str, Any]
    """Where the bands come from."""
    cut: np.ndarray
    """Which units have a band in any row, boolean of shape `(U,)`."""

    def unit_values(self, units: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield units with their values over all rows, of shape `(n,)`, holding a few at a time."""
        table = Entries(self.ds, self.values)
        yield from ((unit, table[:, unit]) for unit in units.tolist())

    def observed_cuts(self, unit: int, values: np.ndarray) -> list[float | None]:
        """Return the least value in each band of a unit above the lowest; None for a band without rows."""
        bands = self.problem.unit_bands(unit)
        inside = (values[bands == band] for band in range(1, self.problem.number))
        return [float(some.min()) if some.size else None for some in inside]

    def mirrored(self) -> bool:
        """Return whether there are two units that say the same with opposite sign (correlation below -0.999)."""
        if len(self.unit_names) != 2 or self.values == columns.BAND:
            return False
        both = columns.matrix(self.ds, self.values)
        return not np.any(np.ptp(both, axis=0) == 0) and bool(np.corrcoef(both, rowvar=False)[0, 1] < MIRRORED)


def read_inputs(ds: Dataset, *, need_concepts: bool = True) -> Inputs:
    """Return the arrays that findings are made from, fitting default bands if `ds` has none.

    Args:
        ds: one split.
        need_concepts: refuse rows without a column of concepts; else there are none.
    """
    ds, bands_from = _with_bands(ds)
    label = columns.class_label(ds.features)
    ids = columns.labels(ds)
    bands = Entries(ds, columns.BAND)
    highest = bands.highest()
    cut = highest >= 0
    members, unit_names = _units(len(highest), label.names)
    present, names, sources, derived = _concepts(ds, need_concepts)
    names_of_bands = _band_names(int(highest.max(initial=-1)) + 1, columns.facts(ds.features, columns.BAND))
    source_ids = columns.source_ids(ds)
    shared = None
    if source_ids is not None:
        several, numbers = np.unique(source_ids, return_inverse=True)
        shared = Sources.of(numbers, ids) if len(several) < len(ids) else None
    problem = Problem(
        bands, np.arange(len(ids)), ids, present, label.num_classes, len(names_of_bands), members, shared
    )
    values = next(c for c in (columns.LOGITS, columns.QUANTILE, columns.BAND) if _orders_alike(ds, c, bands, cut))
    return Inputs(
        problem, ds, values, names, sources, derived, unit_names, names_of_bands, source_ids, bands_from, cut
    )


def _with_bands(ds: Dataset) -> tuple[Dataset, dict[str, Any]]:
    if isinstance(ds, DatasetDict):
        raise TypeError(f"associate takes one split, such as ds[{next(iter(ds), 'validation')!r}], not a DatasetDict")
    if not len(ds):
        raise ValueError("the dataset has no rows to find associations in")
    if columns.BAND in ds.column_names:
        return ds, {"from": "the `band` column"}
    columns.require(ds, columns.LOGITS)
    bands = LogitBands().fit(ds)
    made = {"rule": bands.rule, "edges": list(bands.edges or ())}
    return bands.transform(ds), {"from": "fitted on these rows", **made}


def _units(number: int, classes: list[str]) -> tuple[tuple[int | None, ...], list[str]]:
    if number == len(classes):
        return tuple(range(number)), list(classes)
    return (None,) * number, [f"unit_{k}" for k in range(number)]


def _band_names(seen: int, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the bands that the column was cut into; of unknown bands as many as are seen, at least 3.

    The values alone do not tell two bands from three with nothing at the top.
    """
    told = tuple(facts.get("bands", ()))
    return told if len(told) >= max(seen, 2) else band_names(max(seen, 3))


def _concepts(ds: Dataset, needed: bool) -> tuple[sparse.csr_matrix, list[str], list[str], np.ndarray]:
    found = columns.concept_columns(ds.features)
    if not found and not needed:
        return sparse.csr_matrix((len(ds), 0), dtype=bool), [], [], np.empty(0, dtype=bool)
    if not found:
        raise KeyError(
            f"the dataset has no column named {columns.CONCEPTS_PREFIX}<source>; it has {ds.column_names}; "
            "`annotate` adds them"
        )
    names, sources, derived = [], [], []
    for column in found:
        words = columns.vocabulary(ds.features, column)
        names += words
        sources += [column.removeprefix(columns.CONCEPTS_PREFIX)] * len(words)
        derived += [_is_derived(ds, column)] * len(words)
    table = sparse.csr_matrix(sparse.hstack([columns.presence(ds, column) for column in found], format="csr"))
    return table, names, sources, np.array(derived, dtype=bool)


def _is_derived(ds: Dataset, column: str) -> bool:
    """Return whether a column of concepts says that it was computed from the embedding; version 0.1 did not say so."""
    return bool(columns.facts(ds.features, column).get("derived", column == "concepts_latent"))


def _orders_alike(ds: Dataset, column: str, bands: Entries, cut: np.ndarray) -> bool:
    """Return whether the bands can have been cut from this column: its values rise from band to band."""
    live = np.flatnonzero(cut)
    if _width(ds, column) != len(cut) or not live.size:
        return column == columns.BAND
    values, band = columns.some_units(ds, column, [int(live[0])])[:, 0], bands[:, live[0]]
    parts = [values[band == b] for b in np.unique(band[band >= 0])]
    return all(lower.max() <= upper.min() for lower, upper in zip(parts, parts[1:], strict=False))


def _width(ds: Dataset, column: str) -> int:
    """Return the length of a vector column; 0 where there is no such column."""
    return columns.matrix(ds.select(range(1)), column).shape[1] if column in ds.column_names else 0
