"""Reading bands, labels and concepts of a dataset into one problem."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from scipy import sparse

from hf_midrange import columns
from hf_midrange.association.testing import Problem
from hf_midrange.bands import LogitBands


DERIVED_COLUMNS = ("concepts_latent",)
"""Columns computed from the same embedding as the logits (`LatentConcepts`): their p-values are no evidence."""

MIRRORED = -0.999


class Inputs(NamedTuple):
    """Everything `associate` works on."""

    problem: Problem
    ranks: np.ndarray | None
    """Values or ranks of the units, of shape `(n, U)`, for profiles."""
    names: list[str]
    """The concepts' names, of length m."""
    sources: list[str]
    unit_names: list[str]
    band_names: tuple[str, ...]
    source_ids: np.ndarray | None
    bands_from: str


def read_inputs(ds: Dataset) -> Inputs:
    """Return the arrays that findings are made from, fitting default bands if `ds` has none."""
    ds, bands_from = _with_bands(ds)
    label = columns.class_label(ds.features)
    ids = columns.labels(ds)
    bands = columns.matrix(ds, columns.BAND)
    members, unit_names = _units(bands.shape[1], label.names)
    present, names, sources = _concepts(ds)
    band_names = _band_names(int(bands.max(initial=-1)) + 1)
    problem = Problem(bands, ids, present, label.num_classes, len(band_names), members)
    ranks = next((columns.matrix(ds, c) for c in (columns.LOGITS, columns.QUANTILE) if _fits(ds, c, bands)), None)
    source_ids = np.asarray(ds[columns.SOURCE_ID][:]) if columns.SOURCE_ID in ds.column_names else None
    return Inputs(problem, ranks, names, sources, unit_names, band_names, source_ids, bands_from)


def mirrored(ranks: np.ndarray | None, units: int) -> bool:
    """Return whether there are two units that say the same with opposite sign (correlation below -0.999)."""
    if units != 2 or ranks is None or np.any(np.ptp(ranks, axis=0) == 0):
        return False
    return bool(np.corrcoef(ranks, rowvar=False)[0, 1] < MIRRORED)


def _with_bands(ds: Dataset) -> tuple[Dataset, str]:
    if isinstance(ds, DatasetDict):
        raise TypeError(f"associate takes one split, such as ds[{next(iter(ds), 'validation')!r}], not a DatasetDict")
    if not len(ds):
        raise ValueError("the dataset has no rows to find associations in")
    if columns.BAND in ds.column_names:
        return ds, "the `band` column"
    columns.require(ds, columns.LOGITS)
    bands = LogitBands().fit(ds)
    return bands.transform(ds), f"LogitBands(rule={bands.rule!r}, edges={bands.edges}) fitted on these rows"


def _units(number: int, classes: list[str]) -> tuple[tuple[int | None, ...], list[str]]:
    if number == len(classes):
        return tuple(range(number)), list(classes)
    return (None,) * number, [f"unit_{k}" for k in range(number)]


def _band_names(seen: int) -> tuple[str, ...]:
    """Return the names of three bands, or of as many as are seen."""
    return ("low", "mid", "high") if seen <= 3 else LogitBands("edges", tuple(range(seen - 1))).names


def _concepts(ds: Dataset) -> tuple[sparse.csr_matrix, list[str], list[str]]:
    found = columns.concept_columns(ds.features)
    if not found:
        raise KeyError(
            f"the dataset has no column named {columns.CONCEPTS_PREFIX}<source>; it has {ds.column_names}; "
            "`annotate` adds them"
        )
    names, sources = [], []
    for column in found:
        words = columns.vocabulary(ds.features, column)
        names += words
        sources += [column.removeprefix(columns.CONCEPTS_PREFIX)] * len(words)
    return sparse.csr_matrix(sparse.hstack([columns.presence(ds, c) for c in found], format="csr")), names, sources


def _fits(ds: Dataset, column: str, bands: np.ndarray) -> bool:
    return column in ds.column_names and columns.matrix(ds, column).shape == bands.shape
