"""Counting concepts in bands, per label: one unit at a time, so that memory does not grow with the units."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from hf_midrange.association.stratified import Tables


class Occurrences(NamedTuple):
    """Which rows have which concept, as index pairs, and the rows' labels."""

    rows: np.ndarray
    concepts: np.ndarray
    ids: np.ndarray
    shape: tuple[int, int]
    """Classes and concepts."""
    with_concept: np.ndarray
    """Rows of each label with each concept, of shape `(C, m)`."""


def occurrences(present: sparse.csr_matrix, ids: np.ndarray, classes: int) -> Occurrences:
    """Return the index pairs of a boolean matrix of shape `(n, m)`, with the counts that no band changes."""
    rows = np.repeat(np.arange(present.shape[0]), np.diff(present.indptr))
    concepts = present.indices.astype(np.int64)
    shape = (classes, present.shape[1])
    with_concept = np.bincount(ids[rows] * shape[1] + concepts, minlength=shape[0] * shape[1]).reshape(shape)
    return Occurrences(rows, concepts, ids, shape, with_concept)


class UnitCounts(NamedTuple):
    """The counts of one unit."""

    a: np.ndarray
    """Rows with the concept in each band and label, of shape `(B, C, m)`."""
    in_band: np.ndarray
    """Rows in each band and label, of shape `(B, C)`."""

    def tables(self, band: int, found: Occurrences) -> Tables:
        """Return the 2x2 tables of one band: strata are labels, tests are concepts."""
        a = self.a[band].astype(np.float64)
        margins = (self.in_band[band][:, None], found.with_concept, self.in_band.sum(axis=0)[:, None])
        return Tables(a, *(np.broadcast_to(margin, a.shape).astype(np.float64) for margin in margins))


def count_unit(bands: np.ndarray, found: Occurrences, number: int) -> UnitCounts:
    """Return the counts of one unit whose rows all have a band.

    Args:
        bands: the unit's band on each row, of shape `(n,)`, in `0..number - 1`.
        found: the rows' concepts and labels.
        number: how many bands there are.
    """
    classes, concepts = found.shape
    cell = bands.astype(np.int64) * classes + found.ids
    keys = (cell * concepts)[found.rows] + found.concepts
    a = np.bincount(keys, minlength=number * classes * concepts).reshape(number, classes, concepts)
    return UnitCounts(a, np.bincount(cell, minlength=number * classes).reshape(number, classes))
